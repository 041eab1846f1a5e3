"""The losses once more, straight from the papers, in float64 and with none of lopsided's code.

Textbook forms: exact only for moderate logits, which is where the tests use them. The focusing weight is
detached by hand where asked, and gradients are autograd's.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def asymmetric_polynomial(
    z: Tensor,
    y: Tensor,
    gamma_neg: float = 0,
    gamma_pos: float = 0,
    clip: float = 0,
    epsilon_pos: float = 0,
    epsilon_neg: float = 0,
    epsilon_pos_pow: float = 0,
    detach_focus: bool = False,
) -> Tensor:
    """ASL and APL, and with zeros BCE and focal: one value per row."""
    p = 1 / (1 + torch.exp(-z))
    shifted = torch.where(p > clip, p - clip, torch.zeros_like(p))
    weight_pos, weight_neg = (1 - p) ** gamma_pos, shifted**gamma_neg
    if detach_focus:
        weight_pos, weight_neg = weight_pos.detach(), weight_neg.detach()
    positive = torch.log(p) + epsilon_pos * (1 - p) + epsilon_pos_pow / 2 * (1 - p) ** 2
    negative = torch.log(1 - shifted) + epsilon_neg * (1 - shifted)
    return -(y * weight_pos * positive + (1 - y) * weight_neg * negative).sum(-1)


def zlpr(z: Tensor, y: Tensor) -> Tensor:
    return torch.log(1 + (y * torch.exp(-z)).sum(-1)) + torch.log(1 + ((1 - y) * torch.exp(z)).sum(-1))


def gradient(rows: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """d (sum of rows) / d z."""
    z = z.detach().clone().requires_grad_()
    return torch.autograd.grad(rows(z).sum(), z)[0]
