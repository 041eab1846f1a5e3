"""Is the difference between two losses real, given a few seeds and one test set?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy import optimize, stats
from torch import Tensor

LEVEL = 0.05
POWER = 0.8
_ROUNDING = 1e-20  # a variance over seeds below is that of rounding: the seeds gave the same
_AS_NORMAL = 1e5  # degrees of freedom beyond which Student's t is normal to five digits


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided 95 % interval; infinite where one value says nothing about the spread.

    Metrics lie in [0, 1] and their differences in [-1, 1]. An interval that reaches beyond is cut there: what it is to
    contain lies within in any case, so it does so as often as before.
    """

    mean: float
    low: float
    high: float


def interval_over_seeds(values: Sequence[float], ratio: float = 0.0) -> Interval:
    """Computes Student's t interval of the mean of a metric, within [0, 1]; undefined values, NaN, give NaN.

    ratio: where each seed split the rows anew, test rows per training row, as in `resplit_differences`.
    """
    sample = torch.tensor(values, dtype=torch.float64)
    mean = float(sample.mean())
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    half = float(stats.t.ppf(1 - LEVEL / 2, len(values) - 1)) * float(sample.std()) * math.sqrt(1 / len(values) + ratio)
    low, high = _within(mean - half, mean + half, 0.0)
    return Interval(mean, low, high)


def _within(low: float, high: float, least: float) -> tuple[float, float]:
    """Cuts an interval at `least` and at 1."""
    return (low, high) if math.isnan(low) else (max(low, least), min(high, 1.0))


@dataclass(frozen=True)
class Difference:
    """A paired difference, candidate minus reference, in the units of the metric; NaN where nothing can be said."""

    mean: float
    low: float  # of the 95 % interval, within [-1, 1]
    high: float
    p_value: float
    standard_error: float
    freedom: float  # degrees of freedom
    effect_size: float  # Cohen's d_z: mean / standard deviation over seeds, as the test takes it; NaN for one seed

    @property
    def detectable(self) -> float:
        """Returns the smallest true difference that such an experiment finds with 80 % power, two-sided at level 5 %.

        From the noncentral t distribution; the few cases in which the test errs in the direction are not counted.

        >>> round(Difference(0.1, -0.4, 0.6, 0.6, 0.2, 4, 0.3).detectable, 3)  # 3.76 standard errors
        0.752
        """
        if not self.standard_error > 0:
            return self.standard_error
        if self.freedom > _AS_NORMAL:
            return self.standard_error * float(stats.norm.ppf(1 - LEVEL / 2) + stats.norm.ppf(POWER))
        critical = float(stats.t.ppf(1 - LEVEL / 2, self.freedom))
        highest = 2 * (critical + float(stats.t.ppf(POWER, self.freedom)))  # their sum is about the answer
        shift = optimize.brentq(lambda shift: stats.nct.sf(critical, self.freedom, shift) - POWER, 0.0, highest)
        return self.standard_error * float(shift)


def paired_differences(values: Tensor, resampled: Tensor) -> list[Difference]:
    """Compares each loss with the first, combining the spread over seeds with the spread over test rows.

    values: (losses, seeds), a metric on the whole test set. resampled: (resamples, losses, seeds), the same on
    bootstrap samples of the test rows; a row is drawn for all losses and seeds at once. Samples on which the metric is
    undefined are left out; where fewer than half remain, nothing can be said and all is NaN.

    All seeds share their test rows, so the two errors add: variance = v / seeds + what the bootstrap finds in common to
    all seeds. What each seed makes of the rows by itself is in v already: counting it twice, as a bootstrap of both
    does, costs power. But the sum is at least what the bootstrap finds for the mean: seeds may agree by luck. A
    few seeds say little about v, the variance over seeds of a difference, so it is pooled over all losses: twice the
    residual mean square of losses x seeds, with its degrees of freedom. A loss that varies more than that keeps its own
    variance and its own few degrees of freedom. The interval and the p-value are Student's with the
    Welch-Satterthwaite degrees of freedom of the sum. With one seed only the rows speak: the result then holds for
    these trained models, not for the losses.

    >>> values = torch.tensor([[0.50, 0.52, 0.51], [0.55, 0.56, 0.57]])
    >>> (difference,) = paired_differences(values, values.expand(10, 2, 3))  # every sample of the rows says the same
    >>> [round(x, 3) for x in (difference.mean, difference.p_value, difference.effect_size, difference.detectable)]
    [0.05, 0.013, 5.0, 0.033]
    """
    values, resampled = values.double(), resampled.double()
    differences = values[1:] - values[0]
    defined = resampled[resampled.isfinite().flatten(1).all(1)]
    if len(defined) < len(resampled) / 2:
        return [unknown(mean) for mean in differences.mean(1).tolist()]
    of_samples = defined[:, 1:] - defined[:, :1]
    spread, freedom = _spread_over_seeds(values)
    least = of_samples.mean(2).var(0) - torch.tensor(spread, dtype=torch.float64) / values.shape[1]
    from_rows = torch.maximum(_shared_variance(of_samples), least).tolist()
    estimates = zip(differences.mean(1).tolist(), from_rows, spread, freedom, strict=True)
    return [_student(*each, 1 / values.shape[1]) for each in estimates]


