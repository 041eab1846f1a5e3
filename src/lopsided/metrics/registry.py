"""Every metric by name. `compare`, `fit`, `evaluate` and `MultiLabelMetrics` take their numbers from here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lopsided.metrics.counts import Counts
from lopsided.metrics.lists import ratio
from lopsided.metrics.summary import Summary

Reads = Literal["all scores", "ranking", "decisions"]
Value = Callable[[Summary], float]


@dataclass(frozen=True)
class Metric:
    """A metric. reads: what it needs, the scores of all labels, the best of each row in order, or decisions alone."""

    title: str
    value: Value
    reads: Reads
    higher_is_better: bool = True


def _coco(name: str, sums: str) -> Value:
    """Returns one of the six numbers of the COCO tables: per class, then overall; CF1 is made of CP and CR."""

    def value(summary: Summary) -> float:
        counts = Counts(*summary.sums[sums])
        precision, recall = summary.mean(counts.precision()), summary.mean(counts.recall())
        both = precision + recall
        overall = Counts(*summary.sums[sums].sum(1))
        values: dict[str, float] = {
            "CP": precision,
            "CR": recall,
            "CF1": 2 * precision * recall / both if both else 0.0,
            "OP": overall.precision(),
            "OR": overall.recall(),
            "OF1": overall.f_beta(),
        }
        return float(values[name])

    return value


def _of_labels(column: str, weighted: bool = False) -> Value:
    return lambda s: s.mean(s.table[column], weighted)


def _of_all_labels(column: str) -> Value:
    """Averages over labels without positives too, which have a calibration error; labels of no known row have none."""
    return lambda s: float(ratio(np.nansum(s.table[column]), (~np.isnan(s.table[column])).sum()))


def _hamming_loss(s: Summary) -> float:
    hits, predicted, positives = s.overall
    return float(ratio(predicted + positives - 2 * hits, s.sums["known"].sum()))


def _predicted_per_row(s: Summary) -> float:
    return float(ratio(s.overall.predicted, s.sums["rows"][0]))


def _top_k(name: str, k: int) -> Value:
    return lambda s: s.of_rank(4 + s.ks.index(k)) if name == "ndcg" else s.top_k(f"{name}@{k}")


def top_k_metrics(ks: Sequence[int]) -> dict[str, Metric]:
    """Returns P, nDCG and PSP at these ranks; nDCG of tied scores is the mean over their orders."""
    titles = {"p": "P", "ndcg": "nDCG", "psp": "PSP"}
    return {f"{n}@{k}": Metric(f"{title}@{k}", _top_k(n, k), "ranking") for n, title in titles.items() for k in ks}


METRICS: dict[str, Metric] = {
    "map": Metric("mAP", _of_labels("average_precision"), "all scores"),
    "map_weighted": Metric("mAP weighted", _of_labels("average_precision", weighted=True), "all scores"),
    "map_micro": Metric("mAP micro", lambda s: s.micro["average_precision"], "all scores"),
    "auroc": Metric("AUROC", _of_labels("auroc"), "all scores"),
    "auroc_weighted": Metric("AUROC weighted", _of_labels("auroc", weighted=True), "all scores"),
    "auroc_micro": Metric("AUROC micro", lambda s: s.micro["auroc"], "all scores"),
    **{
        name + ending: Metric(name + ending, _coco(name, sums), "decisions")
        for ending, sums in (("", "labels"), ("@3", "top_labels"))
        for name in ("CP", "CR", "CF1", "OP", "OR", "OF1")
    },
    "micro_f1": Metric("micro-F1", lambda s: float(s.overall.f_beta()), "decisions"),
    "micro_precision": Metric("micro-precision", lambda s: float(s.overall.precision()), "decisions"),
    "micro_recall": Metric("micro-recall", lambda s: float(s.overall.recall()), "decisions"),
    "macro_f1": Metric("macro-F1", lambda s: s.mean(s.labels.f_beta()), "decisions"),
    "sample_precision": Metric("sample-precision", lambda s: s.of_rows("sample_precision"), "decisions"),
    "sample_recall": Metric("sample-recall", lambda s: s.of_rows("sample_recall"), "decisions"),
    "sample_f1": Metric("sample-F1", lambda s: s.of_rows("sample_f1"), "decisions"),
    "subset_accuracy": Metric("subset acc.", lambda s: s.of_rows("subset_accuracy"), "decisions"),
    "empty_rows": Metric("empty rows", lambda s: s.of_rows("empty_rows"), "decisions", higher_is_better=False),
    "predicted_per_row": Metric("predicted per row", _predicted_per_row, "decisions"),
    "hamming_loss": Metric("Hamming loss", _hamming_loss, "decisions", higher_is_better=False),
    **top_k_metrics((1, 3, 5)),
    "one_error": Metric("one-error", lambda s: 1 - s.top_k("p@1"), "ranking", higher_is_better=False),
    "lrap": Metric("LRAP", lambda s: s.of_rank(1), "all scores"),
    "ranking_loss": Metric("ranking loss", lambda s: s.of_rank(2), "all scores", higher_is_better=False),
    "coverage": Metric("coverage", lambda s: s.of_rank(3), "all scores", higher_is_better=False),
    "ece": Metric("ECE", _of_all_labels("ece"), "all scores", higher_is_better=False),
    "ece_adaptive": Metric("adaptive ECE", _of_all_labels("ece_adaptive"), "all scores", higher_is_better=False),
    "ece_micro": Metric("micro ECE", lambda s: s.micro["ece"], "all scores", higher_is_better=False),
    "brier": Metric("Brier score", _of_all_labels("brier"), "all scores", higher_is_better=False),
}
