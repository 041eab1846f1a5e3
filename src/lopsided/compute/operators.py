"""The compiled executors as nodes of a compiled graph: custom operators with a fake and a gradient.

Outside of `torch.compile` they are not used: a call of an operator costs more than a small loss. The one of the C
library makes the gradient along with the values. With Triton the gradient is an operator of its own, which what comes
from above enters: that would otherwise be one more pass over memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lopsided.compute.executor import chain
from lopsided.compute.native import run as native
from lopsided.compute.triton import run as triton
from lopsided.losses import Formula
from lopsided.targets import Supervision
from lopsided.targets.checks import check_values

_SAID = (
    "Tensor logits, Tensor? values, Tensor? crow, Tensor? col, Tensor? mask, Tensor? weight, Tensor? pos_weight, "
    "float label_smoothing, int? ignore_index, str loss"
)


def _rows(logits: Tensor, *said: Any) -> tuple[Tensor, Tensor]:
    labels, (loss, with_gradient) = Supervision(*said[:8]), said[8:]
    found = native.run(logits, labels, native.named(loss), with_gradient=with_gradient)
    if found.odd:
        check_values(logits, labels)
    return found.value, logits.new_empty(0) if found.gradient is None else found.gradient


def _fake(logits: Tensor, *said: Any) -> tuple[Tensor, Tensor]:
    return _fake_rows(logits), _fake_slopes(None, logits) if said[-1] else logits.new_empty(0)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    (gradient,) = ctx.saved_tensors
    return chain(gradient, grad), *[None] * 10


_operator = torch.library.custom_op(
    "lopsided::rows",
    _rows,
    mutates_args=(),
    device_types="cpu",
    schema=f"({_SAID}, bool with_gradient) -> (Tensor, Tensor)",
)
_operator.register_fake(_fake)
_operator.register_autograd(_backward, setup_context=_keep)


def _triton_rows(logits: Tensor, *said: Any) -> Tensor:
    return triton.run(logits, Supervision(*said[:8]), native.named(said[8]), with_gradient=False).value


def _triton_slopes(grad: Tensor, logits: Tensor, *said: Any) -> Tensor:
    gradient = triton.run(logits, Supervision(*said[:8]), native.named(said[8]), upstream=grad).gradient
    assert gradient is not None
    return gradient


def _fake_rows(logits: Tensor, *said: Any) -> Tensor:
    return logits.new_empty(logits.shape[:-1], dtype=torch.promote_types(logits.dtype, torch.float32))


def _fake_slopes(grad: Any, logits: Tensor, *said: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.rest = inputs[7:]


def _backward_rows(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError("only the eager executor has second derivatives: pass backend='eager'")
    return torch.ops.lopsided.triton_slopes(grad, *ctx.saved_tensors, *ctx.rest), *[None] * 9


_triton = torch.library.custom_op("lopsided::triton_rows", _triton_rows, mutates_args=(), schema=f"({_SAID}) -> Tensor")
_triton.register_fake(_fake_rows)
_triton.register_autograd(_backward_rows, setup_context=_keep_inputs)
_slopes = torch.library.custom_op(
    "lopsided::triton_slopes", _triton_slopes, mutates_args=(), schema=f"(Tensor grad, {_SAID}) -> Tensor"
)
_slopes.register_fake(_fake_slopes)


def row_loss(logits: Tensor, labels: Supervision, loss: Formula) -> Tensor:
    """(..., L) logits -> (...) loss of each row, for a loss that was made by name; differentiable once."""
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    said = *labels.tensors, labels.label_smoothing, labels.ignore_index, loss.name
    rows: Tensor = torch.ops.lopsided.rows(logits, *said, with_gradient)[0]
    return rows


def triton_row_loss(logits: Tensor, labels: Supervision, loss: Formula) -> Tensor:
    """The same by Triton."""
    said = *labels.tensors, labels.label_smoothing, labels.ignore_index, loss.name
    rows: Tensor = torch.ops.lopsided.triton_rows(logits, *said)
    return rows
