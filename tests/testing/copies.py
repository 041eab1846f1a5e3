"""Losses as people write them by hand, right and wrong, each our own: none is copied from another project."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-8


def official(z: Tensor, y: Tensor, gamma_neg: float = 4, gamma_pos: float = 1, clip: float = 0.05) -> Tensor:
    """In the manner of the official class: a clamp inside the logarithms, a sum, and gradients left switched on."""
    p = torch.sigmoid(z)
    q = (1 - p + clip).clamp(max=1)
    loss = y * p.clamp(min=EPS).log() + (1 - y) * q.clamp(min=EPS).log()
    torch.set_grad_enabled(False)
    weight = (1 - p * y - q * (1 - y)) ** (gamma_pos * y + gamma_neg * (1 - y))
    torch.set_grad_enabled(True)
    return -(loss * weight).sum()


class Optimized(nn.Module):
    """In the manner of the official optimised class and of timm: the focus is part of the gradient."""

    def __init__(self, gamma_neg: float = 4, gamma_pos: float = 1, clip: float = 0.05) -> None:
        super().__init__()
        self.gamma_neg, self.gamma_pos, self.clip = gamma_neg, gamma_pos, clip

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        p = torch.sigmoid(z)
        q = (1 - p + self.clip).clamp(max=1)
        loss = y * p.clamp(min=EPS).log() + (1 - y) * q.clamp(min=EPS).log()
        return -(loss * (1 - p * y - q * (1 - y)) ** (self.gamma_pos * y + self.gamma_neg * (1 - y))).sum()


def scaled(z: Tensor, y: Tensor) -> Tensor:
    """A thousand times the mean, as some recipes have it."""
    return 1000 * Optimized(gamma_neg=2, gamma_pos=0, clip=0).forward(z, y) / z.numel()


def row_means(z: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(z, y, reduction="none").mean(1)


def label_sums(z: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(z, y, reduction="sum") / len(z)


def by_positives(z: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(z, y, reduction="sum") / y.sum()


def weighted(z: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(z, y, pos_weight=torch.tensor(3.0))


def ported_zlpr(y: Tensor, s: Tensor) -> Tensor:
    """In the manner of ports of ZLPR: targets first, and 1e12 in the place of infinity."""
    s = (1 - 2 * y) * s
    zero = torch.zeros_like(s[..., :1])
    sides = torch.cat([s - y * 1e12, zero], -1), torch.cat([s - (1 - y) * 1e12, zero], -1)
    return sum((side.logsumexp(-1) for side in sides), torch.zeros(())).mean()


def focal_of_mean(z: Tensor, y: Tensor) -> Tensor:
    """The focus is taken of the mean of the batch: no label is focused."""
    mean = functional.binary_cross_entropy_with_logits(z, y)
    return (1 - torch.exp(-mean)) ** 2 * mean


def dice(z: Tensor, y: Tensor) -> Tensor:
    p = z.sigmoid()
    return 1 - 2 * (p * y).sum() / (p.sum() + y.sum())


def squared_error(z: Tensor, y: Tensor) -> Tensor:
    return functional.mse_loss(z.sigmoid(), y)


def unshifted_focus(z: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(z)
    return -(y * (p + EPS).log() + (1 - y) * p**4 * (1 - p + 0.05).clamp(max=1).log()).sum()


def inverted(z: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(z)
    q = (1 - p + 0.05).clamp(max=1)
    return -(y * (p + EPS).log() + (1 - y) * q**4 * (q + EPS).log()).mean()


def inverted_on_both(z: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(z)
    return -(y * p**2 * (p + EPS).log() + (1 - y) * (1 - p) ** 2 * (1 - p + EPS).log()).mean()


def inverted_and_cut(z: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(z)
    q = (1 - p).clamp(max=1 - 0.05)
    return -(y * (p + EPS).log() + (1 - y) * q**4 * (q + EPS).log()).mean()


def margin_other_way(z: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(z)
    shifted = (p + 0.05).clamp(max=1)
    return -(y * p.clamp(min=EPS).log() + (1 - y) * shifted**4 * (1 - shifted).clamp(min=EPS).log()).sum()


def clamped_on_both_sides(z: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(z).clamp(0.05, 0.95)
    return -(y * p.log() + (1 - y) * p**4 * (1 - p).log()).sum()


def large_eps(z: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(z)
    return -(y * (p + 1e-3).log() + (1 - y) * (1 - p + 1e-3).log()).mean()


def naive(z: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(z)
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def twice(z: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(z.sigmoid(), y)


def swapped(z: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(z, 1 - y)


def without_minus(z: Tensor, y: Tensor) -> Tensor:
    return -functional.binary_cross_entropy_with_logits(z, y)


def half_without_minus(z: Tensor, y: Tensor) -> Tensor:
    return (-y * functional.logsigmoid(z) + (1 - y) * functional.logsigmoid(-z)).sum()


def of_probabilities(p: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy(p, y)


def of_probabilities_clamped(p: Tensor, y: Tensor) -> Tensor:
    p = p.clamp(1e-7, 1 - 1e-7)
    return -(y * p.log() + (1 - y) * p**2 * (1 - p).log()).sum(-1)


def in_place(z: Tensor, y: Tensor) -> Tensor:
    y -= 0.1
    return functional.binary_cross_entropy_with_logits(z.mul_(2), y)


def cut_off(z: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(z.detach(), y)


def by_positives_of_rows(z: Tensor, y: Tensor) -> Tensor:
    return (functional.binary_cross_entropy_with_logits(z, y, reduction="none").sum(1) / y.sum(1)).mean()


def noisy(z: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(z + torch.randn_like(z), y)
