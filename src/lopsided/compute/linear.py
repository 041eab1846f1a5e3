"""hidden @ weight.T + bias and a loss of it, a range of labels at a time: the logits never exist as a whole.

Ranges are over labels, never over rows, so that a pass reads the weight once. Where labels are independent one pass
gives value and gradients: three matrix products for each range. Elsewhere a first pass makes the state of the rows,
a few numbers each, and a second one the gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lopsided.compute import native
from lopsided.compute.parts import Evaluator, Parts
from lopsided.losses.loss import Loss
from lopsided.sharding import LabelShard
from lopsided.targets import Labels


class Updater(Protocol):
    """What becomes of the gradient of a range of labels, if it is not kept."""

    def begin(self) -> None:
        """Before the first range of a pass."""

    def update(self, weight: Tensor, bias: Tensor | None, place: slice, grad: Tensor, bias_grad: Tensor | None) -> None:
        """Change the range `place` of weight and bias, given their gradients (l, D) and (l,)."""


@dataclass(frozen=True)
class Problem:
    """All that a pass must know beside hidden, weight and bias."""

    loss: Loss
    evaluator: Evaluator
    parts: Parts
    reduction: str
    row_weight: Tensor | None  # (B,)
    dtype: torch.dtype  # of the products
    shard: LabelShard | None = None
    updater: Updater | None = None


@dataclass(frozen=True)
class Found:
    """What the passes over the labels so far know of the rows, and of the columns for losses that compare rows too."""

    state: Tensor
    columns: Tensor  # (2,): sum over the labels of what their rows cost, and the number that this is divided by


@dataclass(frozen=True)
class Gradients:
    hidden: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None


class _Work:
    """Buffers for the logits and the gradient of a range, used again for the next one."""

    def __init__(self, problem: Problem, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.problem, self.weight, self.bias = problem, weight.detach(), None if bias is None else bias.detach()
        self.hidden = hidden.detach().to(problem.dtype)
        size = len(hidden) * problem.parts.width
        self._z, self._g = (torch.empty(size, dtype=problem.dtype, device=hidden.device) for _ in range(2))

    def rows_of(self, place: slice) -> Tensor:
        return self.weight[place].to(self.problem.dtype)

    def logits(self, place: slice) -> Tensor:
        """(B, l) logits of a range."""
        z = self._view(self._z, place)
        if self.bias is None:
            return torch.mm(self.hidden, self.rows_of(place).T, out=z)
        return torch.addmm(self.bias[place].to(self.problem.dtype), self.hidden, self.rows_of(place).T, out=z)

    def out(self, place: slice) -> Tensor:
        return self._view(self._g, place)

    def _view(self, buffer: Tensor, place: slice) -> Tensor:
        rows, labels = len(self.hidden), place.stop - place.start
        return buffer[: rows * labels].view(rows, labels)


def fold(problem: Problem, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Found:
    """A pass without gradients: the state of the rows over all labels, those of other ranks included."""
    work = _Work(problem, hidden, weight, bias)
    state, columns = None, torch.zeros(2, dtype=torch.float64)
    for place, labels in problem.parts:
        z = work.logits(place)
        state = _joined(problem.evaluator, state, problem.evaluator.first(z, labels, None)[0])
        if problem.loss.pool.transposed:
            columns += _columns(problem, z, labels)[0].cpu()
    return _complete(problem, state, columns, work)


def _joined(evaluator: Evaluator, one: Tensor | None, other: Tensor) -> Tensor:
    return other if one is None else evaluator.merge(torch.stack([one, other]))


def _complete(problem: Problem, state: Tensor | None, columns: Tensor, work: _Work) -> Found:
    if state is None:  # an empty shard
        nothing = work.hidden.new_empty(len(work.hidden), 0)
        state = problem.evaluator.first(nothing, Labels(nothing), None)[0]
    if problem.shard is not None:
        state = problem.evaluator.merge(problem.shard.gather(state))
        if problem.loss.pool.transposed:
            columns = problem.shard.sum(columns.to(state.device))
    return Found(state, columns)


def _columns(problem: Problem, z: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
    """(2,) what the rows of each label cost in sum and how many labels count, and the (B, l) gradient of that sum."""
    evaluator, shape = problem.evaluator, z.shape
    turned, said = z.T.contiguous(), labels.transpose(shape)
    state = evaluator.first(turned, said, None)[0]
    if problem.reduction == "mean":
        number = evaluator.has_positive(state).sum()
    else:
        known = labels.known(shape)
        number = torch.tensor(shape[1]) if known is None else known.any(0).sum()
    gradient = evaluator.second(turned, said, state, torch.empty_like(turned))
    return torch.stack([evaluator.value(state).sum().double(), number.double().to(z.device)]), gradient.T


def _divisor(problem: Problem, found: Found | None) -> Tensor | int:
    """What the sum over the rows is divided by."""
    wide = torch.promote_types(problem.dtype, torch.float32)
    counts = {"mean": problem.loss.pool.counts, "batchmean": "rows"}.get(problem.reduction)
    if counts is None:
        return 1
    if counts == "positive rows":
        assert found is not None
        return problem.evaluator.has_positive(found.state).sum().clamp_min(1).to(wide)
    known, (rows, num_labels) = problem.parts.known(), problem.parts.shape
    if known is None:
        return max(rows * num_labels if counts == "labels" else rows, 1)
    if problem.shard is not None:
        known = problem.shard.sum(known)
    return (known if counts == "labels" else known > 0).sum().clamp_min(1).to(wide)


def row_scale(problem: Problem, found: Found | None, upstream: Tensor | None) -> Tensor | float:
    """What the gradient of each row is multiplied with: (B, 1), or one number."""
    scale: Tensor | float = 1 / _divisor(problem, found)
    for factor in (problem.row_weight, upstream):
        if factor is not None:
            scale = scale * (factor.unsqueeze(-1) if factor.ndim else factor)
    return scale


def value(problem: Problem, found: Found) -> Tensor:
    """(B,) row values, or the reduced loss."""
    rows = problem.evaluator.value(found.state)
    if problem.row_weight is not None:
        rows = rows * problem.row_weight.to(rows.dtype)
    if problem.reduction == "none":
        return rows
    total = rows.sum() / _divisor(problem, found)
    if problem.loss.pool.transposed:
        total = total + found.columns[0].to(total.device, total.dtype) * _column_scale(problem, found)
    return total


def _column_scale(problem: Problem, found: Found) -> float:
    return 1 / max(found.columns[1].item(), 1) if problem.reduction in ("mean", "batchmean") else 1.0


def descend(
    problem: Problem,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    found: Found | None,
    needs: tuple[bool, bool, bool],
    upstream: Tensor | None = None,
) -> tuple[Found, Gradients]:
    """The pass that makes gradients. Where labels are independent, `found` may be None: it is found on the way."""
    work, evaluator = _Work(problem, hidden, weight, bias), problem.evaluator
    state, scale = None, row_scale(problem, found, upstream)
    sink = _Sink(work, scale, needs)
    transposed = found is not None and problem.loss.pool.transposed  # then the rows have no weights
    columns = _column_scale(problem, found) * _divisor(problem, found) if transposed and found is not None else 0.0
    for place, labels in problem.parts:
        z, out = work.logits(place), work.out(place)
        if problem.loss.pool.per_label:
            part, slopes = evaluator.first(z, labels, out)
            assert slopes is not None
            state = _joined(evaluator, state, part)
        else:
            assert found is not None
            slopes = evaluator.second(z, labels, found.state, out)
        if problem.loss.pool.transposed:
            slopes = slopes + columns * _columns(problem, z, labels)[1]
        sink.take(place, slopes)
    if found is None:
        found = _complete(problem, state, torch.zeros(2, dtype=torch.float64), work)
    return found, sink.finish()


class _Sink:
    """Takes the slopes of a range, before the scale of the rows, and makes what is asked for of them."""

    def __init__(self, work: _Work, scale: Tensor | float, needs: tuple[bool, bool, bool]) -> None:
        hidden, weight, bias = work.hidden, work.weight, work.bias
        self.work, self.scale, self.updater = work, scale, work.problem.updater
        self.scaled = (hidden * scale).to(hidden.dtype)
        self.scales = (torch.ones_like(self.scaled[:, :1]) * scale).to(hidden.dtype).squeeze(1)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        self.hidden_grad = torch.zeros(hidden.shape, dtype=wide, device=hidden.device) if needs[0] else None
        self.weight_grad = self.bias_grad = self.scratch = None
        if self.updater is not None:
            self.updater.begin()
            self.scratch = hidden.new_empty(work.problem.parts.width, hidden.shape[1])
        else:
            self.weight_grad = native.new(*weight.shape, dtype=weight.dtype, device=weight.device) if needs[1] else None
            self.bias_grad = torch.empty_like(bias) if bias is not None and needs[2] else None

    def take(self, place: slice, slopes: Tensor) -> None:
        if self.hidden_grad is not None:
            rows = self.work.rows_of(place)
            if self.hidden_grad.dtype == slopes.dtype:
                self.hidden_grad.addmm_(slopes, rows)
            else:
                self.hidden_grad += slopes @ rows
        if self.updater is not None and self.scratch is not None:
            grad = torch.mm(slopes.T, self.scaled, out=self.scratch[: place.stop - place.start])
            bias_grad = None if self.work.bias is None else slopes.T.mv(self.scales)
            self._average(grad, bias_grad)
            self.updater.update(self.work.weight, self.work.bias, place, grad, bias_grad)
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
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, problem: Problem, with_gradient: bool
    ) -> Tensor:
        ctx.problem, ctx.held = problem, None
        ready = with_gradient and problem.reduction != "none" and problem.updater is None
        # gradients in float16 may need the factor from above to be seen
        ready = ready and torch.float16 not in (problem.dtype, weight.dtype)
        found = None
        if not (ready and problem.loss.pool.per_label):
            found = fold(problem, hidden, weight, bias)
        if ready:
            found, ctx.held = descend(problem, hidden, weight, bias, found, ctx.needs_input_grad[:3])
        assert found is not None
        ctx.save_for_backward(hidden, weight, bias, found.state, found.columns)
        result = value(problem, found)
        return result.to(torch.promote_types(problem.dtype, torch.float32))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("only the eager executor has second derivatives: pass backend='eager'")
        hidden, weight, bias, state, columns = ctx.saved_tensors
        made, ctx.held = ctx.held, None
        if made is None:
            found = Found(state, columns)
            made = descend(ctx.problem, hidden, weight, bias, found, ctx.needs_input_grad[:3], grad)[1]
        elif not (grad.is_cpu and grad.item() == 1):
            for each in (made.hidden, made.weight, made.bias):
                if each is not None:
                    each.mul_(grad)
        dh = None if made.hidden is None else made.hidden.to(hidden.dtype)
        return dh, made.weight, made.bias, None, None


def step(
    problem: Problem, hidden: Tensor, weight: Tensor, bias: Tensor | None, hidden_needs: bool
) -> tuple[Tensor, Tensor | None]:
    """Value, and gradient of hidden, with the weight updated on the way."""
    found = None if problem.loss.pool.per_label else fold(problem, hidden, weight, bias)
    found, made = descend(problem, hidden, weight, bias, found, (hidden_needs, False, False))
    result = value(problem, found).to(torch.promote_types(problem.dtype, torch.float32))
    return result, None if made.hidden is None else made.hidden.to(hidden.dtype)
