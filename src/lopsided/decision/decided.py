"""How right decisions are, streaming over batches: counts per label, and sums over rows."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.decision.sweep import FBeta
from lopsided.targets import SparseTargets


class DecisionMetrics:
    """Collects which labels are predicted of batches of rows; (num_labels,) counts are kept, no scores.

    >>> metrics = DecisionMetrics(3)
    >>> decided = torch.tensor([[True, True], [False, False]])
    >>> metrics.update(decided, torch.tensor([[0, 1], [0, 1]]), SparseTargets.from_indices([[0], [1]]))
    >>> metrics.result()["micro_f1"], metrics.result()["macro_f1"], metrics.result()["empty_rows"]
    (0.5, 0.5, 0.5)
    """

    def __init__(self, num_labels: int) -> None:
        self.rows = 0
        self._counts = torch.zeros(3, num_labels, dtype=torch.float64)  # hits, predicted, true
        self._sums = torch.zeros(3, dtype=torch.float64)  # rows' F1, rows all right, rows without a prediction

    def update(self, decided: Tensor, labels: Tensor, truth: SparseTargets) -> None:
        """decided: (n, k) bool, about (n, k) labels; truth: the true labels of the n rows, each once."""
        true = truth.crow.diff()
        row, width = torch.repeat_interleave(true), self._counts.shape[1]
        hit = torch.isin(torch.arange(len(labels))[:, None] * width + labels, row * width + truth.col) & decided
        for place, found in enumerate((labels[hit], labels[decided], truth.col)):
            self._counts[place] += torch.bincount(found, minlength=width)
        hits, predicted = hit.sum(1).double(), decided.sum(1).double()
        f1 = torch.where(predicted + true > 0, FBeta()(hits, predicted, true, 1), 1.0)
        right = (hits == predicted) & (hits == true)
        self._sums += torch.stack([f1.sum(), right.sum().double(), (predicted == 0).sum().double()])
        self.rows += len(labels)

    def result(self) -> dict[str, float]:
        """By name, between 0 and 1, but for `predicted_per_row`.

        micro_f1, micro_precision, micro_recall: of all decisions together; 0 for 0 / 0. macro_f1: mean over the labels
        that are true in some row. sample_f1: mean over the rows, 1 for one without labels and without predictions.
        """
        hits, predicted, true = self._counts
        f1 = FBeta()(hits, predicted, true, self.rows)
        h, p, t = self._counts.sum(1)
        rows_f1, right, empty = (self._sums / self.rows).tolist()
        return {
            "micro_f1": float(FBeta()(h, p, t, self.rows)),
            "micro_precision": float(h / p.clamp_min(1)),
            "micro_recall": float(h / t.clamp_min(1)),
            "macro_f1": float(torch.where(true > 0, f1, torch.nan).nanmean()),
            "sample_f1": rows_f1,
            "subset_accuracy": right,
            "empty_rows": empty,
            "predicted_per_row": float(p / self.rows),
        }
