"""The compiled executors as nodes of a compiled graph: operators with a fake and a gradient.

Outside of `torch.compile` and `torch.export` they are not used: a call of an operator costs more than a small loss.
Where an executor makes the gradient along with the values, and it is known to be needed, one operator returns both;
else the gradient is an operator of its own, which what comes from above enters.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lopsided.compute import fast_path
from lopsided.compute.executor import Executor, RowResult, Source
from lopsided.compute.native import run as native
from lopsided.compute.node import chain, refuse_second_derivatives
from lopsided.compute.triton import run as triton
from lopsided.losses.formulas import Formula
from lopsided.losses.names import as_formula
from lopsided.targets import Supervision
from lopsided.targets.checks import check_values

_NAMED = (
    "Tensor logits, Tensor? values, Tensor? crow, Tensor? col, Tensor? mask, Tensor? weight, Tensor? pos_weight, "
    "float label_smoothing, int? ignore_index, str formula"
)
_BATCH = f"{_NAMED}, str executor"
_TENSORS, _ALL = 7, 11  # of the arguments in _BATCH


def _evaluate(logits: Tensor, *rest: Any, **options: Any) -> RowResult:
    *fields, formula, executor = rest
    supervision = Supervision(*fields)
    by: ModuleType = native if executor == native.NAME else triton
    result: RowResult = by.rows(as_formula(formula), logits, supervision, **options)
    if result.needs_check:
        check_values(logits, supervision)
    return result


def _rows(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    result = _evaluate(logits, *rest[:-1], with_gradient=rest[-1])
    return result.values, logits.new_empty(0) if result.gradient is None else result.gradient


def _fake_rows(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    values = logits.new_empty(logits.shape[:-1], dtype=torch.promote_types(logits.dtype, torch.float32))
    return values, _fake_gradient(None, logits) if rest[-1] else logits.new_empty(0)


def _gradient(grad: Tensor, logits: Tensor, *rest: Any) -> Tensor:
    gradient = _evaluate(logits, *rest, scale=grad).gradient
    assert gradient is not None
    return gradient


def _loss(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    given: list[Any] = [each.contiguous() if isinstance(each, Tensor) else each for each in rest]
    *fields, name, row_weight, reduction = given
    z, supervision = logits.detach().contiguous(), Supervision(*fields)
    value, gradient = fast_path.new_value(z, reduction), torch.empty_like(z)
    if z.numel() == 0:
        return value.zero_(), gradient
    if not fast_path.calculate(z, supervision, row_weight, as_formula(name), reduction, value, gradient):
        raise MemoryError(f"no memory for a loss of {tuple(z.shape)} logits")
    return value, gradient


def _fake_loss(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return fast_path.new_value(logits, rest[-1]), _fake_gradient(None, logits)


def _fake_gradient(grad: Any, logits: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *ctx.rest, ctx.with_gradient = inputs[_TENSORS:]
    ctx.save_for_backward(*((output[1],) if ctx.with_gradient else inputs[:_TENSORS]))
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    refuse_second_derivatives()
    if ctx.with_gradient:
        gradient = chain(ctx.saved_tensors[0], grad)
    else:
        gradient = torch.ops.lopsided.gradient(grad, *ctx.saved_tensors, *ctx.rest)
    return gradient, *[None] * _ALL


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _backward_of_loss(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    refuse_second_derivatives()
    return chain(ctx.saved_tensors[0], grad), *[None] * _ALL


# Not `custom_op`, whose wrapper takes longer than a small loss. The operators live as long as the library.
_library = torch.library.Library("lopsided", "DEF")
for _name, _schema, _function, _fake in (
    ("rows", f"({_BATCH}, bool with_gradient) -> (Tensor, Tensor)", _rows, _fake_rows),
    ("loss", f"({_NAMED}, Tensor? row_weight, str reduction) -> (Tensor, Tensor)", _loss, _fake_loss),
    ("gradient", f"(Tensor grad, {_BATCH}) -> Tensor", _gradient, _fake_gradient),
):
    _library.define(f"{_name}{_schema}", tags=torch.Tag.pt2_compliant_tag)
    _library.impl(_name, _function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"lopsided::{_name}", _fake, lib=_library)
torch.library.register_autograd("lopsided::rows", _backward, setup_context=_save, lib=_library)
torch.library.register_autograd("lopsided::loss", _backward_of_loss, setup_context=_save_gradient, lib=_library)


class Operator:
    """An executor that stands for a compiled one within a graph."""

    GRADIENT: Source = "autograd"
    CHECKS_VALUES = False  # the operator does, when the graph runs

    def __init__(self, executor: ModuleType) -> None:
        self.NAME: str = executor.NAME
        self.along = executor.GRADIENT == "forward"

    def refusal(self, formula: Formula, logits: Tensor) -> str | None:
        device = logits.device.type
        if self.NAME == native.NAME:
            served = device == "cpu" and native.serves(formula.name)
        else:
            served = logits.dtype in triton.DTYPES and triton.serves(formula.name, device)
        return None if served else f"it has no operator for {formula} on {logits.device}"

    def rows(self, formula: Formula, logits: Tensor, supervision: Supervision, **_: Any) -> RowResult:
        """Works as `Executor.rows`, for a formula that was made by name; differentiable once."""
        settings = supervision.label_smoothing, supervision.ignore_index, formula.name, self.NAME
        with_gradient = self.along and torch.is_grad_enabled() and logits.requires_grad
        values = torch.ops.lopsided.rows(logits, *supervision.tensors, *settings, with_gradient)[0]
        return RowResult(values, None)


def compiled_loss(
    executor: Executor, logits: Tensor, supervision: Supervision, row_weight: Tensor | None, formula: Formula, how: str
) -> Tensor | None:
    """Returns the loss with the reduction `how`, made by the C library as one node of a graph; None for other losses.

    The gradient is made along with it: where none is known to be needed, the loss of each row is the better node.
    """
    along = torch.is_grad_enabled() and logits.requires_grad and logits.dtype != torch.float16
    if executor is not OPERATORS[native.NAME] or not along or not fast_path.is_reduced(formula, how, row_weight):
        return None
    settings = supervision.label_smoothing, supervision.ignore_index, formula.name
    value: Tensor = torch.ops.lopsided.loss(logits, *supervision.tensors, *settings, row_weight, how)[0]
    return value


OPERATORS = {executor.NAME: Operator(executor) for executor in (native, triton)}
