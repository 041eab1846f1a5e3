"""Finds the best threshold of every label, by an exact sweep: one sort of all scores.

An objective never rises when a false label more is predicted, so a best cut lies just below the score of a true label:
only those cuts are kept, with what they predict and what of it is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lopsided.losses.checks import check_number
from lopsided.metrics.counts import Counts, quotient
from lopsided.metrics.lists import ordered
from lopsided.metrics.scores import Judged


class ThresholdObjective(Protocol):
    """Says what decisions are worth: more is better, and predicting a false label more is never better.

    hits: labels predicted rightly; predicted; positives: labels that are true; rows: those in which the label is known.
    Counts, float64, in shapes that broadcast.
    """

    def __call__(self, hits: Tensor, predicted: Tensor, positives: Tensor, rows: Tensor | int) -> Tensor: ...


@dataclass(frozen=True)
class FBeta:
    """Computes F-beta, see `lopsided.metrics.counts`: recall weighs beta times as much as precision; 0 for 0 / 0.

    >>> FBeta()(torch.tensor(3.0), torch.tensor(4.0), torch.tensor(6.0), rows=10)
    tensor(0.6000)
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        check_number("beta", self.beta, low=0)

    def __call__(self, hits: Tensor, predicted: Tensor, positives: Tensor, rows: Tensor | int) -> Tensor:
        value: Tensor = Counts(hits, predicted, positives).f_beta(self.beta)
        return value


@dataclass(frozen=True)
class Cost:
    """Computes minus the mean cost of a decision; a false positive must not cost less than a true negative."""

    false_positive: float = 1.0
    false_negative: float = 1.0
    true_positive: float = 0.0
    true_negative: float = 0.0

    def __post_init__(self) -> None:
        for name, cost in vars(self).items():
            check_number(name, cost)
        if self.false_positive < self.true_negative:
            raise ValueError("a false positive must not cost less than a true negative: everything would be predicted")

    def __call__(self, hits: Tensor, predicted: Tensor, positives: Tensor, rows: Tensor | int) -> Tensor:
        wrong, missed = predicted - hits, positives - hits
        cost = self.true_positive * hits + self.false_positive * wrong + self.false_negative * missed
        mean: Tensor = quotient(cost + self.true_negative * (rows - positives - wrong), rows)
        return -mean


@dataclass(frozen=True)
class RecallAtPrecision:
    """Computes recall where the precision reaches a floor, else -1; predicting nothing has precision 1."""

    floor: float

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1:
            raise ValueError(f"the floor of a precision must lie between 0 and 1, got {self.floor!r}")

    def __call__(self, hits: Tensor, predicted: Tensor, positives: Tensor, rows: Tensor | int) -> Tensor:
        counts = Counts(hits, predicted, positives)
        enough = (predicted == 0) | (counts.precision() >= self.floor)  # a test against floor * predicted would round
        return torch.where(enough, counts.recall(), -1.0)


@dataclass(frozen=True)
class Best:
    """Holds the thresholds that an objective is highest at, for `score > threshold`.

    labels: (L,) float32, of each label; NaN for a label without a positive among the scores. shared: the one threshold
    with the highest sum of the objective over the labels, such as the best macro-F1.
    """

    labels: Tensor
    shared: float