def resplit_differences(values: Tensor, ratio: float) -> list[Difference]:
    """Compares each loss with the first, where every seed split the rows anew.

    values: (losses, seeds), a metric on the test rows of each split. ratio: test rows per training row.

    Splits share rows, so that their values are alike and vary less than fresh rows would: the variance of a mean is not
    v / seeds but v (1 / seeds + ratio), as if two splits had the correlation of the share of test rows (Nadeau and
    Bengio, Machine Learning 52, 2003). v, the variance over seeds of a difference, is pooled as in
    `paired_differences`; the luck of test rows is part of it.

    >>> values = torch.tensor([[0.50, 0.52, 0.51], [0.55, 0.56, 0.57]])
    >>> (difference,) = resplit_differences(values, 1 / 3)
    >>> [round(x, 3) for x in (difference.mean, difference.p_value, difference.effect_size)]
    [0.05, 0.026, 5.0]
    """
    values = values.double()
    spread, freedom = _spread_over_seeds(values)
    means, factor = (values[1:] - values[0]).mean(1).tolist(), 1 / values.shape[1] + ratio
    return [_student(mean, 0.0, v, free, factor) for mean, v, free in zip(means, spread, freedom, strict=True)]


def unknown(mean: float = math.nan) -> Difference:
    """Returns a difference of which nothing but the mean, or not even that, can be said."""
    return Difference(mean, *[math.nan] * 6)


def _shared_variance(differences: Tensor) -> Tensor:
    """Maps (resamples, n, seeds) to (n,): how far the choice of rows moves all seeds together.

    The mean covariance of two seeds; of one seed, its variance.
    """
    seeds = differences.shape[2]
    of_mean = differences.mean(2).var(0)
    if seeds == 1:
        return of_mean
    return ((seeds * of_mean - differences.var(0).mean(1)) / (seeds - 1)).clamp_min(0)


def _spread_over_seeds(values: Tensor) -> tuple[list[float], list[int]]:
    """Returns the variance over seeds of each loss's difference to the first, and its degrees of freedom."""
    losses, seeds = values.shape
    if seeds == 1:
        return [0.0] * (losses - 1), [1] * (losses - 1)
    residual = values - values.mean(1, keepdim=True) - values.mean(0, keepdim=True) + values.mean()
    pooled_freedom = (losses - 1) * (seeds - 1)
    pooled = float(2 * residual.square().sum() / pooled_freedom)
    own = (values[1:] - values[0]).var(1).tolist()
    freedom = [seeds - 1 if variance > pooled else pooled_freedom for variance in own]
    return [max(variance, pooled) for variance in own], freedom


def _student(mean: float, from_rows: float, spread: float, freedom: int, factor: float) -> Difference:
    variance = from_rows + factor * spread
    if variance == 0 and mean == 0:  # identical scores
        return Difference(0.0, 0.0, 0.0, 1.0, 0.0, math.inf, math.nan)
    if not variance > 0:
        return unknown(mean)
    spread = spread if spread > _ROUNDING else 0.0
    total_freedom = freedom * (variance / (factor * spread)) ** 2 if spread > 0 else math.inf
    error = math.sqrt(variance)
    half = float(stats.t.ppf(1 - LEVEL / 2, total_freedom)) * error
    p_value = 2 * float(stats.t.sf(abs(mean) / error, total_freedom))
    effect_size = mean / math.sqrt(spread) if spread > 0 else math.nan
    low, high = _within(mean - half, mean + half, -1.0)
    return Difference(mean, low, high, p_value, error, total_freedom, effect_size)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values by Holm's step-down correction, in the order given. NaN stays NaN and is not counted.

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
    rows: int | Tensor,
    resamples: int,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Tensor:
    """Returns (resamples, metrics): every metric on the same bootstrap samples, each a (rows,) vector of row weights.

    rows: how many there are; or (rows,) int64, the number of the set of each, from 0 on, where rows of one set, such as
    copies, are not independent: sets are drawn then, not rows. tick: called after each sample.
    """
    generator = torch.Generator().manual_seed(seed)
    sets = torch.arange(rows) if isinstance(rows, int) else rows
    number_of_sets = int(sets.max()) + 1
    result = torch.empty(resamples, len(metrics), dtype=torch.float64)
    for number in range(resamples):
        drawn = torch.randint(number_of_sets, (number_of_sets,), generator=generator)
        weights = torch.bincount(drawn, minlength=number_of_sets)[sets].double()
        result[number] = torch.tensor([metric(weights) for metric in metrics], dtype=torch.float64)
        tick()
    return result
