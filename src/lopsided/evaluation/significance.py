"""Is the difference between two losses real, given a few seeds and one test set?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

LEVEL = 0.05


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided 95 % interval; infinite where one value says nothing about the spread."""

    mean: float
    low: float
    high: float


def interval_over_seeds(values: Sequence[float]) -> Interval:
    """Student's t interval of a mean; NaN values (an undefined metric) give NaN."""
    sample = torch.tensor(values, dtype=torch.float64)
    mean = float(sample.mean())
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    half = float(stats.t.ppf(1 - LEVEL / 2, len(values) - 1)) * float(sample.std()) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Difference:
    """A paired difference: candidate minus baseline."""

    mean: float
    low: float
    high: float
    p_value: float


def paired_differences(values: Tensor, resampled: Tensor) -> list[Difference]:
    """Each loss against the first, combining the spread over seeds with the spread over test rows.

    values: (losses, seeds), a metric on the whole test set. resampled: (resamples, losses), the same averaged over the
    seeds, on bootstrap samples of the test rows; a row is drawn for all losses and seeds at once. Samples on which
    the metric is undefined are left out; where fewer than half remain, nothing can be said and all is NaN.

    All seeds share their test rows, so the two errors add: variance = v / seeds + variance over resamples. A few
    seeds say little about v, the variance over seeds of a difference, so it is pooled over all losses: twice the
    residual mean square of losses x seeds, with its degrees of freedom. A loss that varies more than that keeps its
    own variance and its own few degrees of freedom. The interval and the p-value are Student's with the
    Welch-Satterthwaite degrees of freedom of the sum. With one seed only the rows speak: the result then holds for
    these trained models, not for the losses.
    """
    values, resampled = values.double(), resampled.double()
    losses, seeds = values.shape
    differences = values[1:] - values[0]
    defined = resampled[resampled.isfinite().all(1)]
    if len(defined) < len(resampled) / 2:
        return [Difference(mean, math.nan, math.nan, math.nan) for mean in differences.mean(1).tolist()]
    from_rows = (defined[:, 1:] - defined[:, :1]).var(0).tolist()
    from_seeds, freedom = [0.0] * (losses - 1), [1] * (losses - 1)
    if seeds > 1:
        residual = values - values.mean(1, keepdim=True) - values.mean(0, keepdim=True) + values.mean()
        pooled_freedom = (losses - 1) * (seeds - 1)
        pooled = float(2 * residual.square().sum() / pooled_freedom)
        own = differences.var(1).tolist()
        from_seeds = [max(variance, pooled) / seeds for variance in own]
        freedom = [seeds - 1 if variance > pooled else pooled_freedom for variance in own]
    return [_student(*each) for each in zip(differences.mean(1).tolist(), from_rows, from_seeds, freedom, strict=True)]


def _student(mean: float, from_rows: float, from_seeds: float, freedom: int) -> Difference:
    variance = from_rows + from_seeds
    if variance == 0 and mean == 0:  # identical scores
        return Difference(0.0, 0.0, 0.0, 1.0)
    if not variance > 0:
        return Difference(mean, math.nan, math.nan, math.nan)
    total_freedom = freedom * (variance / from_seeds) ** 2 if from_seeds > 0 else math.inf
    error = math.sqrt(variance)
    half = float(stats.t.ppf(1 - LEVEL / 2, total_freedom)) * error
    return Difference(mean, mean - half, mean + half, 2 * float(stats.t.sf(abs(mean) / error, total_freedom)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values in the order given. NaN stays NaN and is not counted.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[index] = largest
    return adjusted


def resample_rows(
    metrics: Sequence[Callable[[Tensor], float]],
    rows: int,
    resamples: int,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Tensor:
    """(resamples, metrics): every metric on the same bootstrap samples, each a (rows,) vector of row weights.

    `tick` is called after each sample.
    """
    generator = torch.Generator().manual_seed(seed)
    result = torch.empty(resamples, len(metrics), dtype=torch.float64)
    for number in range(resamples):
        drawn = torch.randint(rows, (rows,), generator=generator)
        weights = torch.bincount(drawn, minlength=rows).double()
        result[number] = torch.tensor([metric(weights) for metric in metrics], dtype=torch.float64)
        tick()
    return result