def best_thresholds(judged: Judged, objective: ThresholdObjective, cuts: int = 4096) -> Best:
    """Finds the best thresholds by an exact sweep, n log n of the scores, some labels at a time.

    A threshold lies midway between a true label's score and the next lower one, or where float32 has no number between
    them, on the lower: ties are never cut. Of equally good ones the highest. Where nothing should be predicted it is
    the highest score. The shared one is looked for below `cuts` true scores, evenly spaced: all, if they are no more;
    with more than 32,768 labels fewer, 2^27 / L.

    >>> judged = Judged.of(torch.tensor([[4.0], [3.0], [1.0], [0.0]]), torch.tensor([[1], [0], [1], [0]]))
    >>> best_thresholds(judged, FBeta()).labels, best_thresholds(judged, RecallAtPrecision(0.9)).labels
    (tensor([0.5000]), tensor([3.5000]))
    """
    scores = judged.scores.values if judged.known is None else judged.scores.values[judged.known]
    true = np.unique(_order(judged.scores.values[judged.hits].numpy()))
    cuts = min(len(true), cuts, max(1, 2**27 // judged.num_labels))
    grid = true[np.linspace(0, len(true) - 1, cuts).astype(np.int64)]
    labels, worth = [], torch.zeros(cuts, dtype=torch.float64)
    for part in judged.parts():
        ranked, positives, rows = _Sorted.of(part), part.positives.double(), part.rows.double()
        labels.append(_best(ranked, positives, rows, objective))
        worth += _worth(ranked, positives, rows, objective, grid)
    nothing = torch.zeros(judged.num_labels, dtype=torch.float64)
    shared = float(scores.max())
    of_nothing = objective(nothing, nothing, judged.positives.double(), judged.rows.double()).double().sum()
    if cuts and worth.max() > of_nothing:
        above = _score(grid[cuts - 1 - int(worth.flip(0).argmax())])
        lower = scores[scores < float(above)]
        beneath = lower.max().numpy() if len(lower) else _next_lower(above)
        shared = float(_between(above, beneath))
    return Best(torch.cat(labels), shared)


@dataclass(frozen=True)
class _Sorted:
    """Holds scores as integers, label by label and rising: label << 32, plus the order of the score."""

    keys: Any
    true: Any  # those of true labels
    ends: Any  # (L + 1,) where the labels begin among them, and the last one ends
    true_ends: Any

    @classmethod
    def of(cls, judged: Judged) -> _Sorted:
        scores, known = judged.scores, judged.known
        label = np.arange(scores.num_labels)[:, None] if scores.columns is None else scores.columns.numpy().T
        keys = (label << 32) + _order(scores.values.T.numpy())
        true = np.sort(keys[judged.hits.T.numpy()])
        keys = np.sort(keys if known is None else keys[known.T.numpy()], axis=None)
        bounds = np.arange(scores.num_labels + 1) << 32
        return cls(keys, true, np.searchsorted(keys, bounds), np.searchsorted(true, bounds))


def _best(ranked: _Sorted, positives: Tensor, rows: Tensor, objective: ThresholdObjective) -> Tensor:
    """Returns (L,) float32, the best threshold of each label."""
    keys, ends = ranked.keys, ranked.ends
    place = np.searchsorted(ranked.true, ranked.true)
    first = place == np.arange(len(place))  # the first of equal scores
    place, cut = place[first], ranked.true[first]
    number, below = cut >> 32, np.searchsorted(keys, cut)
    label = torch.from_numpy(number)
    hits, predicted = ranked.true_ends[number + 1] - place, ends[number + 1] - below
    values = objective(*_counts(hits, predicted), positives[label], rows[label]).double()
    nothing = torch.zeros_like(positives)
    best = objective(nothing, nothing, positives, rows).double().scatter_reduce(0, label, values, "amax")
    chosen = (values == best[label]).numpy()
    number, below, above = number[chosen], below[chosen], _score(cut[chosen])
    beneath = np.where(below > ends[number], _score(keys[below - 1]), _next_lower(above))
    highest = np.where(ranked.true_ends[1:] > ranked.true_ends[:-1], _score(keys[ends[1:] - 1]), np.float32(np.nan))
    highest[number] = _between(above, beneath)  # of equal numbers numpy keeps the last, which is the highest cut
    return torch.from_numpy(highest)


def _worth(ranked: _Sorted, positives: Tensor, rows: Tensor, objective: ThresholdObjective, grid: Any) -> Tensor:
    """Sums over the labels what a cut just below each value of the grid is worth: (len(grid),) float64."""
    worth = torch.zeros(len(grid), dtype=torch.float64)
    for label in torch.arange(len(positives)).split(max(1, 2**20 // max(1, len(grid)))):
        number = label[:, None].numpy()
        cut = (number << 32) + grid
        hits = ranked.true_ends[number + 1] - np.searchsorted(ranked.true, cut)
        predicted = ranked.ends[number + 1] - np.searchsorted(ranked.keys, cut)
        worth += objective(*_counts(hits, predicted), positives[label, None], rows[label, None]).double().sum(0)
    return worth


def _counts(hits: Any, predicted: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(hits).double(), torch.from_numpy(predicted).double()


def _next_lower(score: Any) -> Any:
    """Returns the next lower float32; -inf below the lowest, where numpy would warn."""
    with np.errstate(over="ignore"):
        return np.nextafter(score, np.float32(-np.inf))


def _between(above: Any, beneath: Any) -> Any:
    """Returns the middle, or where float32 has no number between them, the lower."""
    middle = ((above.astype(np.float64) + beneath) / 2).astype(np.float32)
    return np.where(middle < above, middle, beneath)


def _order(scores: Any) -> Any:
    """Maps float32 to integers in [0, 2^32) in the same order; equal ones (0 and -0 too) become the same."""
    return ordered(np.ascontiguousarray(scores)).astype(np.int64) + 2**31


def _score(key: Any) -> Any:
    bits = ((key & 0xFFFFFFFF) - 2**31).astype(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)
