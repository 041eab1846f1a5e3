"""Computes the numbers of one trained model in a comparison: tunes thresholds, and gives decisions to the metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from lopsided.decision.rules import best_threshold, tune_label_thresholds
from lopsided.jobs.compared_metrics import METRICS, ComparedMetric, Thresholds
from lopsided.metrics import registry
from lopsided.metrics.lists import Array
from lopsided.metrics.scores import Judged, Scores
from lopsided.metrics.summary import Summary
from lopsided.metrics.truth import Truth
from lopsided.metrics.weighted import Weighable
from lopsided.targets import SparseTargets


@dataclass(frozen=True)
class Scored:
    """Holds a model's scores of test and validation rows, and the threshold that its loss implies.

    scores: None where training diverged. valid_scores: None there too, and where there are none: then no threshold is
    tuned, and all decisions are at the own one. targets, valid_targets: of 0, 1 and NaN for unknown.
    own: None where the loss implies no threshold.
    """

    scores: Scores | None
    targets: SparseTargets
    valid_scores: Scores | None
    valid_targets: SparseTargets
    own: float | None

    @property
    def rows(self) -> int:
        return len(self.targets.crow) - 1

    @cached_property
    def diverged(self) -> bool:
        """Tells whether training ended in scores that are not numbers."""
        return self.scores is None

    @property
    def validated(self) -> bool:
        return self.valid_scores is not None

    @cached_property
    def tuned(self) -> float:
        """Returns the threshold with the best micro-F1 on the validation rows; infinite without any."""
        return best_threshold(self.valid) if self.validated else math.inf

    @cached_property
    def test(self) -> Judged:
        return Judged.of(self.scores, self.targets)

    @cached_property
    def valid(self) -> Judged:
        return Judged.of(self.valid_scores, self.valid_targets)

    def at(self, thresholds: Thresholds | None) -> Weighable:
        """Returns the test scores with the decisions at these thresholds; None where no decision is read."""
        thresholds = thresholds or "tuned"
        if thresholds not in self._decisions:
            scores = self.test.scores
            truth = None if scores.columns is None else Truth.of(self.targets, len(scores), scores.num_labels)
            self._decisions[thresholds] = Weighable(self.test, self.decide(thresholds), truth=truth)
        return self._decisions[thresholds]

    @cached_property
    def _decisions(self) -> dict[Thresholds, Weighable]:
        return {}

    def decide(self, thresholds: Thresholds) -> Tensor:
        """Returns the decisions, bool in the shape of the test scores."""
        scores = self.test.scores
        thresholds = thresholds if self.validated else "own"
        if thresholds == "by label" and self.valid.hits.any():
            return tune_label_thresholds(self.valid).decide(scores)
        if thresholds == "own" and self.own is not None and math.isfinite(self.own):
            return scores.where_listed(scores.values > self.own, False)
        # also where the loss saturates: its own threshold would predict nothing
        return scores.where_listed(scores.values > self.tuned, False)


def evaluate(name: str, scored: Scored, row_weights: Tensor | None = None) -> float:
    """Computes a metric of a model: NaN if its training diverged, or if it lacks the threshold that the metric needs.

    row_weights: (N,), or None for ones. NaN also for a metric that needs the scores of all labels where only the best
    of each row are held.
    """
    metric = METRICS[name]
    if not _can_be_decided(metric, scored):
        return math.nan
    return registry.METRICS[metric.name].value(scored.at(metric.at).summary(row_weights))


def _can_be_decided(metric: ComparedMetric, scored: Scored) -> bool:
    lacking = (metric.at == "own" and scored.own is None) or (metric.is_tuned and not scored.validated)
    return not (scored.diverged or lacking)


def evaluate_labels(name: str, scored: Scored, labels: Array) -> float:
    """Computes the same of some labels, (L,) bool: NaN also for a metric of rows, or of the best labels of each row."""
    metric = METRICS[name]
    if not _can_be_decided(metric, scored):
        return math.nan
    entry, whole = registry.METRICS[metric.name], scored.at(metric.at).summary()
    columns = ("average_precision", "auroc") if entry.reads == "all scores" else ()
    part = Summary(
        {column: whole.sums[column][..., labels] for column in ("labels", "known")},
        {column: whole.table[column][labels] for column in columns},
        ks=whole.ks,
    )
    try:
        return entry.value(part)
    except KeyError:  # it is made of something else than labels
        return math.nan
