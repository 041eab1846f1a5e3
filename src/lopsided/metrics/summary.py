"""What metrics are made of: sums over rows, which add up over batches, ranks and the row weights of a bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lopsided.metrics.batch import Batch
from lopsided.metrics.counts import ROW_SUMS, Counts, Sums, known_counts, label_counts, row_sums
from lopsided.metrics.lists import Array, ratio
from lopsided.metrics.top_k import top_k_sums, top_k_values
from lopsided.metrics.truth import member

COCO = 3  # labels of the second half of the COCO tables


@dataclass(frozen=True)
class Summary:
    """What metrics are made of.

    sums: arrays by name, see `add_up`. table: (L,) columns by name, "average_precision" and "auroc" among them.
    micro: the same of all labels as one list. ks: the ranks k that were summed up.
    """

    sums: Mapping[str, Array]
    table: Mapping[str, Array] = field(default_factory=dict)
    micro: Mapping[str, float] = field(default_factory=dict)
    ks: Sequence[int] = ()

    @property
    def labels(self) -> Counts:
        return Counts(*self.sums["labels"])

    @property
    def overall(self) -> Counts:
        return Counts(*self.sums["labels"].sum(1))

    def of_rows(self, name: str) -> float:
        """Returns the mean over the rows of which some label is known."""
        return float(ratio(self.sums["rows"][ROW_SUMS.index(name)], self.sums["rows"][0]))

    def of_rank(self, place: int) -> float:
        return float(ratio(self.sums["row_ranks"][place], self.sums["rows"][0]))

    def top_k(self, name: str) -> float:
        return top_k_values(torch.from_numpy(self.sums["top"]), float(self.sums["rows"][0]), self.ks)[name]

    def mean(self, column: Array, weighted: bool = False) -> float:
        """Averages a column over the labels with a positive where it is defined; NaN without any."""
        positives = self.labels.positives
        defined = (positives > 0) & ~np.isnan(column)
        weights = positives[defined] if weighted else np.ones(defined.sum())
        return float(ratio((column[defined] * weights).sum(), weights.sum()))


def add_up(batch: Batch, decided: Array, ks: Sequence[int], propensity: Tensor | None = None) -> Sums:
    """Returns what adds up over rows, of decisions and rankings of a batch `without_unknown`; decided: places, rising.

    "labels": (3, L) hits, predicted, positives; "top_labels": the same of those among the 3 best of their row; "rows":
    see `ROW_SUMS`; "known": (L,) rows in which each label is known; "top": see `top_k_sums`; "row_ranks": see
    `row_rank_sums`.
    """
    truth, top = batch.truth, batch.top(max(COCO, *ks))
    best = top[:, :COCO]
    best_places = np.sort((np.arange(batch.rows)[:, None] * batch.labels + best)[best < batch.labels])
    return {
        "labels": label_counts(truth, decided),
        "top_labels": label_counts(truth, best_places[member(best_places, decided)]),
        "rows": row_sums(truth, decided),
        "known": known_counts(truth),
        "top": top_k_sums(torch.from_numpy(top), truth, ks, propensity).numpy(),
        "row_ranks": row_rank_sums(batch, ks),
    }


def row_rank_sums(batch: Batch, ks: Sequence[int]) -> Array:
    """Sums rows without labels, LRAP, ranking loss, coverage and nDCG at each k, ties in the mean over orders."""
    ranks = batch.row_ranks()
    discounts = 1 / np.log2(np.arange(2, max(ks) + 2))
    ideal = np.concatenate([[1.0], discounts.cumsum()])  # 0 / 1 without labels
    ndcg = [ranks.gain(discounts[:k]) / ideal[ranks.positives.clip(max=k)] for k in ks]
    lrap = np.nan_to_num(ranks.average_precision(), nan=1.0)  # as scikit-learn has it
    columns = (ranks.positives == 0, lrap, ranks.ranking_loss(), ranks.coverage(), *ndcg)
    known = np.broadcast_to(np.asarray(ranks.length) > 0, batch.rows)
    return np.array([column[known].sum() for column in columns], np.float64)
