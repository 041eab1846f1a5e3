"""hidden @ weight.T + bias and a loss of it, a range of labels at a time: the logits never exist as a whole.

Ranges are over labels, never over rows, so that a pass reads the weight once. Where labels are independent one pass
gives value and gradients: three matrix products for each range. Elsewhere a first pass makes the state of the rows,
a few numbers each, and a second one the gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from lopsided.compute.counted import Counted
from lopsided.compute.head.evaluators import Evaluator
from lopsided.compute.head.label_ranges import LabelRanges
from lopsided.compute.head.shard import LabelShard
from lopsided.compute.native import run as native
from lopsided.compute.node import refuse_second_derivatives
from lopsided.compute.reduce import at_least_one, counted
from lopsided.compute.triton import run as triton
from lopsided.losses.formulas import Formula
from lopsided.targets import Supervision

Needs = tuple[bool, bool, bool]  # who needs a gradient: hidden, weight, bias


class Updater(Protocol):
    """What becomes of the gradient of a range of labels, if it is not kept."""

    def begin(self) -> None:
        """Is called before the first range of a pass."""

    def update(self, place: slice, grad: Tensor, bias_grad: Tensor | None) -> None:
        """Changes the range `place` of weight and bias, given their gradients (l, D) and (l,)."""


@dataclass(frozen=True)
class HeadProblem:
    """All that a pass must know beside hidden, weight and bias."""

    formula: Formula
    evaluator: Evaluator
    ranges: LabelRanges
    reduction: str
    row_weight: Tensor | None  # (B,)
    known: Tensor | None  # (B,) how many labels of each row are known, on all ranks; None if all are, or nobody asks
    dtype: torch.dtype  # of the products
    shard: LabelShard | None = None
    updater: Updater | None = None
    counted: Counted | None = None  # what is done to logits and weights before the formula

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """Returns the tensors of the user, which autograd must keep and watch."""
        return (self.row_weight, *self.ranges.supervision.tensors)

    def with_tensors(self, row_weight: Tensor | None, *tensors: Tensor | None) -> HeadProblem:
        r, supervision = self.ranges, self.ranges.supervision.with_tensors(tensors)
        return replace(self, row_weight=row_weight, ranges=LabelRanges(supervision, r.shape, r.start, r.stop, r.width))


@dataclass(frozen=True)
class Totals:
    """What a pass over all labels knows of the rows, and of the columns for losses that compare rows too."""

    state: Tensor
    columns: Tensor  # (2,): what the rows of each label cost, in sum, and the number that this is divided by


class Gradients(NamedTuple):
    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


class _Work:
    """Buffers for the logits and the slopes of a range, used again for the next one."""

    def __init__(self, problem: HeadProblem, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.problem, self.weight, self.bias = problem, weight.detach(), None if bias is None else bias.detach()
        self.hidden = hidden.detach().to(problem.dtype)
        size = len(hidden) * problem.ranges.width
        self._z, self._slopes = (torch.empty(size, dtype=problem.dtype, device=hidden.device) for _ in range(2))

    def weight_of(self, place: slice) -> Tensor:
        return self.weight[place].to(self.problem.dtype)

    def logits(self, place: slice) -> Tensor:
        """Returns (B, l) logits of a range."""
        z = self._view(self._z, place)
        if self.bias is None:
            return torch.mm(self.hidden, self.weight_of(place).T, out=z)
        return torch.addmm(self.bias[place].to(self.problem.dtype), self.hidden, self.weight_of(place).T, out=z)

    def ranges(self) -> Iterator[tuple[slice, Tensor, Supervision]]:
        """Yields each range, with its logits and supervision as the formula takes them."""
        counted, start = self.problem.counted, self.problem.ranges.start
        for place, supervision in self.problem.ranges:
            z = self.logits(place)
            if counted is not None:
                z, weight = counted.turned(z, supervision, slice(start + place.start, start + place.stop))
                supervision = supervision._replace(weight=weight)
            yield place, z, supervision

    def out(self, place: slice) -> Tensor:
        return self._view(self._slopes, place)

    def _view(self, buffer: Tensor, place: slice) -> Tensor:
        rows, labels = len(self.hidden), place.stop - place.start
        return buffer[: rows * labels].view(rows, labels)


def fold(problem: HeadProblem, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Totals:
    """Computes the state of the rows over all labels, those of other ranks included, without gradients."""
    work, evaluator = _Work(problem, hidden, weight, bias), problem.evaluator
    state, columns = None, torch.zeros(2, dtype=torch.float64)
    for _, z, supervision in work.ranges():
        state = _joined(evaluator, state, evaluator.summarize(z, supervision))
        if problem.formula.pool.transposed:
            transposed = evaluator.summarize(z.T.contiguous(), supervision.transpose(z.shape))
            columns[0] += evaluator.value(transposed).sum().cpu()
            columns[1] += _columns_that_count(problem, transposed, supervision.known(z.shape)).cpu()
    totals = _complete(problem, state, columns, work)
    return _folded_again(problem, totals, work) if problem.formula.pool.staged else totals


def _folded_again(problem: HeadProblem, totals: Totals, work: _Work) -> Totals:
    """Adds the sums that a staged pool makes once the state of all labels is known: one more product for each range."""
    sums: Tensor | None = None
    for _, z, supervision in work.ranges():
        part = problem.evaluator.summarize_again(z, supervision, totals.state)
        sums = part if sums is None else sums + part
    if sums is None:  # an empty shard
        nothing = work.hidden.new_empty(len(work.hidden), 0)
        sums = problem.evaluator.summarize_again(nothing, Supervision(nothing), totals.state)
    if problem.shard is not None:
        sums = problem.shard.sum(sums)
    return Totals(problem.evaluator.complete(totals.state, sums), totals.columns)


def _joined(evaluator: Evaluator, one: Tensor | None, other: Tensor) -> Tensor:
    return other if one is None else evaluator.merge(torch.stack([one, other]))


def _complete(problem: HeadProblem, state: Tensor | None, columns: Tensor, work: _Work) -> Totals:
    if state is None:  # an empty shard
        nothing = work.hidden.new_empty(len(work.hidden), 0)
        state = problem.evaluator.summarize(nothing, Supervision(nothing))
    if problem.shard is not None:
        state = problem.evaluator.merge(problem.shard.gather(state))
        if problem.formula.pool.transposed:
            columns = problem.shard.sum(columns.to(state.device))
    return Totals(state, columns)


def _columns_that_count(problem: HeadProblem, transposed: Tensor, known: Tensor | None) -> Tensor:
    """Returns how many labels of a range reduction="mean" and "batchmean" divide by."""
    positive = problem.evaluator.has_positive(transposed)
    if problem.reduction == "mean":
        return positive.sum()
    return torch.tensor(len(positive)) if known is None else known.any(0).sum()


def _divisor(problem: HeadProblem, totals: Totals | None) -> Tensor | int:
    """Returns what the sum over the rows is divided by. `totals` is only asked where rows with a positive count."""
    counts = counted(problem.formula, problem.reduction)
    if counts is None:
        return 1
    wide = torch.promote_types(problem.dtype, torch.float32)
    if counts == "positive rows":
        assert totals is not None
        return problem.evaluator.has_positive(totals.state).sum().clamp_min(1).to(wide)
    known, (rows, num_labels) = problem.known, problem.ranges.shape
    if known is None:
        return at_least_one(rows * num_labels if counts == "labels" else rows)
    return (known if counts == "labels" else known > 0).sum().clamp_min(1).to(wide)


def _row_scale(problem: HeadProblem, totals: Totals | None, upstream: Tensor | None) -> Tensor | float:
    """Returns what the gradient of each row is multiplied with: (B, 1), or one number."""
    scale: Tensor | float = 1 / _divisor(problem, totals)
    for factor in (problem.row_weight, upstream):
        if factor is not None:
            scale = scale * (factor.unsqueeze(-1) if factor.ndim else factor)
    return scale


def value(problem: HeadProblem, totals: Totals) -> Tensor:
    """Returns (B,) row values, or the reduced loss."""
    rows = problem.evaluator.value(totals.state)
    if problem.row_weight is not None:
        rows = rows * problem.row_weight.to(rows.dtype)
    if problem.reduction != "none":
        rows = rows.sum() / _divisor(problem, totals)
    if problem.formula.pool.transposed:
        rows = rows + totals.columns[0].to(rows.device, rows.dtype) * _column_scale(problem, totals)
    return rows.to(torch.promote_types(problem.dtype, torch.float32))


def _column_scale(problem: HeadProblem, totals: Totals) -> float:
    return 1 / max(totals.columns[1].item(), 1) if problem.reduction in ("mean", "batchmean") else 1.0


def descend(
    problem: HeadProblem,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    totals: Totals | None,
    needs: Needs,
    upstream: Tensor | None = None,
) -> tuple[Totals, Gradients]:
    """Makes the gradients. Where labels are independent, `totals` may be None: it is made on the way."""
    work, evaluator = _Work(problem, hidden, weight, bias), problem.evaluator
    sink = _Sink(work, _row_scale(problem, totals, upstream), needs)
    state = None
    for place, z, supervision in work.ranges():
        out = work.out(place)
        if problem.formula.pool.per_label:
            part, slopes = evaluator.both(z, supervision, out)
            state = _joined(evaluator, state, part)
        else:
            assert totals is not None
            slopes = evaluator.slopes(z, supervision, totals.state, out)
            if problem.formula.pool.transposed:
                slopes = slopes + _column_slopes(problem, z, supervision, totals)
        if problem.counted is not None and problem.counted.balance.scale != 1:
            slopes = slopes * problem.counted.balance.scale
        sink.take(place, slopes)
    if totals is None:
        totals = _complete(problem, state, torch.zeros(2, dtype=torch.float64), work)
    return totals, sink.finish()


def _column_slopes(problem: HeadProblem, z: Tensor, supervision: Supervision, totals: Totals) -> Tensor:
    """Returns (B, l) what the loss over the columns adds, before the scale of the rows, which is one number here."""
    columns, supervision = z.T.contiguous(), supervision.transpose(z.shape)
    state = problem.evaluator.summarize(columns, supervision)
    slopes = problem.evaluator.slopes(columns, supervision, state, torch.empty_like(columns)).T
    return slopes * (_column_scale(problem, totals) * _divisor(problem, totals))


class _Sink:
    """Takes the slopes of a range, before the scale of the rows, and makes what is asked for of them."""

    def __init__(self, work: _Work, scale: Tensor | float, needs: Needs) -> None:
        hidden, weight, bias = work.hidden, work.weight, work.bias
        self.work, self.scale, self.updater = work, scale, work.problem.updater
        self.scaled = (hidden * scale).to(hidden.dtype)
        self.scales = (torch.ones_like(self.scaled[:, :1]) * scale).to(hidden.dtype).squeeze(1)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        self.hidden_grad = torch.zeros(hidden.shape, dtype=wide, device=hidden.device) if needs[0] else None
        self.weight_grad = self.bias_grad = self.scratch = None
        if self.updater is not None:
            self.updater.begin()
            self.scratch = hidden.new_empty(work.problem.ranges.width, hidden.shape[1])
        else:
            self.weight_grad = native.new(*weight.shape, dtype=weight.dtype, device=weight.device) if needs[1] else None
            self.bias_grad = torch.empty_like(bias) if bias is not None and needs[2] else None

    def take(self, place: slice, slopes: Tensor) -> None:
        if self.hidden_grad is not None:
            weight = self.work.weight_of(place)
            if self.hidden_grad.dtype == slopes.dtype:
                self.hidden_grad.addmm_(slopes, weight)
            else:
                self.hidden_grad += slopes @ weight
        if self.updater is not None and self.scratch is not None:
            grad = torch.mm(slopes.T, self.scaled, out=self.scratch[: place.stop - place.start])
            bias_grad = None if self.work.bias is None else slopes.T.mv(self.scales)
            self._average(grad, bias_grad)
            self.updater.update(place, grad, bias_grad)
        if self.bias_grad is not None:
            self.bias_grad[place] = slopes.T.mv(self.scales)
        if self.weight_grad is not None:
            if self.weight_grad.dtype == slopes.dtype:
                torch.mm(slopes.T, self.scaled, out=self.weight_grad[place])
            else:
                self.weight_grad[place] = slopes.T @ self.scaled

    def finish(self) -> Gradients:
        if self.hidden_grad is not None:
            self.hidden_grad *= self.scale
            if self.work.problem.shard is not None:
                self.hidden_grad = self.work.problem.shard.sum(self.hidden_grad)
        self._average(self.weight_grad, self.bias_grad)
        return Gradients(self.hidden_grad, self.weight_grad, self.bias_grad)

    def _average(self, *grads: Tensor | None) -> None:
        shard = self.work.problem.shard
        for grad in grads:
            if shard is not None and grad is not None:
                shard.average(grad)


class LinearRows(torch.autograd.Function):
    """The loss as one node: gradients are made in the forward pass where nothing from above can change them."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, problem: HeadProblem, with_gradient: bool
    ) -> Tensor:
        ready = with_gradient and problem.reduction != "none" and problem.updater is None
        # gradients in float16 may need the factor from above to be seen
        ready = ready and torch.float16 not in (problem.dtype, weight.dtype)
        totals, ctx.held = None, None
        if not (ready and problem.formula.pool.per_label):
            totals = fold(problem, hidden, weight, bias)
        if ready:
            totals, ctx.held = descend(problem, hidden, weight, bias, totals, ctx.needs_input_grad[:3])
        assert totals is not None
        # the supervision is kept by autograd alone, which frees it after use and sees when it is changed
        ctx.problem = problem.with_tensors(*[None] * len(problem.tensors))
        ctx.save_for_backward(hidden, weight, bias, totals.state, totals.columns, *problem.tensors)
        return value(problem, totals)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives()
        hidden, weight, bias, state, columns, *tensors = ctx.saved_tensors
        made, ctx.held = ctx.held, None
        if made is None:
            problem, totals = ctx.problem.with_tensors(*tensors), Totals(state, columns)
            made = descend(problem, hidden, weight, bias, totals, ctx.needs_input_grad[:3], grad)[1]
        elif not (grad.is_cpu and grad.item() == 1):
            for each in made:
                if each is not None:
                    triton.rescale_(each, grad)
        hidden_grad = None if made.hidden is None else made.hidden.to(hidden.dtype)
        return hidden_grad, made.weight, made.bias, None, None


def step(
    problem: HeadProblem, hidden: Tensor, weight: Tensor, bias: Tensor | None, hidden_needs: bool
) -> tuple[Tensor, Tensor | None]:
    """Returns the loss and the gradient of hidden, and updates the weight on the way."""
    totals = None if problem.formula.pool.per_label else fold(problem, hidden, weight, bias)
    totals, made = descend(problem, hidden, weight, bias, totals, (hidden_needs, False, False))
    return value(problem, totals), None if made.hidden is None else made.hidden.to(hidden.dtype)
