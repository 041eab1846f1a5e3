"""Values whose gradient is known already, as part of the graph of autograd."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Run(NamedTuple):
    """What one pass over (..., L) logits found."""

    value: Tensor  # (...), loss of each row times the scale
    gradient: Tensor | None  # (..., L), of the values, in the dtype of the logits
    odd: bool = (
        False  # a value was out of the ordinary: `lopsided.targets.checks.check_values` says whether it is wrong
    )
    probable: bool = False  # the first row may be probabilities


def chain(gradient: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the rows times what comes from above, one number for each row."""
    if torch.is_grad_enabled():
        raise RuntimeError("only the eager executor has second derivatives: pass backend='eager'")
    return (gradient * grad.unsqueeze(-1)).to(gradient.dtype)


class _Attached(torch.autograd.Function):
    """A value whose gradient is known already, and is all that is kept: 4 bytes per float32 logit.

    The value may be one of each row, or their sum.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, gradient: Tensor, held: tuple[Tensor]) -> Tensor:
        ctx.save_for_backward(gradient)
        return held[0]  # in a tuple, since an input that is returned would be copied

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        if grad.is_cpu and grad.numel() == 1 and not torch.is_grad_enabled() and grad.item() == 1:
            return gradient, None, None
        return chain(gradient, grad), None, None


def attach(logits: Tensor, value: Tensor, gradient: Tensor | None, total: bool = False) -> Tensor:
    """The values of a run, or their sum, as part of the graph of the logits; differentiable once."""
    value = value.sum() if total else value
    if gradient is None:
        return value
    attached: Tensor = _Attached.apply(logits, gradient, (value,))  # type: ignore[no-untyped-call]
    return attached
