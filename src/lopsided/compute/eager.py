"""The eager executor: the whole matrix at once, in plain torch. The reference for every other executor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lopsided.compute.executor import RowResult, Source
from lopsided.losses.formulas import Formula
from lopsided.targets import Supervision

NAME = "eager"
GRADIENT: Source = "autograd"
CHECKS_VALUES = False


class _RowLoss(torch.autograd.Function):
    """Row values forward, the curves' own slopes backward.

    Slopes are not left to autograd because some curves detach part of their value. Saved for backward are the
    inputs and the state: nothing of the size of the logits is allocated between the passes. Second derivatives are
    those of the slope as it is, so a detached focusing weight varies in them.
    """

    @staticmethod
    def forward(
        logits: Tensor,
        formula: Formula,
        label_smoothing: float,
        ignore_index: int | None,
        values: Tensor | None,  # from here on Supervision.tensors, one by one: dynamo does not follow *arguments here
        crow: Tensor | None,
        col: Tensor | None,
        mask: Tensor | None,
        weight: Tensor | None,
        pos_weight: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        supervision = Supervision(values, crow, col, mask, weight, pos_weight, label_smoothing, ignore_index)
        z, weights = widen(logits, supervision)
        state = formula.summarize(z, weights)
        return formula.value(state), state

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        logits, ctx.formula, ctx.label_smoothing, ctx.ignore_index, *tensors = inputs
        ctx.save_for_backward(logits, output[1], *tensors)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, grad_rows: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        logits, state, values, crow, col, mask, weight, pos_weight = ctx.saved_tensors
        supervision = Supervision(values, crow, col, mask, weight, pos_weight, ctx.label_smoothing, ctx.ignore_index)
        z, weights = widen(logits, supervision)
        if torch.is_grad_enabled():  # a second derivative: the state depends on the logits too
            state = ctx.formula.summarize(z, weights)
        grad = ctx.formula.grad(z, weights, state) * grad_rows.unsqueeze(-1)
        return grad.to(logits.dtype), *[None] * 9


class _TransformedRowLoss(_RowLoss):
    """The same for `vmap`, `torch.func` and forward-mode differentiation, none of which a compiled graph may hold."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _RowLoss.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[0], output[1], *inputs[4:])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> tuple[Tensor, None]:
        logits, state, values, crow, col, mask, weight, pos_weight = ctx.saved_tensors
        supervision = Supervision(values, crow, col, mask, weight, pos_weight, ctx.label_smoothing, ctx.ignore_index)
        z, weights = widen(logits, supervision)
        return (ctx.formula.grad(z, weights, state) * tangent).sum(-1).to(state.dtype), None


def widen(logits: Tensor, supervision: Supervision) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Returns logits and weights in at least float32: sums and exponentials of 16-bit numbers lose or overflow."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    z = logits.to(dtype)
    known = supervision.known(logits.shape)
    if known is not None:
        z = torch.where(known, z, 0.0)  # NaN behind the mask would reach second derivatives
    return z, supervision.weights(logits.shape, dtype)


def refusal(formula: Formula, logits: Tensor) -> None:
    """Works as `Executor.refusal`: it serves everything."""


def rows(formula: Formula, logits: Tensor, supervision: Supervision, **_: Any) -> RowResult:
    """Works as `Executor.rows`; the values are differentiable twice."""
    fixed = formula, supervision.label_smoothing, supervision.ignore_index
    node = _RowLoss if torch.compiler.is_compiling() else _TransformedRowLoss
    values: Tensor = node.apply(logits, *fixed, *supervision.tensors)[0]  # type: ignore[no-untyped-call]
    return RowResult(values, None)
