"""Judges an epoch by validation rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lopsided.decision.rules import best_threshold
from lopsided.metrics.registry import METRICS
from lopsided.metrics.scores import Judged
from lopsided.metrics.truth import Truth
from lopsided.metrics.weighted import Weighable
from lopsided.models.model import Model
from lopsided.training.history import Epoch
from lopsided.training.rows import Rows

_GAIN = 0.004
_EQUAL = 1e-4
_FEWER = 0.05


@dataclass(frozen=True)
class Validation:
    """Says what training is judged by.

    metric: one of `JUDGES`; one that reads decisions is measured at the threshold with the best micro-F1.
    patience: epochs without progress after which training stops; None for never. Progress is a value better by 0.4 %:
    smaller gains come for many epochs from models that are as good as finished.
    """

    rows: Rows
    metric: str = "map"
    patience: int | None = None

    def is_progress(self, measured: Mapping[str, float], before: Epoch | None) -> bool:
        """Tells whether an epoch is better than that of the last progress by enough to train on.

        Where the metric stays as it is, as on rows that every penalty ranks rightly, it is progress that fewer labels
        are dead: never predicted at the threshold with the best micro-F1, though validation rows have them.
        """
        if before is None or self.is_better(measured["valid"], before.valid, _GAIN):
            return True
        fewer = measured["dead_labels"] < (1 - _FEWER) * before.dead_labels
        return fewer and self.is_equal(measured["valid"], before.valid)

    def gives_up(self, epochs: int, improved_in: int) -> bool:
        return self.patience is not None and epochs - improved_in >= self.patience

    def is_equal(self, value: float, best: float) -> bool:
        """Tells whether a value is as good as the best so far, but for what a handful of ranks may change."""
        return abs(value - best) <= _EQUAL * abs(best)

    def is_better(self, value: float, best: float | None, share: float = 0.0) -> bool:
        """Tells whether a value is better than the best so far, by more than a share of it."""
        if best is None or math.isnan(best):
            return True
        gain = value - best if METRICS[self.metric].higher_is_better else best - value
        return gain > share * best

    def measure(self, model: Model) -> dict[str, float] | None:
        """Returns the columns of `Epoch` about validation rows; None where scores are not finite."""
        scores = model.score(self.rows.encoded, self.rows.keep)
        if not scores.values.isfinite().all():
            return None
        judged = Judged.of(scores, targets := self.rows.data.hard_targets())
        decided = scores.where_listed(scores.values > best_threshold(judged), False)
        truth = None if scores.columns is None else Truth.of(targets, len(scores), scores.num_labels)
        summary = Weighable(judged, decided, truth=truth).summary()
        dead = (judged.positives > 0) & (scores.sum(decided.long()) == 0)
        return {
            "valid": METRICS[self.metric].value(summary),
            "valid_map": METRICS["map"].value(summary) if scores.columns is None else math.nan,
            "valid_p_at_1": METRICS["p@1"].value(summary),
            "dead_labels": float(torch.count_nonzero(dead)),
        }
