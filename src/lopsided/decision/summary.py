"""The numbers of one trained model, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from lopsided.decision import metrics
from lopsided.decision.rules import tune_label_thresholds
from lopsided.metrics.scores import ScoredLabels


@dataclass(frozen=True)
class Scored:
    """A model's scores of test and validation rows with known labels, and the threshold that its loss implies."""

    scores: Tensor
    targets: Tensor
    valid_scores: Tensor
    valid_targets: Tensor
    own: float | None  # None where the loss implies no threshold

    @cached_property
    def diverged(self) -> bool:
        """Did training end in scores that are not numbers?"""
        return not bool(self.scores.isfinite().all())

    @cached_property
    def tuned(self) -> float:
        """The threshold with the best micro-F1 on the validation rows; infinite after a training that diverged."""
        return float("inf") if self.diverged else metrics.best_threshold(self.valid_scores, self.valid_targets)

    @cached_property
    def ranking(self) -> metrics.Ranking:
        return metrics.Ranking.of(self.scores, self.targets)

    @cached_property
    def at_own(self) -> Tensor:
        assert self.own is not None
        return self.scores > self.own

    @cached_property
    def at_tuned(self) -> Tensor:
        return self.scores > self.tuned

    @cached_property
    def by_label(self) -> Tensor:
        """Decided by a threshold of each label, tuned on the validation rows and shrunk where it is rare."""
        valid = ScoredLabels.of(self.valid_scores, self.valid_targets)
        return tune_label_thresholds(valid).decide(self.scores) if valid.hits.any() else self.at_tuned


@dataclass(frozen=True)
class Metric:
    """A metric by name: `value(scored, row_weights)`."""

    title: str
    value: Callable[[Scored, Tensor | None], float]
    higher_is_better: bool = True
    at_own: bool = False  # decided at the loss's own threshold?


METRICS: dict[str, Metric] = {
    "map": Metric("mAP", lambda s, w: metrics.mean_average_precision(s.ranking, w)),
    "micro_f1_own": Metric("micro-F1 own", lambda s, w: metrics.micro_f1(s.at_own, s.targets, w), at_own=True),
    "macro_f1_own": Metric("macro-F1 own", lambda s, w: metrics.macro_f1(s.at_own, s.targets, w), at_own=True),
    "micro_f1": Metric("micro-F1 tuned", lambda s, w: metrics.micro_f1(s.at_tuned, s.targets, w)),
    "macro_f1": Metric("macro-F1 tuned", lambda s, w: metrics.macro_f1(s.at_tuned, s.targets, w)),
    "macro_f1_labels": Metric("macro-F1 by label", lambda s, w: metrics.macro_f1(s.by_label, s.targets, w)),
    "subset_accuracy": Metric("subset acc.", lambda s, w: metrics.subset_accuracy(s.at_tuned, s.targets, w)),
    "hamming_loss": Metric(
        "Hamming loss", lambda s, w: metrics.hamming_loss(s.at_tuned, s.targets, w), higher_is_better=False
    ),
    "p_at_1": Metric("P@1", lambda s, w: metrics.precision_at(1, s.scores, s.targets, w)),
    "p_at_3": Metric("P@3", lambda s, w: metrics.precision_at(3, s.scores, s.targets, w)),
}


def evaluate(name: str, scored: Scored, weights: Tensor | None = None) -> float:
    """A metric of a model, NaN if its training diverged or there is no own threshold that it asks for.

    weights: (N,) of the rows, or None for ones.
    """
    metric = METRICS[name]
    undefined = scored.diverged or (metric.at_own and scored.own is None)
    return float("nan") if undefined else metric.value(scored, weights)
