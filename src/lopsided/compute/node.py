"""The node of autograd for losses whose gradient an executor makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lopsided.compute.executor import Executor
from lopsided.compute.triton.run import rescale_
from lopsided.losses.formulas import Formula
from lopsided.targets import Supervision

_is_batched = torch._C._functorch.is_legacy_batchedtensor


def chain(gradient: Tensor, grad: Tensor) -> Tensor:
    """Returns the gradient of the rows times what comes from above: one number, or one for each row."""
    refuse_second_derivatives()
    return (gradient * grad.unsqueeze(-1)).to(gradient.dtype)


def refuse_second_derivatives() -> None:
    """Raises RuntimeError within a backward pass that autograd records."""
    if torch.is_grad_enabled():
        raise RuntimeError("only the eager executor has second derivatives: pass backend='eager'")


@dataclass
class LateGradient:
    """A gradient that is made in the backward pass, or that is good for one backward pass and made again for others."""

    executor: Executor
    formula: Formula
    supervision: Supervision
    scale: float | Tensor  # of the loss, beside what comes from above
    over_logits: bool  # is the gradient written over the logits?
    gradient: Tensor | None = None  # made already
    spent: bool = False

    def make(self, ctx: Any, grad: Tensor) -> Tensor:
        """Returns the gradient by the logits, given the context of their node and what comes from above."""
        refuse_second_derivatives()
        if self.spent and self.over_logits:
            raise RuntimeError("inplace=True has written the gradient over the logits, for one backward pass only")
        gradient, self.gradient, self.spent = self.gradient, None, True
        if gradient is not None:
            return rescale_(gradient, grad)
        logits, *tensors = ctx.saved_tensors
        supervision, out = self.supervision.with_tensors(tensors), logits if self.over_logits else None
        scale = grad if isinstance(self.scale, float) and self.scale == 1 else grad * self.scale
        gradient = self.executor.rows(self.formula, logits, supervision, scale=scale, out=out).gradient
        if self.over_logits:
            torch.autograd.graph.increment_version(logits)
        assert gradient is not None
        return gradient


class _Attached(torch.autograd.Function):
    """Rows or their sum, calculated before. Saved is the gradient, or what is needed to make it."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, gradient: Tensor | None, held: tuple[Tensor], late: LateGradient | None
    ) -> Tensor:
        if late is None:
            ctx.save_for_backward(gradient)
        else:  # autograd keeps the tensors: it frees them after use, and sees when they are changed
            ctx.late, tensors = late, late.supervision.tensors
            ctx.save_for_backward(logits, *tensors)
            late.supervision = late.supervision.with_tensors([None] * len(tensors))
        return held[0]  # in a tuple, since an input that is returned would be copied

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        late: LateGradient | None = getattr(ctx, "late", None)
        if late is not None:
            return late.make(ctx, grad), None, None, None
        (gradient,) = ctx.saved_tensors
        readable = grad.is_cpu and grad.numel() == 1 and not torch.is_grad_enabled() and not _is_batched(grad)
        unchanged = readable and grad.item() == 1
        return gradient if unchanged else chain(gradient, grad), None, None, None


# `Function.apply` prepares for transforms of torch.func, within which no such gradient is made, and takes as long as
# the node itself
_apply = super(torch.autograd.Function, _Attached).apply


def attach(logits: Tensor, value: Tensor, gradient: Tensor | None, late: LateGradient | None = None) -> Tensor:
    """Returns the loss of each row, or their sum, as part of the graph of the logits; differentiable once.

    `gradient` is that of `value`, or None where `late` makes it; without either, `value` is returned as it is.
    """
    if gradient is None and late is None:
        return value
    attached: Tensor = _apply(logits, gradient, (value,), late)  # type: ignore[no-untyped-call]
    return attached
