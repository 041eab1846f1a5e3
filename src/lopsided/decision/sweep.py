"""The best threshold of every label, by an exact sweep: one sort of all scores.

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
from lopsided.metrics.lists import ordered
from lopsided.metrics.scores import ScoredLabels


class Objective(Protocol):
    """What decisions are worth: more is better, and predicting a false label more is never better.

    hits: labels predicted rightly; predicted; positives: labels that are true; rows: how many were decided. Counts,
    float64, in shapes that broadcast.
    """

    def __call__(self, hits: Tensor, predicted: Tensor, positives: Tensor, rows: int) -> Tensor: ...


@dataclass(frozen=True)
class FBeta:
    """(1 + beta^2) hits / (predicted + beta^2 positives): recall weighs beta times as much as precision; 0 for 0 / 0.

    >>> FBeta()(torch.tensor(3.0), torch.tensor(4.0), torch.tensor(6.0), rows=10)
    tensor(0.6000)
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        check_number("beta", self.beta, low=0)

    def __call__(self, hits: Tensor, predicted: Tensor, positives: Tensor, rows: int) -> Tensor:
        square = self.beta**2
        return (1 + square) * hits / (predicted + square * positives).clamp_min(torch.finfo(torch.float64).tiny)


@dataclass(frozen=True)
class Cost:
    """Minus the mean cost of a decision, by a cost matrix; a false positive must not cost less than a true negative."""

    false_positive: float = 1.0
    false_negative: float = 1.0
    true_positive: float = 0.0
    true_negative: float = 0.0

    def __post_init__(self) -> None:
        for name, cost in vars(self).items():
            check_number(name, cost)
        if self.false_positive < self.true_negative:
            raise ValueError("a false positive must not cost less than a true negative: everything would be predicted")

    def __call__(self, hits: Tensor, predicted: Tensor, positives: Tensor, rows: int) -> Tensor:
        wrong, missed = predicted - hits, positives - hits
        cost = self.true_positive * hits + self.false_positive * wrong + self.false_negative * missed
        return -(cost + self.true_negative * (rows - positives - wrong)) / rows


@dataclass(frozen=True)
class RecallAtPrecision:
    """Recall where the precision reaches a floor, else -1; predicting nothing has precision 1."""

    floor: float

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1:
            raise ValueError(f"the floor of a precision must lie between 0 and 1, got {self.floor!r}")

    def __call__(self, hits: Tensor, predicted: Tensor, positives: Tensor, rows: int) -> Tensor:
        enough = (predicted == 0) | (hits / predicted >= self.floor)  # floor * predicted would round
        return torch.where(enough, hits / positives.clamp_min(1), -1.0)


@dataclass(frozen=True)
class Best:
    """What an objective is highest at, for `score > threshold`.

    labels: (L,) float32, of each label; NaN for a label without a positive among the scores. shared: the one threshold
    with the highest sum of the objective over the labels, such as the best macro-F1.
    """

    labels: Tensor
    shared: float


