"""Several losses on several data sets: mean ranks and what they show. Demsar, JMLR 7 (2006), section 3.2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lopsided.metrics.significance import LEVEL

_SHUFFLES = 9999


@dataclass(frozen=True)
class Ranks:
    """Losses in the order of their mean ranks, best first, and the tests of whether the ranks differ at all."""

    losses: tuple[str, ...]
    mean_ranks: tuple[float, ...]  # 1 is best; ties share the mean of their ranks
    data_sets: int
    friedman: float  # chi-squared, corrected for ties
    friedman_p: float
    iman_davenport: float  # F; infinite where all data sets agree
    iman_davenport_p: float
    permutation_p: float  # of both statistics, valid for few data sets too, where the two above are far too small
    critical_difference: float  # of two mean ranks, by Nemenyi's test at level 5 %
    groups: tuple[tuple[str, ...], ...]  # two or more losses not shown to differ, each group as large as it can be


def rank_losses(values: Sequence[Sequence[float]], losses: Sequence[str], *, higher_is_better: bool = True) -> Ranks:
    """Returns mean ranks of losses over data sets, with the tests of Friedman, of Iman and Davenport, and of Nemenyi.

    values: (data sets, losses), one number of a metric for each; at least 2 x 2. Raises ValueError if one is missing
    (NaN) or infinite, or the shape is wrong. The tests look at ranks alone: they do not know by how much, or how
    surely, a loss leads on one data set. Differs from the paper: Friedman's statistic is corrected for ties, as in
    scipy, and a permutation test stands beside both, which hold for many data sets only.

    >>> values = [[0.5, 0.6, 0.7], [0.1, 0.4, 0.3], [0.2, 0.5, 0.9], [0.6, 0.7, 0.8]]
    >>> ranks = rank_losses(values, ["bce", "asl", "zlpr"])
    >>> ranks.losses, ranks.mean_ranks
    (('zlpr', 'asl', 'bce'), (1.25, 1.75, 3.0))
    >>> round(ranks.friedman, 3), round(ranks.iman_davenport_p, 4)
    (6.5, 0.0066)
    >>> ranks.groups  # ranks that are 1.66 apart differ
    (('zlpr', 'asl'), ('asl', 'bce'))
    """
    table = _checked(values, losses)
    data_sets, count = table.shape
    ranks = stats.rankdata(-table if higher_is_better else table, axis=1)
    means = ranks.mean(0)
    friedman = _friedman(ranks)
    rest = data_sets * (count - 1) - friedman
    iman_davenport = (data_sets - 1) * friedman / rest if rest > 1e-9 else math.inf  # rounding may leave a little
    half_width = float(stats.studentized_range.ppf(1 - LEVEL, count, math.inf)) / math.sqrt(2)
    critical = half_width * math.sqrt(count * (count + 1) / (6 * data_sets))
    order = np.argsort(means, kind="stable").tolist()
    names, sorted_means = tuple(losses[index] for index in order), tuple(float(means[index]) for index in order)
    return Ranks(
        names,
        sorted_means,
        data_sets,
        friedman,
        float(stats.chi2.sf(friedman, count - 1)),
        iman_davenport,
        float(stats.f.sf(iman_davenport, count - 1, (count - 1) * (data_sets - 1))),
        _permutation_p(ranks),
        critical,
        _groups(names, sorted_means, critical),
    )


def _friedman(ranks: np.ndarray) -> float:
    """Computes, with ties, the share of the spread of ranks that the losses explain (Conover 1999, section 5.8)."""
    data_sets, count = ranks.shape
    middle = (count + 1) / 2
    spread = float(np.square(ranks - middle).sum())
    between = data_sets**2 * float(np.square(ranks.mean(0) - middle).sum())
    return (count - 1) * between / spread if spread else 0.0


def _permutation_p(ranks: np.ndarray) -> float:
    """Returns how often mean ranks are as far apart where the ranks on each data set are shuffled."""
    shuffled = np.random.default_rng(0).permuted(np.broadcast_to(ranks, (_SHUFFLES, *ranks.shape)), axis=2)
    shuffled_spread, spread = (np.square(each.mean(-2) - ranks.mean()).sum(-1) for each in (shuffled, ranks))
    return float((1 + (shuffled_spread >= spread - 1e-9).sum()) / (1 + _SHUFFLES))


def _checked(values: Sequence[Sequence[float]], losses: Sequence[str]) -> np.ndarray:
    lengths = sorted({len(row) for row in values})
    if len(values) < 2 or len(losses) < 2 or lengths != [len(losses)]:
        raise ValueError(
            f"ranks need at least 2 data sets and 2 losses, a value for each; got {len(values)} data sets with "
            f"{' or '.join(map(str, lengths)) or 'no'} values for {len(losses)} losses"
        )
    table = np.asarray(values, dtype=np.float64)
    for data_set, column in np.argwhere(~np.isfinite(table)).tolist():
        raise ValueError(
            f"{losses[column]} has the value {table[data_set, column]} on data set {data_set + 1} of {len(table)}: "
            "leave out that loss or that data set"
        )
    return table


def _groups(losses: Sequence[str], means: Sequence[float], critical: float) -> tuple[tuple[str, ...], ...]:
    """Groups losses, in the order of their ranks: from each to the last that is nearer than `critical`."""
    groups, reached = [], 0
    for first, mean in enumerate(means):
        end = sum(other - mean < critical for other in means)
        if end > max(first + 1, reached):
            groups.append(tuple(losses[first:end]))
            reached = end
    return tuple(groups)
