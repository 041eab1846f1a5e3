"""The closed vocabulary of the curves, for torch.

Curves call these names, arithmetic and comparisons, and nothing else, so that one source can also be traced
and printed for other executors. None ever writes `1 - p` or adds an eps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_PRODUCT = 8


def logistic(z: Tensor) -> tuple[Tensor, Tensor]:
    """Computes p and 1 - p for p = sigmoid(z), each exact to rounding for every finite z."""
    return z.sigmoid(), (-z).sigmoid()


def softplus(z: Tensor) -> Tensor:
    """Computes log(1 + exp z), which is -log(1 - p), and -log p for -z; exact to rounding for every finite z."""
    from torch.nn import functional

    return functional.softplus(z, threshold=40.0)  # past which it is z, in float64 too


def exp(x: Tensor) -> Tensor:
    """Computes e to the power x."""
    return x.exp()


def log1p(x: Tensor) -> Tensor:
    """Computes log(1 + x)."""
    return x.log1p()


def select(where: Tensor, one: Tensor | float, other: Tensor | float) -> Tensor:
    """Returns one where a condition holds, else the other."""
    import torch

    return torch.where(where, one, other)


def maximum(x: Tensor, floor: float) -> Tensor:
    """Returns the larger of x and a number; NaN stays NaN."""
    return x.clamp_min(floor)


def power(x: Tensor, gamma: float) -> Tensor | float:
    """Computes x to the power gamma for x in [0, 1]; 0^0 is 1, and the result is finite for every gamma > -1.

    Small whole exponents are products; otherwise the base is kept at or above the smallest normal number,
    so that r^(gamma - 1) stays finite at r = 0.
    """
    if gamma == 0:
        return 1.0
    if gamma != int(gamma) or not 0 < gamma <= _LARGEST_PRODUCT:
        import torch

        return x.clamp_min(torch.finfo(x.dtype).tiny) ** gamma
    exponent = int(gamma)
    half = power(x * x, exponent // 2)
    return half * x if exponent % 2 else half
