"""A linear head and its loss at millions of labels, without the logits."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from lopsided.compute import choose, choose_for_head
from lopsided.compute.counted import Counted
from lopsided.compute.head import passes as linear
from lopsided.compute.head.evaluators import evaluator
from lopsided.compute.head.label_ranges import LabelRanges
from lopsided.compute.head.shard import LabelShard
from lopsided.compute.reduce import Problem, check_reducible
from lopsided.compute.reduce import evaluate as reduced_loss
from lopsided.losses import Formula, as_formula
from lopsided.nn.options import check_options
from lopsided.targets import SparseTargets, Supervision
from lopsided.targets.checks import check_inputs, check_values

P = ParamSpec("P")
T = TypeVar("T")
_CPU_BYTES, _DEVICE_BYTES = 1 << 21, 1 << 26  # of a chunk: of its logits, and of its rows of the weight


def linear_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor | SparseTargets,
    loss: Formula | str = "asl",
    *,
    label_weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    row_weight: Tensor | None = None,
    mask: Tensor | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    chunk: int | None = None,
    backend: str = "auto",
    shard: LabelShard | None = None,
) -> Tensor:
    """Computes `multilabel_loss(hidden @ weight.T + bias, targets, loss)` without ever holding all logits.

    Gradients are made in the forward pass, with three matrix products where labels are independent, four for losses
    that compare labels, and five for the decoupled softmax; with reduction="none" or float16 they are made in the
    backward pass, from logits that are computed again. The gradient of the weight exists once, as large as the weight.

    Args:
        hidden: (..., D), any float dtype.
        weight: (L, D), or the rows of `shard`. Products are made in its dtype, or that of autocast; those of float16
            on a CPU in float32.
        bias: (L,) or None.
        targets: as in `lopsided.functional.multilabel_loss`; `SparseTargets` where memory should not grow.
        loss: a `Formula`, or its name with settings such as "asl(gamma_neg=2)".
        label_weight: the `weight` of `multilabel_loss`.
        pos_weight, row_weight, mask, ignore_index, label_smoothing, reduction: as there.
        chunk: labels that are computed at a time, by default what a cache holds. It does not change the result.
        backend: "auto", "native", "triton", "streamed" as there; "eager" holds the logits, differentiable twice.
        shard: this rank's part of the labels: `lopsided.LabelShard`.

    Returns:
        A number, or (...) with reduction="none"; float64 for float64 weights, else float32.

    Raises:
        TypeError, ValueError: on wrong shapes, dtypes, devices or, on the CPU, values.

    >>> hidden, weight = torch.eye(2), torch.tensor([[2.0, 0.5], [-1.0, 3.0]])
    >>> linear_loss(hidden, weight, None, SparseTargets.from_indices([[0], [1]]), "zlpr", reduction="none")
    tensor([0.4402, 1.0227])
    """
    check_options(reduction, "mixture", label_smoothing, -1, ignore_index)
    supervision = Supervision.of(
        targets, ignore_index, mask=mask, weight=label_weight, pos_weight=pos_weight, label_smoothing=label_smoothing
    )
    arguments = hidden, weight, bias, supervision, as_formula(loss), row_weight
    problem = make_problem(*arguments, reduction=reduction, chunk=chunk, backend=backend, shard=shard)
    return evaluate(hidden, weight, bias, problem, backend)


def _outside_graphs(function: Callable[P, T]) -> Callable[P, T]:
    """Applies `torch.compiler.disable`, which imports all of dynamo, once dynamo has been imported."""

    @wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> T:
        if "torch._dynamo" not in sys.modules:
            return function(*arguments, **options)
        return torch.compiler.disable(function)(*arguments, **options)  # type: ignore[no-any-return]

    return call


def evaluate(hidden: Tensor, weight: Tensor, bias: Tensor | None, problem: linear.HeadProblem, backend: str) -> Tensor:
    """Computes the loss of (..., D) hidden states, differentiable: a number, or (...) with reduction="none"."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    result = (_eager if backend == "eager" else _by_ranges)(flat, weight, bias, problem)
    return result.view(hidden.shape[:-1]) if problem.reduction == "none" else result


@_outside_graphs
def _by_ranges(hidden: Tensor, weight: Tensor, bias: Tensor | None, problem: linear.HeadProblem) -> Tensor:
    needs_grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (hidden, weight, bias))
    weight, bias = rows_here(weight, problem.shard), None if bias is None else rows_here(bias, problem.shard)
    result: Tensor = linear.LinearRows.apply(hidden, weight, bias, problem, needs_grad)  # type: ignore[no-untyped-call]
    return result


