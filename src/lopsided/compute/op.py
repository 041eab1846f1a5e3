"""The native executor as one node of a compiled graph: a custom operator with a fake and a gradient.

Outside of `torch.compile` it is not used: a call of an operator costs more than a small loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lopsided.checks import check_values
from lopsided.compute import native
from lopsided.compute.attached import chain
from lopsided.losses import Loss
from lopsided.targets import Labels

_SCHEMA = (
    "(Tensor logits, Tensor? values, Tensor? crow, Tensor? col, Tensor? mask, Tensor? weight, Tensor? pos_weight, "
    "float label_smoothing, int? ignore_index, str loss, bool with_gradient) -> (Tensor, Tensor)"
)


def _rows(
    logits: Tensor,
    values: Tensor | None,
    crow: Tensor | None,
    col: Tensor | None,
    mask: Tensor | None,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    label_smoothing: float,
    ignore_index: int | None,
    loss: str,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    labels = Labels(values, crow, col, mask, weight, pos_weight, label_smoothing, ignore_index)
    found = native.run(logits, labels, native.named(loss), with_gradient=with_gradient)
    if found.odd:
        check_values(logits, labels)
    return found.value, logits.new_empty(0) if found.gradient is None else found.gradient


def _fake(logits: Tensor, *said: Any) -> tuple[Tensor, Tensor]:
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format) if said[-1] else logits.new_empty(0)
    return logits.new_empty(logits.shape[:-1], dtype=torch.promote_types(logits.dtype, torch.float32)), gradient


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    (gradient,) = ctx.saved_tensors
    return chain(gradient, grad), *[None] * 10


_operator = torch.library.custom_op("lopsided::rows", _rows, mutates_args=(), device_types="cpu", schema=_SCHEMA)
_operator.register_fake(_fake)
_operator.register_autograd(_backward, setup_context=_keep)


def row_loss(logits: Tensor, labels: Labels, loss: Loss) -> Tensor:
    """(..., L) logits -> (...) loss of each row, for a loss that was made by name; differentiable once."""
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    rows: Tensor = torch.ops.lopsided.rows(
        logits, *labels.tensors, labels.label_smoothing, labels.ignore_index, loss.name, with_gradient
    )[0]
    return rows
