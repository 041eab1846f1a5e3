"""Metrics of decisions, from counts that add up over batches.

Of every label and of every row: positives, labels decided, and hits, which are both. 0 / 0 counts as 0, as
scikit-learn has it (`zero_division=0`); labels without positives are left out of means over labels.
"""

from __future__ import annotations

import numpy as np

from lopsided.metrics.batch import Batch, member
from lopsided.metrics.lists import Array

Sums = dict[str, Array]


def decision_sums(batch: Batch, decided: Array) -> Sums:
    """decided: places, rising. "labels": (3, L) hits, decided, positives; "rows": (4,) of the sample metrics."""
    groups = batch.true[member(batch.true, decided)], decided, batch.true
    by_row = np.stack([np.bincount(places // batch.labels, minlength=batch.rows) for places in groups])
    by_label = np.stack([np.bincount(places % batch.labels, minlength=batch.labels) for places in groups])
    exact = (by_row[0] == by_row[1]) & (by_row[0] == by_row[2])
    sample = [*(each.sum() for each in precision_recall_f1(by_row)), exact.sum()]
    return {"labels": by_label.astype(np.float64), "rows": np.array(sample, np.float64)}


def precision_recall_f1(counts: Array) -> tuple[Array, Array, Array]:
    """From (3, ...) hits, decided, positives."""
    hits, decided, positives = counts
    return quotient(hits, decided), quotient(hits, positives), quotient(2 * hits, decided + positives)


def quotient(numerator: Array, denominator: Array) -> Array:
    """0 where the denominator is 0: then the numerator is 0 as well."""
    return np.asarray(numerator / np.maximum(denominator, 1), np.float64)


def coco_values(counts: Array, ending: str = "") -> dict[str, float]:
    """The six numbers of the COCO tables from (3, L) counts: per class, then overall; CF1 is made of CP and CR."""
    present = counts[2] > 0
    of_labels = np.stack(precision_recall_f1(counts))[:2, present]
    class_precision, class_recall = of_labels.mean(1).tolist() if present.any() else (np.nan, np.nan)
    both = class_precision + class_recall
    class_f1 = 2 * class_precision * class_recall / both if both else 0.0
    overall = (float(each) for each in precision_recall_f1(counts.sum(1)))
    values = class_precision, class_recall, class_f1, *overall
    return {name + ending: value for name, value in zip(("CP", "CR", "CF1", "OP", "OR", "OF1"), values, strict=True)}


def decision_values(sums: Sums, rows: int) -> dict[str, float]:
    """All metrics of the decisions by name."""
    hits, decided, positives = counts = sums["labels"]
    f1 = precision_recall_f1(counts)[2][positives > 0]
    precision, recall, sample_f1, exact = (sums["rows"] / rows).tolist()
    return {
        **coco_values(counts),
        "micro_f1": float(precision_recall_f1(counts.sum(1))[2]),
        "macro_f1": float(f1.mean()) if len(f1) else np.nan,
        "sample_precision": precision,
        "sample_recall": recall,
        "sample_f1": sample_f1,
        "subset_accuracy": exact,
        "hamming_loss": float((decided + positives - 2 * hits).sum() / (rows * len(hits))),
    }