def _eager(hidden: Tensor, weight: Tensor, bias: Tensor | None, problem: linear.HeadProblem) -> Tensor:
    if problem.shard is not None:
        raise ValueError("backend='eager' holds the logits of all labels, so it takes no shard")
    if not torch.is_autocast_enabled(weight.device.type):
        hidden = hidden.to(weight.dtype)
    logits, supervision = functional.linear(hidden, weight, bias), problem.ranges.supervision
    if problem.counted is not None:
        logits, label_weight = problem.counted.turned(logits, supervision)
        supervision = supervision._replace(weight=label_weight)
    of_rows = Problem(problem.formula, supervision, problem.row_weight, problem.reduction)
    return reduced_loss(choose("eager", problem.formula, logits), logits, of_rows)


def rows_here(tensor: Tensor, shard: LabelShard | None) -> Tensor:
    """Returns the part of weight or bias that lies on this rank, differentiable."""
    return tensor if shard is None else shard.local(tensor)


@_outside_graphs
def make_problem(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    supervision: Supervision,
    formula: Formula,
    row_weight: Tensor | None,
    *,
    reduction: str,
    chunk: int | None,
    backend: str,
    shard: LabelShard | None,
    updater: linear.Updater | None = None,
    counted: Counted | None = None,
) -> linear.HeadProblem:
    """Checks all inputs, and makes what a pass must know. Hidden (..., D), weight (L, D) or this rank's part."""
    check_head(hidden, weight, bias, shard)
    num_labels = weight.shape[0] if shard is None else shard.num_labels
    dtype = _dtype(weight)
    shape = torch.Size((*hidden.shape[:-1], num_labels))
    logits = torch.empty((), dtype=dtype, device=hidden.device).expand(shape)  # to be looked at only
    check_inputs(logits, supervision, row_weight, weight_name="label_weight")
    supervision = check_values(logits, supervision, row_weight, weight_name="label_weight").flat(shape)
    check_reducible(formula, reduction, row_weight)
    rows = hidden.shape[:-1].numel()
    start, stop = (0, num_labels) if shard is None else (shard.start, shard.stop)
    width = chunk_width(chunk, 0 if shard is not None and shard.data is not None else rows, weight)
    ranges = LabelRanges(supervision, torch.Size((rows, num_labels)), start, stop, width)
    divides_by_known = reduction == "batchmean" or (reduction == "mean" and formula.pool.counts != "positive rows")
    known = ranges.known() if divides_by_known else None
    if known is not None and shard is not None:
        known = shard.sum(known)
    beside = hidden, weight, bias, *supervision.tensors, row_weight
    executor = choose_for_head(backend, formula, logits, *beside)
    if row_weight is not None:
        row_weight = row_weight.reshape(-1).to(torch.promote_types(dtype, torch.float32))
    if counted is not None:
        counted = counted.having_seen(ranges, start, hidden.new_empty(rows, 0))
        if shard is not None and counted.sampled is not None:
            shard.sum(counted.sampled)
    by = evaluator(executor, formula)
    return linear.HeadProblem(formula, by, ranges, reduction, row_weight, known, dtype, shard, updater, counted)


def check_head(hidden: Tensor, weight: Tensor, bias: Tensor | None, shard: LabelShard | None) -> None:
    """Checks types, shapes and devices; the loss checks values."""
    for name, tensor in (("hidden", hidden), ("weight", weight), ("bias", bias)):
        if tensor is None and name == "bias":
            continue
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise TypeError(f"{name} must be a floating point tensor, got {getattr(tensor, 'dtype', type(tensor))}")
        if tensor.device != hidden.device:
            raise ValueError(f"hidden is on {hidden.device} but {name} on {tensor.device}: move one of them")
    if weight.ndim != 2 or 0 in weight.shape[1:] or hidden.ndim < 1 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"hidden must be (..., features) and weight (labels, features), got {tuple(hidden.shape)} and "
            f"{tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape ({weight.shape[0]},) as weight has labels, got {tuple(bias.shape)}")
    mine = len(rows_here(weight, shard))
    if shard is not None and mine != shard.stop - shard.start:
        raise ValueError(f"weight has {mine} rows on this rank, but its shard the labels {shard.start} to {shard.stop}")


def _dtype(weight: Tensor) -> torch.dtype:
    """Returns the dtype of the matrix products: that of `nn.Linear` under autocast, which leaves float64 alone."""
    device, dtype = weight.device.type, weight.dtype
    if dtype != torch.float64 and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return torch.float32 if dtype == torch.float16 and device == "cpu" else dtype


def chunk_width(chunk: int | None, rows: int, weight: Tensor) -> int:
    """Labels of a chunk: what was asked for, or a power of 2, at least 256, whose logits and rows of weight fit."""
    if chunk is not None:
        if type(chunk) is not int or chunk < 1:
            raise ValueError(f"chunk must be a positive number of labels, got {chunk!r}")
        return chunk
    fits = (_CPU_BYTES if weight.device.type == "cpu" else _DEVICE_BYTES) // weight.element_size()
    return max(1 << int(math.log2(max(fits // max(rows, weight.shape[1]), 1))), 256)
