"""Chooses the rows that thresholds are tuned on: not those that chose rate, epoch or penalty, where there are enough.

Whoever does best on some rows, among many, is a little worse on others; thresholds for the scores of the first would
lie too high. So a solved model has its thresholds from cross-validation over the rows that it is made of in the end,
which is cheap from its solution on. A model that is trained in steps has them from a half of the validation rows.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from lopsided.data.dataset import Dataset, Splits
from lopsided.data.split import split_rows
from lopsided.data.storage import UserError

_FOLDS = 3  # thresholds of five and of ten folds are no better, and cost two and three times as much
_ENOUGH = 50  # positives of the mean label in each half: with fewer, a label's own threshold is mostly noise


def with_tuning(splits: Splits, refit: bool, seed: int) -> Splits:
    """Returns the parts with rows for tuning, some of which may be taken from those of validation.

    refit: whether the model is solved once more, on the rows of training and validation.
    """
    if splits.valid is None:
        return splits
    if refit and splits.unsplit is not None:
        rows = splits.unsplit.joined()
        folds = _split(rows, _FOLDS, seed)
        if folds:
            return replace(splits, tuning=rows, folds=folds)
    if int(splits.valid.hard_counts().sum()) >= 2 * _ENOUGH * splits.valid.num_labels:
        halves = _split(splits.valid, 2, seed)
        if halves:
            valid, tuning = map(splits.valid.take, halves)
            return replace(splits, valid=valid, tuning=tuning)
    return replace(splits, tuning=splits.valid)


def _split(rows: Dataset, parts: int, seed: int) -> tuple[Tensor, ...]:
    """Returns the numbers of the rows of each part; none where so many are copies or of one group that it cannot be."""
    try:
        return tuple(split_rows(rows, [1 / parts] * parts, seed))
    except UserError:
        return ()


def tuned_on(splits: Splits) -> str:
    """Says which rows those are."""
    assert splits.tuning is not None
    if splits.folds:
        return (
            f"the {len(splits.tuning)} rows of training and validation, each scored by a model that did not see it "
            f"({len(splits.folds)} folds)"
        )
    if splits.tuning is splits.valid:
        return "the validation rows, which are too few to part and chose rate, epoch or penalty as well"
    return f"{len(splits.tuning)} validation rows that chose nothing else"
