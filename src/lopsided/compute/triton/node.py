"""The Triton executor as a node of autograd, which never waits for the device.

Where the loss is one number and nothing is known from above, its gradient is made along with it, and handed on once: if
what comes from above is not 1, after one more pass over it. For values of rows, for float16, whose small gradients only
a loss scaler can save, and for a second backward pass, it is made in the backward pass, with what comes from above.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lopsided.compute.triton import run as triton
from lopsided.losses.formulas import Formula
from lopsided.targets import Supervision


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        loss: Formula,
        labels: Supervision,  # without its tensors, which autograd keeps
        divisor: Tensor | int | None,
        over: bool,
        needs_grad: bool,
        *said: Tensor | None,
    ) -> Tensor:
        ready = needs_grad and divisor is not None and logits.dtype != torch.float16
        scale = _scale(divisor)
        out = logits if over and ready else None
        found = triton.run(logits, labels.with_tensors(said), loss, *scale, ready, out=out)
        ctx.loss, ctx.labels, ctx.scale, ctx.over, ctx.spent = loss, labels, scale, over, False
        ctx.gradient = found.gradient
        if over and ready:
            torch.autograd.graph.increment_version(logits)
        ctx.save_for_backward(logits, *said)
        if divisor is None:
            return found.value
        return found.value.sum() / divisor

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("only the eager executor has second derivatives: pass backend='eager'")
        if ctx.spent and ctx.over:
            raise RuntimeError("inplace=True has written the gradient over the logits, for one backward pass only")
        gradient, ctx.gradient, ctx.spent = ctx.gradient, None, True
        if gradient is None:
            logits, *said = ctx.saved_tensors
            scale, below = ctx.scale
            upstream = grad if below is None else grad * below
            out = logits if ctx.over else None
            labels = ctx.labels.with_tensors(said)
            gradient = triton.run(logits, labels, ctx.loss, scale, upstream, out=out).gradient
            if ctx.over:
                torch.autograd.graph.increment_version(logits)
        else:
            triton.rescale_(gradient, grad)
        return gradient, *[None] * (5 + len(ctx.labels.tensors))


def _scale(divisor: Tensor | int | None) -> tuple[float, Tensor | None]:
    """What the gradient is multiplied with: a number that is known, and one that only the device knows."""
    if isinstance(divisor, Tensor):
        return 1.0, 1 / divisor
    return 1 / (divisor or 1), None


def evaluate(
    logits: Tensor, labels: Supervision, loss: Formula, divisor: Tensor | int | None, inplace: bool = False
) -> Tensor:
    """(..., L) logits -> (...) loss of each row without a divisor, else their sum over it; differentiable once.

    With `inplace`, the gradient is written over the logits if they are contiguous.
    """
    needs_grad = torch.is_grad_enabled() and logits.requires_grad
    over = inplace and needs_grad and logits.is_contiguous()
    bare = labels.with_tensors([None] * len(labels.tensors))
    result: Tensor = _Loss.apply(logits, loss, bare, divisor, over, needs_grad, *labels.tensors)  # type: ignore[no-untyped-call]
    return result
