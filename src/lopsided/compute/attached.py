"""Values whose gradient is known already, as part of the graph of autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
        if torch.is_grad_enabled():
            raise RuntimeError("only the eager executor has second derivatives: pass backend='eager'")
        (gradient,) = ctx.saved_tensors
        if grad.ndim == gradient.ndim - 1 and not (grad.is_cpu and grad.numel() == 1):
            return (gradient * grad.unsqueeze(-1)).to(gradient.dtype), None, None
        factor = grad.item()
        return gradient if factor == 1 else gradient * factor, None, None


def attach(logits: Tensor, value: Tensor, gradient: Tensor | None, total: bool) -> Tensor:
    """The values of a run, or their sum, as part of the graph of the logits; differentiable once."""
    value = value.sum() if total else value
    if gradient is None:
        return value
    attached: Tensor = _Attached.apply(logits, gradient, (value,))  # type: ignore[no-untyped-call]
    return attached
