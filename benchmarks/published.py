"""The losses as published code writes them: probabilities first, then logarithms with a clamp, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def focal(z: Tensor, y: Tensor, gamma: float = 2.0) -> Tensor:
    p = torch.sigmoid(z)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction="none")
    right = p * y + (1 - p) * (1 - y)
    return (cross_entropy * (1 - right) ** gamma).sum()


def asymmetric(z: Tensor, y: Tensor, gamma_neg: float = 4.0, gamma_pos: float = 0.0, clip: float = 0.05) -> Tensor:
    """Focusing weights detached, as in the official training script."""
    return _focused(torch.log(_positive(z)), torch.log(_negative(z, clip)), z, y, gamma_neg, gamma_pos, clip)


def asymmetric_polynomial(z: Tensor, y: Tensor, gamma_neg: float = 4.0, clip: float = 0.05) -> Tensor:
    p = _positive(z)
    positive = torch.log(p) + (1 - p) - 2.5 / 2 * (1 - p) ** 2
    return _focused(positive, torch.log(_negative(z, clip)), z, y, gamma_neg, 0.0, clip)


def zlpr(z: Tensor, y: Tensor) -> Tensor:
    z = (1 - 2 * y) * z
    nothing = torch.zeros_like(z[..., :1])
    negative = torch.cat([z - y * 1e12, nothing], -1)
    positive = torch.cat([z - (1 - y) * 1e12, nothing], -1)
    return (torch.logsumexp(negative, -1) + torch.logsumexp(positive, -1)).sum()


def _positive(z: Tensor) -> Tensor:
    return torch.sigmoid(z).clamp(min=1e-8)


def _negative(z: Tensor, clip: float) -> Tensor:
    return (1 - torch.sigmoid(z) + clip).clamp(max=1).clamp(min=1e-8)


def _focused(
    positive: Tensor, negative: Tensor, z: Tensor, y: Tensor, gamma_neg: float, gamma_pos: float, clip: float
) -> Tensor:
    loss = y * positive + (1 - y) * negative
    with torch.no_grad():
        p = torch.sigmoid(z)
        right = p * y + (1 - p + clip).clamp(max=1) * (1 - y)
        weight = torch.pow(1 - right, gamma_pos * y + gamma_neg * (1 - y))
    return -(loss * weight).sum()
