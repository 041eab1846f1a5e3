"""The streamed executor: plain torch on any device, a block of rows at a time, the gradient made along the way."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.compute.executor import RowResult, Source
from lopsided.losses.formulas import Formula
from lopsided.losses.pools import (
    DecoupledSoftmax,
    LogSumExp,
    MeanPairs,
    Pair,
    Pairs,
    SideMeans,
    Sum,
    ThresholdSoftmax,
)
from lopsided.targets import Supervision

NAME = "streamed"
GRADIENT: Source = "forward"
CHECKS_VALUES = False
_CACHED, _LAUNCHED = 1 << 17, 1 << 24  # logits of a block: what the cache of a core holds, what keeps a GPU busy
# pools whose sides are apart, and whose coefficients are 0 where the weight is
_APART = LogSumExp, Pairs, MeanPairs, ThresholdSoftmax, DecoupledSoftmax, SideMeans
_FEW = 8  # where less than one label in so many is positive, their curve is evaluated for them alone


def refusal(formula: Formula, logits: Tensor) -> None:
    """Works as `Executor.refusal`: it serves everything."""


def rows(
    formula: Formula,
    logits: Tensor,
    supervision: Supervision,
    *,
    scale: float | Tensor = 1.0,
    with_gradient: bool = True,
    out: Tensor | None = None,
) -> RowResult:
    """Works as `Executor.rows`."""
    shape = logits.shape
    z = logits.detach().reshape(-1, shape[-1])
    dtype = torch.promote_types(z.dtype, torch.float32)
    values, gradient = z.new_empty(len(z), dtype=dtype), out
    if with_gradient and out is None:
        gradient = torch.empty_like(z, memory_format=torch.contiguous_format)
    gradient = None if gradient is None else gradient.view(z.shape)
    factors = scale.reshape(-1, 1).expand(len(z), 1) if isinstance(scale, Tensor) else None
    together = _CACHED * torch.get_num_threads() if z.device.type == "cpu" else _LAUNCHED
    step = max(together // shape[-1], 1)
    for start in range(0, len(z), step):
        block = slice(start, start + step)
        part = supervision.of_rows(block, shape)
        values[block], slopes = block_rows(formula, z[block].to(dtype), part, with_gradient)
        if gradient is not None and slopes is not None:
            torch.mul(slopes, scale if factors is None else factors[block], out=gradient[block])
    if factors is None and scale != 1:
        values *= scale
    return RowResult(values.view(shape[:-1]), None if gradient is None else gradient.view(shape))


def block_rows(
    formula: Formula, z: Tensor, supervision: Supervision, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Returns the loss of each row of (rows, L) logits and its gradient; each curve is evaluated once."""
    known = supervision.known(z.shape)
    z = z if known is None else torch.where(known, z, 0.0)
    weights = supervision.weights(z.shape, z.dtype)
    finite = z.device.type == "cpu" and bool(z.sum().isfinite())
    if finite and isinstance(formula.pool, Sum):
        values, slopes = _finite_sum(z, weights, formula)
        if values.isfinite().all():  # curves of one's own may not be
            return values, slopes
    if finite and isinstance(formula.pool, _APART) and not formula.pool.transposed:
        result = _few_positives(z, weights, formula, with_gradient)
        if result is not None:
            return result
    (up, rise), (down, fall) = formula.positive(z), formula.negative(z)
    state = formula.pool.fold_rows((up, down), weights)
    if not with_gradient:
        return formula.pool.value(state), None
    k_up, k_down = formula.pool.coefficients((up, down), weights, state)
    rise, fall = k_up * rise, k_down * fall
    if finite:
        return formula.pool.value(state), rise.mul_(weights[0] > 0) + fall.mul_(weights[1] > 0)
    return formula.pool.value(state), torch.where(weights[0] > 0, rise, 0.0) + torch.where(weights[1] > 0, fall, 0.0)


def _finite_sum(z: Tensor, weights: Pair, formula: Formula) -> tuple[Tensor, Tensor]:
    """Evaluates curves that are finite, as ours are: a factor of 0 removes a label, ten times faster than to select."""
    down, fall = formula.negative(z)
    values, slopes = (weights[1] * down).sum(-1), (weights[1] * fall).contiguous()
    picked = weights[0].flatten().nonzero().squeeze(-1)
    if len(picked) * _FEW > z.numel():
        up, rise = formula.positive(z)
        return values + (weights[0] * up).sum(-1), slopes.add_(weights[0] * rise)
    up, rise = formula.positive(z.flatten()[picked])
    weight = weights[0].flatten()[picked]
    values.index_add_(0, picked // z.shape[-1], weight * up)
    slopes.view(-1).index_add_(0, picked, weight * rise)
    return values, slopes


def _few_positives(
    z: Tensor, weights: Pair, formula: Formula, with_gradient: bool
) -> tuple[Tensor, Tensor | None] | None:
    """Sides that are apart: where no row has more than a few positives, these are gathered, padded with weight 0."""
    positive = weights[0] > 0
    counts = positive.sum(-1)
    most = max(1, int(counts.max()))
    if most * _FEW > z.shape[-1]:
        return None
    row, label = positive.nonzero(as_tuple=True)
    place = torch.arange(len(row), device=z.device) - (counts.cumsum(0) - counts)[row]
    few, weight = z.new_zeros(len(z), most), z.new_zeros(len(z), most)
    few[row, place], weight[row, place] = z[row, label], weights[0][row, label]
    (up, rise), (down, fall) = formula.positive(few), formula.negative(z)
    state = formula.pool.fold_rows((up, down), (weight, weights[1]))
    if not with_gradient:
        return formula.pool.value(state), None
    k_up, k_down = formula.pool.coefficients((up, down), (weight, weights[1]), state)
    slopes = k_down * fall
    slopes[row, label] += (k_up * rise)[row, place]
    return formula.pool.value(state), slopes
