"""Metrics of a multi-label classifier, each with optional row weights so that a bootstrap can re-weigh the rows.

Everywhere: scores (N, L) float, targets and decisions (N, L) bool, weights (N,) >= 0 or None for ones. Labels
without a positive among the weighted rows have no average precision, recall or F1: they are NaN per label and left
out of macro averages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lopsided.compute.topk import ranked_labels
from lopsided.decision.rules import tune_threshold
from lopsided.metrics.kept import Kept, label_lists
from lopsided.metrics.lists import list_keys, one_list, sorted_lists
from lopsided.metrics.scores import ScoredLabels


@dataclass(frozen=True)
class Ranking:
    """Average precision of every label, with the sorting done once and for all weights.

    AP = sum over positives of weight * precision at that score, divided by the weight of the positives, where rows
    of equal score enter together: scikit-learn's definition.
    """

    order: Tensor  # (L, N) rows by falling score
    row: Tensor  # (P,) the row of each positive, label by label and by falling score
    label: Tensor  # (P,) its label
    upto: Tensor  # (P,) where the rows that score at least as much end, in `order`
    hits: Tensor  # (P,) where those of them that are positive end, in the positives of all labels

    @classmethod
    def of(cls, scores: Tensor, targets: Tensor) -> Ranking:
        keys = list_keys(scores.T.contiguous().numpy(), np.arange(scores.shape[1])[:, None])
        order = keys.argsort(axis=1)
        label, place = np.nonzero(np.take_along_axis(targets.T.numpy(), order, axis=1))
        row = order[label, place]
        ranks = sorted_lists(np.take_along_axis(keys, order, axis=1).reshape(-1), keys[label, row], *keys.shape)
        first = ranks.positives.cumsum() - ranks.positives
        found = order, row, label, ranks.upto, ranks.hits + first[label]
        return cls(*(torch.from_numpy(each) for each in found))

    def average_precision(self, weights: Tensor | None = None) -> Tensor:
        """(L,) float64, NaN for a label without positives."""
        labels, rows = self.order.shape
        weights = torch.ones(rows, dtype=torch.float64) if weights is None else weights.double()
        hit = weights[self.row]
        mass = torch.zeros(labels, dtype=torch.float64).index_add(0, self.label, hit)
        above = weights[self.order].cumsum(1)[self.label, self.upto - 1]
        hits_above = hit.cumsum(0)[self.hits - 1] - (mass.cumsum(0) - mass)[self.label]
        precision = torch.where(hit > 0, hits_above / above, 0.0)
        return torch.zeros_like(mass).index_add(0, self.label, hit * precision) / mass


def average_precision(scores: Tensor, targets: Tensor) -> Tensor:
    """(L,) float64, NaN for a label without positives: `Ranking` without weights, faster.

    >>> average_precision(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.tensor([[False, False], [True, False]]))
    tensor([0.5000,    nan], dtype=torch.float64)
    """
    values = scores if scores.dtype == torch.float64 else scores.float()
    lists = label_lists([Kept(values.numpy(), np.flatnonzero(targets.numpy()))], scores.shape[1])
    found = [one_list(keys, true, len(keys), len(true)).average_precision()[0] for keys, true in lists]
    return torch.tensor(found, dtype=torch.float64)


def mean_average_precision(ranking: Ranking, weights: Tensor | None = None) -> float:
    """Mean over the labels that have positives."""
    return float(ranking.average_precision(weights).nanmean())


def micro_f1(decisions: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """F1 of all decisions together; 0 where nothing is true or predicted."""
    hits, predicted, true = (counts.sum() for counts in _counts(decisions, targets, weights))
    return float(2 * hits / (predicted + true).clamp_min(torch.finfo(torch.float64).tiny))


def macro_f1(decisions: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Mean over the labels that have positives of each one's F1."""
    hits, predicted, true = _counts(decisions, targets, weights)
    return float(torch.where(true > 0, 2 * hits / (predicted + true), torch.nan).nanmean())


def subset_accuracy(decisions: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Share of the rows whose labels are all right."""
    return _row_mean((decisions == targets).all(1).double(), weights)


def hamming_loss(decisions: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Share of the decisions that are wrong."""
    return _row_mean((decisions != targets).double().mean(1), weights)


def precision_at(k: int, scores: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """P@k: share of true labels among the k with the highest scores of each row; ties go to the earlier label."""
    if k > scores.shape[1]:
        return float("nan")
    return _row_mean(targets.gather(1, ranked_labels(scores, k)).double().mean(1), weights)


def best_threshold(scores: Tensor, targets: Tensor) -> float:
    """The threshold of float32 scores with the highest micro-F1, infinite without a positive: see `tune_threshold`."""
    return tune_threshold(ScoredLabels.of(scores, targets)).threshold if targets.any() else float("inf")


def _counts(decisions: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Per label: true positives, predicted positives, positives; each (L,) float64."""
    weights = torch.ones(len(targets), dtype=torch.float64) if weights is None else weights.double()
    return (
        weights @ (decisions & targets).double(),
        weights @ decisions.double(),
        weights @ targets.double(),
    )


def _row_mean(values: Tensor, weights: Tensor | None) -> float:
    return float(values.mean() if weights is None else (values @ weights.double()) / weights.sum())
