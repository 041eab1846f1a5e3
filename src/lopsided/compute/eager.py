"""The eager executor: the whole matrix at once, in plain torch. The reference for every other executor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lopsided.losses.loss import Loss
from lopsided.targets import Dense


class _RowLoss(torch.autograd.Function):
    """Row values forward, the curves' own slopes backward.

    Slopes are not left to autograd because some curves detach part of their value. Saved for backward are the
    inputs and the state: nothing of the size of the logits is allocated between the passes.
    """

    @staticmethod
    def forward(logits: Tensor, values: Tensor, mask: Tensor | None, loss: Loss) -> tuple[Tensor, Tensor]:
        z, weights = _widen(logits, values, mask)
        state = loss.summarize(z, weights)
        return loss.value(state), state

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, Loss], output: Any) -> None:
        logits, values, mask, ctx.loss = inputs
        ctx.save_for_backward(logits, values, mask, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, grad_rows: Tensor, _: Any) -> tuple[Tensor, None, None, None]:
        logits, values, mask, state = ctx.saved_tensors
        z, weights = _widen(logits, values, mask)
        if torch.is_grad_enabled():  # a second derivative: the state depends on the logits too
            state = ctx.loss.summarize(z, weights)
        grad = ctx.loss.grad(z, weights, state) * grad_rows.unsqueeze(-1)
        return grad.to(logits.dtype), None, None, None


def _widen(logits: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Logits and weights in at least float32: sums and exponentials of 16-bit numbers lose or overflow."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    z = logits.to(dtype)
    if mask is not None:
        z = torch.where(mask, z, 0.0)  # NaN behind the mask would reach second derivatives
    return z, Dense(values, mask).weights(dtype)


def row_loss(logits: Tensor, targets: Dense, loss: Loss) -> Tensor:
    """(..., L) logits -> (...) loss of each row, float32 for 16-bit logits. Differentiable twice."""
    rows: Tensor = _RowLoss.apply(logits, targets.values, targets.mask, loss)[0]  # type: ignore[no-untyped-call]
    return rows
