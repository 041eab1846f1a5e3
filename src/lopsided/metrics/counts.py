"""Precision, recall and F-beta, from counts that add up over batches: all decisions are judged here.

0 / 0 counts as 0, as scikit-learn has it (`zero_division=0`): so the F1 of a row with nothing true and nothing
predicted is 0. Labels without positives are left out of means over labels. Unknown labels are not counted at all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lopsided.metrics.lists import Array
from lopsided.metrics.truth import Truth, member

Sums = dict[str, Array]
ROW_SUMS = ("rows", "sample_precision", "sample_recall", "sample_f1", "subset_accuracy", "empty_rows")


class Counts(NamedTuple):
    """Labels predicted rightly, predicted, and true: arrays or tensors in one shape, weighted or not."""

    hits: Any
    predicted: Any
    positives: Any

    def precision(self) -> Any:
        return quotient(self.hits, self.predicted)

    def recall(self) -> Any:
        return quotient(self.hits, self.positives)

    def f_beta(self, beta: float = 1.0) -> Any:
        """Returns (1 + beta^2) hits / (predicted + beta^2 positives): recall weighs beta times as much as precision."""
        square = beta**2
        return quotient((1 + square) * self.hits, self.predicted + square * self.positives)


def quotient(numerator: Any, denominator: Any) -> Any:
    """Divides; 0 where the denominator is 0, for then the numerator is 0 as well."""
    return numerator / (denominator + (denominator == 0))


def label_counts(truth: Truth, decided: Array, row_weights: Array | None = None) -> Array:
    """Returns (3, L) float64 `Counts` of every label; decided: places, rising, none of them unknown."""
    return _counted(_groups(truth, decided), truth.labels, row_weights)


def row_sums(truth: Truth, decided: Array, row_weights: Array | None = None) -> Array:
    """Returns (6,) float64, the sums of ROW_SUMS over the rows of which some label is known."""
    counts = Counts(
        *np.stack([np.bincount(each // truth.labels, minlength=truth.rows) for each in _groups(truth, decided)])
    )
    right = (counts.hits == counts.predicted) & (counts.hits == counts.positives)
    known = np.bincount(truth.unknown // truth.labels, minlength=truth.rows) < truth.labels
    weights = known.astype(np.float64) * (1.0 if row_weights is None else row_weights)
    columns = np.ones(truth.rows), counts.precision(), counts.recall(), counts.f_beta(), right, counts.predicted == 0
    return np.array([column @ weights for column in columns], np.float64)


def known_counts(truth: Truth, row_weights: Array | None = None) -> Array:
    """Returns (L,) float64, the rows in which each label is known."""
    total = float(truth.rows if row_weights is None else row_weights.sum())
    known: Array = total - _counted([truth.unknown], truth.labels, row_weights)[0]
    return known


def _groups(truth: Truth, decided: Array) -> list[Array]:
    return [truth.true[member(truth.true, decided)], decided, truth.true]


def _counted(groups: list[Array], labels: int, row_weights: Array | None) -> Array:
    weights = [None if row_weights is None else row_weights[each // labels] for each in groups]
    counted = [np.bincount(each % labels, w, minlength=labels) for each, w in zip(groups, weights, strict=True)]
    return np.stack(counted).astype(np.float64)
