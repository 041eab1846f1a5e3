"""Lists the metrics of a comparison, by name; the registry says what each is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Thresholds = Literal["own", "tuned", "by label"]


@dataclass(frozen=True)
class ComparedMetric:
    """Names a metric of the registry, and the thresholds of the decisions that it reads; None if it reads none."""

    title: str
    name: str
    at: Thresholds | None = "tuned"

    @property
    def is_tuned(self) -> bool:
        return self.at not in (None, "own")

    @property
    def higher_is_better(self) -> bool:
        from lopsided.metrics import registry

        return registry.METRICS[self.name].higher_is_better

    @property
    def sign(self) -> int:
        """What makes a higher product better."""
        return 1 if self.higher_is_better else -1


METRICS = {
    "map": ComparedMetric("mAP", "map", None),
    "auroc": ComparedMetric("AUROC", "auroc", None),
    "micro_f1_own": ComparedMetric("micro-F1 own", "micro_f1", "own"),
    "macro_f1_own": ComparedMetric("macro-F1 own", "macro_f1", "own"),
    "micro_f1": ComparedMetric("micro-F1 tuned", "micro_f1"),
    "macro_f1": ComparedMetric("macro-F1 tuned", "macro_f1"),
    "micro_f1_labels": ComparedMetric("micro-F1 by label", "micro_f1", "by label"),
    "macro_f1_labels": ComparedMetric("macro-F1 by label", "macro_f1", "by label"),
    "subset_accuracy": ComparedMetric("subset acc.", "subset_accuracy"),
    "hamming_loss": ComparedMetric("Hamming loss", "hamming_loss"),
    "p@1": ComparedMetric("P@1", "p@1", None),
    "p@3": ComparedMetric("P@3", "p@3", None),
}
