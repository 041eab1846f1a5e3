"""What can only be known from all scores at once: exact average precision, AUROC and adaptive calibration error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lopsided.metrics.batch import Batch
from lopsided.metrics.calibration_error import adaptive_error, probabilities
from lopsided.metrics.lists import Array, one_list, stored_lists

_PART = 1 << 22  # scores that are sorted at a time


class ExactScores(NamedTuple):
    """The scores of a batch, and the least that tells which are positive.

    Dense: scores (rows, labels), NaN of unknown labels, and the places of the positives. Stored: (E,) of known labels,
    and for each 2 * label + positive.
    """

    scores: Array
    marks: Array

    @classmethod
    def of(cls, batch: Batch) -> ExactScores:
        """Returns a copy: 4 or 8 bytes for each score, and 8 for each positive or stored entry."""
        if batch.places is None:
            scores = batch.scores.copy()
            scores.reshape(-1)[batch.truth.unknown] = np.nan  # sorted to the end of every list
            return cls(scores, batch.true)
        known = batch.without_unknown()
        assert known.places is not None
        return cls(known.scores, known.places % known.labels * 2 + known.stored_true())


def join(parts: Sequence[ExactScores], stored: bool) -> ExactScores:
    """Joins the scores of all batches, flat."""
    scores = [np.empty(0, np.float32), *(part.scores.reshape(-1) for part in parts)]
    return ExactScores(np.concatenate(scores), _marks(parts, stored))


def label_lists(parts: Sequence[ExactScores], labels: int) -> Iterator[tuple[Array, Array]]:
    """Yields of each label the scores of all rows and those of its positives, both sorted, with their sign turned."""
    rows = sum(len(part.scores) for part in parts)
    row, label = np.divmod(_marks(parts, stored=False), labels)
    rows_of = np.split(row[np.argsort(label, kind="stable")], np.bincount(label, minlength=labels).cumsum()[:-1])
    step = max(1, _PART // rows)
    for low in range(0, labels, step):
        columns = np.concatenate([part.scores[:, low : low + step] for part in parts])
        keys = np.negative(columns.T, order="C")
        true_keys = [np.sort(each[true]) for each, true in zip(keys, rows_of[low : low + step], strict=True)]
        keys.sort(axis=1)
        yield from zip(map(_numbers, keys), true_keys, strict=True)


def label_values(parts: Sequence[ExactScores], labels: int, scale: str, bins: int) -> dict[str, Array]:
    """Returns (L,) AP, AUROC and adaptive calibration error from dense scores."""
    values = np.empty((3, labels))
    for label, (keys, true_keys) in enumerate(label_lists(parts, labels)):
        ranks = one_list(keys, true_keys, len(keys), len(true_keys))
        error = adaptive_error(probabilities(-keys, scale), probabilities(-true_keys, scale), bins)
        values[:, label] = ranks.average_precision()[0], ranks.auroc()[0], error
    return dict(zip(("average_precision", "auroc", "ece_adaptive"), values, strict=True))


def stored_label_values(parts: Sequence[ExactScores], positives: Array, rows: Array) -> dict[str, Array]:
    """Returns (L,) AP and AUROC from stored scores. rows: (L,), those in which each label is known."""
    scores, marks = join(parts, stored=True)
    ranks = stored_lists(marks >> 1, scores, marks & 1 == 1, rows, positives)
    return {"average_precision": ranks.average_precision(), "auroc": ranks.auroc()}


def micro_values(parts: Sequence[ExactScores], stored: bool, length: int, positives: int) -> dict[str, float]:
    """Computes AP and AUROC of all labels of all rows as one list of that many known entries."""
    keys, marks = join(parts, stored)
    np.negative(keys, out=keys)
    true_keys = np.sort(keys[marks & 1 == 1] if stored else keys[marks])
    keys.sort()
    ranks = one_list(_numbers(keys), true_keys, length, positives)
    return {"average_precision": float(ranks.average_precision()[0]), "auroc": float(ranks.auroc()[0])}


def _numbers(keys: Array) -> Array:
    """Returns sorted keys without the NaN at their end."""
    return keys[: keys.searchsorted(np.nan)] if len(keys) and np.isnan(keys[-1]) else keys


def _marks(parts: Sequence[ExactScores], stored: bool) -> Array:
    sizes = [0, *(0 if stored else part.scores.size for part in parts)]
    marks = [part.marks + start for part, start in zip(parts, np.cumsum(sizes)[:-1], strict=True)]
    return np.concatenate([np.empty(0, np.int64), *marks])