def best_thresholds(scored: ScoredLabels, objective: Objective, cuts: int = 4096) -> Best:
    """The best thresholds by an exact sweep, n log n of the scores, some labels at a time.

    A threshold lies midway between a true label's score and the next lower one, or where float32 has no number between
    them, on the lower: ties are never cut. Of equally good ones the highest. Where nothing should be predicted it is
    the highest score. The shared one is looked for below `cuts` true scores, evenly spaced: all, if they are no more;
    with more than 32,768 labels fewer, 2^27 / L.

    >>> scored = ScoredLabels.of(torch.tensor([[4.0], [3.0], [1.0], [0.0]]), torch.tensor([[1], [0], [1], [0]]))
    >>> best_thresholds(scored, FBeta()).labels, best_thresholds(scored, RecallAtPrecision(0.9)).labels
    (tensor([0.5000]), tensor([3.5000]))
    """
    true = np.unique(_order(scored.scores[scored.hits].numpy()))
    cuts = min(len(true), cuts, max(1, 2**27 // scored.num_labels))
    grid = true[np.linspace(0, len(true) - 1, cuts).astype(np.int64)]
    labels, worth, rows = [], torch.zeros(cuts, dtype=torch.float64), len(scored)
    for part in scored.parts():
        ranked, positives = _Sorted.of(part), part.positives.double()
        labels.append(_best(ranked, positives, rows, objective))
        worth += _worth(ranked, positives, rows, objective, grid)
    nothing = torch.zeros(scored.num_labels, dtype=torch.float64)
    shared = float(scored.scores.max())
    if cuts and worth.max() > objective(nothing, nothing, scored.positives.double(), rows).double().sum():
        above = _score(grid[cuts - 1 - int(worth.flip(0).argmax())])
        lower = scored.scores[scored.scores < float(above)]
        beneath = lower.max().numpy() if len(lower) else np.nextafter(above, np.float32(-np.inf))
        shared = float(_between(above, beneath))
    return Best(torch.cat(labels), shared)


@dataclass(frozen=True)
class _Sorted:
    """Scores as whole numbers, label by label and rising: label << 32, plus the order of the score."""

    keys: Any
    true: Any  # those of true labels
    ends: Any  # (L + 1,) where the labels begin among them, and the last one ends
    true_ends: Any

    @classmethod
    def of(cls, scored: ScoredLabels) -> _Sorted:
        label = np.arange(scored.num_labels)[:, None] if scored.labels is None else scored.labels.numpy().T
        keys = (label << 32) + _order(scored.scores.T.numpy())
        true = np.sort(keys[scored.hits.T.numpy()])
        keys = np.sort(keys, axis=None)
        bounds = np.arange(scored.num_labels + 1) << 32
        return cls(keys, true, np.searchsorted(keys, bounds), np.searchsorted(true, bounds))


def _best(ranked: _Sorted, positives: Tensor, rows: int, objective: Objective) -> Tensor:
    """(L,) float32, the best threshold of each label."""
    keys, ends = ranked.keys, ranked.ends
    place = np.searchsorted(ranked.true, ranked.true)
    first = place == np.arange(len(place))  # of a tie
    place, cut = place[first], ranked.true[first]
    number, below = cut >> 32, np.searchsorted(keys, cut)
    label = torch.from_numpy(number)
    hits, predicted = ranked.true_ends[number + 1] - place, ends[number + 1] - below
    values = objective(*_counts(hits, predicted), positives[label], rows).double()
    nothing = torch.zeros_like(positives)
    best = objective(nothing, nothing, positives, rows).double().scatter_reduce(0, label, values, "amax")
    chosen = (values == best[label]).numpy()
    number, below, above = number[chosen], below[chosen], _score(cut[chosen])
    beneath = np.where(below > ends[number], _score(keys[below - 1]), np.nextafter(above, np.float32(-np.inf)))
    highest = np.where(ranked.true_ends[1:] > ranked.true_ends[:-1], _score(keys[ends[1:] - 1]), np.float32(np.nan))
    highest[number] = _between(above, beneath)  # numpy keeps the last: cuts rise
    return torch.from_numpy(highest)


def _worth(ranked: _Sorted, positives: Tensor, rows: int, objective: Objective, grid: Any) -> Tensor:
    """(len(grid),) float64, the sum over the labels of what a cut just below each of the grid is worth."""
    worth = torch.zeros(len(grid), dtype=torch.float64)
    for label in torch.arange(len(positives)).split(max(1, 2**20 // max(1, len(grid)))):
        number = label[:, None].numpy()
        cut = (number << 32) + grid
        hits = ranked.true_ends[number + 1] - np.searchsorted(ranked.true, cut)
        predicted = ranked.ends[number + 1] - np.searchsorted(ranked.keys, cut)
        worth += objective(*_counts(hits, predicted), positives[label, None], rows).double().sum(0)
    return worth


def _counts(hits: Any, predicted: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(hits).double(), torch.from_numpy(predicted).double()


def _between(above: Any, beneath: Any) -> Any:
    """Midway, or where float32 has no number between them, the lower."""
    middle = ((above.astype(np.float64) + beneath) / 2).astype(np.float32)
    return np.where(middle < above, middle, beneath)


def _order(scores: Any) -> Any:
    """float32 -> whole numbers in [0, 2^32) in the same order, equal ones (0 and -0 too) the same."""
    return ordered(np.ascontiguousarray(scores)).astype(np.int64) + 2**31


def _score(key: Any) -> Any:
    bits = ((key & 0xFFFFFFFF) - 2**31).astype(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)
