"""From logits to a reduced loss, by any executor."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lopsided.compute.executor import Executor
from lopsided.compute.node import LateGradient, attach
from lopsided.losses.formulas import Formula
from lopsided.targets import Supervision
from lopsided.targets.checks import check_values, has_values, warn_of_probabilities


class Problem(NamedTuple):
    """What a loss is asked for, beside the logits."""

    formula: Formula
    supervision: Supervision
    row_weight: Tensor | None = None  # (...)
    reduction: str = "mean"
    inplace: bool = False  # may the gradient be written over the logits?


def counted(formula: Formula, reduction: str) -> str | None:
    """Returns what a reduction divides by, as `Supervision.number_of` takes it; None if by nothing."""
    if reduction == "mean":
        return formula.pool.counts
    return "rows" if reduction == "batchmean" else None


def check_reducible(formula: Formula, reduction: str, row_weight: Tensor | None) -> None:
    """Raises ValueError where rows are to be told apart, and the loss is none of single rows."""
    if formula.pool.transposed and (reduction == "none" or row_weight is not None):
        raise ValueError(f"{formula} compares rows with each other: no reduction='none' and no row_weight")


def at_least_one(count: Tensor | int) -> Tensor | int:
    """Returns the divisor for a count: where nothing is known the sum over the rows is 0, and so is its gradient."""
    if isinstance(count, Tensor):
        return count.clamp_min(1)
    return max(count, 1) if type(count) is int else torch.sym_max(count, 1)  # a dynamic size of an export


def evaluate(executor: Executor, logits: Tensor, problem: Problem, needs_check: bool = False) -> Tensor:
    """Returns the reduced loss of (..., L) logits, or (...) with reduction="none", as part of the graph of autograd.

    `needs_check` says that a value is known to be unusual. Raises ValueError for values out of range, on the CPU.
    """
    formula, supervision, row_weight, reduction, _ = problem
    # Where the executor checks values as it goes, all labels are taken to be known until it says otherwise.
    unchecked = executor.CHECKS_VALUES and not needs_check and row_weight is None
    unchecked = unchecked and formula.pool.counts != "positive rows"
    if unchecked and (supervision.crow is not None or supervision.ignore_index is None):
        return _reduced(executor, logits, problem._replace(supervision=supervision._replace(all_known=True)), True)
    problem = problem._replace(supervision=check_values(logits, supervision, row_weight))
    if has_values(logits):
        warn_of_probabilities(logits)
    if not formula.pool.transposed:
        return _reduced(executor, logits, problem)
    check_reducible(formula, reduction, row_weight)
    of_rows = _reduced(executor, logits, problem._replace(inplace=False))
    if logits.numel() == 0:
        return of_rows
    of_columns = problem._replace(supervision=problem.supervision.transpose(logits.shape), inplace=False)
    return of_rows + _reduced(executor, logits.reshape(-1, logits.shape[-1]).T, of_columns)


def _reduced(executor: Executor, logits: Tensor, problem: Problem, unchecked: bool = False) -> Tensor:
    formula, supervision, row_weight, reduction, inplace = problem
    if executor.GRADIENT == "autograd":
        return _reduce_rows(executor.rows(formula, logits, supervision).values, logits.shape, problem)
    # a gradient in float16 is divided later, since a loss scaler could not bring back what becomes 0 here
    by_rows = reduction == "none" or row_weight is not None or logits.dtype == torch.float16
    needs_grad = torch.is_grad_enabled() and logits.requires_grad
    now = needs_grad and not (by_rows and executor.GRADIENT == "backward")
    over_logits = inplace and needs_grad and executor.GRADIENT == "backward" and logits.is_contiguous()
    divisor = 1 if by_rows else _divisor(logits.shape, problem)
    out = logits if over_logits and now else None
    result = executor.rows(formula, logits, supervision, scale=1 / divisor, with_gradient=now, out=out)
    if out is not None:
        torch.autograd.graph.increment_version(logits)
    if unchecked and result.looks_like_probabilities:
        warn_of_probabilities(logits)
    if unchecked and result.needs_check:
        problem = problem._replace(supervision=check_values(logits, supervision._replace(all_known=False)))
        exact = 1 if by_rows else _divisor(logits.shape, problem)
        if exact != divisor:
            return _reduced(executor, logits, problem)
    value = result.values if by_rows else result.values.sum()
    if isinstance(divisor, Tensor):
        value = value / divisor
    late = None
    if needs_grad and executor.GRADIENT == "backward":
        late = LateGradient(executor, formula, supervision, 1 / divisor, over_logits, result.gradient)
    value = attach(logits, value, result.gradient, late)
    return _reduce_rows(value, logits.shape, problem) if by_rows else value


def _reduce_rows(rows: Tensor, shape: torch.Size, problem: Problem) -> Tensor:
    if problem.row_weight is not None:
        rows = rows * problem.row_weight.to(rows.dtype)
    return rows if problem.reduction == "none" else rows.sum() / _divisor(shape, problem)


def _divisor(shape: torch.Size, problem: Problem) -> Tensor | int:
    """Returns what the sum over the rows is divided by; a number if its device need not be waited for."""
    what = counted(problem.formula, problem.reduction)
    if what is None:
        return 1
    count = problem.supervision.number_of(what, shape)
    return at_least_one(int(count) if isinstance(count, Tensor) and has_values(count) else count)
