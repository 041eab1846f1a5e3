"""Metrics of scores that are all at hand, with row weights, so that a bootstrap can weigh the rows anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lopsided.metrics.batch import Batch
from lopsided.metrics.counts import known_counts, label_counts, row_sums
from lopsided.metrics.exact_scores import ExactScores, label_lists
from lopsided.metrics.lists import Array, average_precision, list_keys, one_list, sorted_lists
from lopsided.metrics.scores import Judged
from lopsided.metrics.summary import Summary
from lopsided.metrics.top_k import top_k_sums
from lopsided.metrics.truth import Truth, places


@dataclass(frozen=True)
class Weighable:
    """Scores with the truth, and decisions in their shape: any row weights make a `Summary` of them.

    What does not depend on the weights, such as the sorting, is done once. ks: the ranks k of P@k and nDCG@k.
    truth: needed where the scores are of candidates, among which not all positives are. propensity: (L,), for PSP@k.
    """

    judged: Judged
    decided: Tensor | None = None
    ks: Sequence[int] = (1, 3, 5)
    truth: Truth | None = None
    propensity: Tensor | None = None

    def summary(self, row_weights: Tensor | None = None) -> Summary:
        """Returns all but AUROC, calibration and AP of one list. row_weights: (n,) not negative, None for ones."""
        w = None if row_weights is None else row_weights.double().numpy()
        sums = {
            "labels": lambda: label_counts(self._truth, self._decided, w),
            "rows": lambda: row_sums(self._truth, self._decided, w),
            "known": lambda: known_counts(self._truth, w),
            "top": lambda: top_k_sums(self._top, self._truth, self.ks, self.propensity, row_weights).numpy(),
        }

        def precision() -> Array:
            if self.judged.scores.columns is not None:
                return np.full(self.judged.num_labels, np.nan)
            return label_precision(self.judged) if w is None else self._ranking.average_precision(w)

        return Summary(_OnDemand(sums), _OnDemand({"average_precision": precision}), ks=self.ks)

    @cached_property
    def _truth(self) -> Truth:
        if self.truth is not None:
            return self.truth
        known = self.judged.known
        rows, labels = self.judged.hits.shape
        return Truth(rows, labels, places(self.judged.hits), places(None if known is None else ~known))

    @cached_property
    def _decided(self) -> Array:
        if self.decided is None:
            return places(None)
        known = self.judged.known
        return self.judged.scores.places(self.decided if known is None else self.decided & known)

    @cached_property
    def _top(self) -> Tensor:
        scores = self.judged.scores
        if scores.columns is not None:  # unknown labels last
            values = (
                scores.values
                if self.judged.known is None
                else scores.values.masked_fill(~self.judged.known, -torch.inf)
            )
            best = values.sort(dim=1, descending=True, stable=True)
            return scores.columns.gather(1, best.indices).masked_fill(best.values.isinf(), scores.num_labels)
        batch = Batch(self._truth, self.judged.scores.values.numpy()).without_unknown()
        return torch.from_numpy(batch.top(max(self.ks)))

    @cached_property
    def _ranking(self) -> Ranking:
        return Ranking.of(self.judged)


def label_precision(judged: Judged) -> Array:
    """Returns (L,) float64 average precision of scores of all labels, NaN for a label without positives."""
    values = judged.scores.values.numpy()
    if judged.known is not None:
        values = np.where(judged.known.numpy(), values, np.nan)
    lists = label_lists([ExactScores(values, places(judged.hits))], judged.num_labels)
    return np.array([one_list(keys, true, len(keys), len(true)).average_precision()[0] for keys, true in lists])


@dataclass(frozen=True)
class Ranking:
    """Average precision of every label, with the sorting done once and for all weights."""

    order: Array  # (L, N) rows by falling score
    row: Array  # (P,) the row of each positive, label by label and by falling score
    label: Array  # (P,) its label
    upto: Array  # (P,) where the rows that score at least as much end, in `order`
    hits: Array  # (P,) where those of them that are positive end, in the positives of all labels
    known: Array | None  # (L, N) bool, of which rows the label is known, in `order`

    @classmethod
    def of(cls, judged: Judged) -> Ranking:
        values = judged.scores.values.T.contiguous().numpy()
        keys = list_keys(values, np.arange(len(values))[:, None])
        order = keys.argsort(axis=1)
        label, place = np.nonzero(np.take_along_axis(judged.hits.T.numpy(), order, axis=1))
        row = order[label, place]
        ranks = sorted_lists(np.take_along_axis(keys, order, axis=1).reshape(-1), keys[label, row], *keys.shape)
        first = ranks.positives.cumsum() - ranks.positives
        known = None if judged.known is None else np.take_along_axis(judged.known.T.numpy(), order, axis=1)
        return cls(order, row, label, ranks.upto, ranks.hits + first[label], known)

    def average_precision(self, row_weights: Array) -> Array:
        """Returns (L,) float64, NaN for a label without positives among the weighted rows."""
        labels = len(self.order)
        hit = row_weights[self.row]
        weights = row_weights[self.order]
        above = (weights if self.known is None else weights * self.known).cumsum(1)[self.label, self.upto - 1]
        total = np.bincount(self.label, hit, labels)
        before = (total.cumsum() - total)[self.label]
        precision = np.where(hit > 0, (hit.cumsum()[self.hits - 1] - before) / np.where(hit > 0, above, 1), 0.0)
        return average_precision(self.label, precision, labels, hit)


class _OnDemand(dict[str, Array]):
    """Arrays by name, each made when it is first asked for."""

    def __init__(self, makers: Mapping[str, Callable[[], Array]]) -> None:
        super().__init__()
        self._makers = makers

    def __missing__(self, name: str) -> Array:
        if name not in self._makers:
            raise ValueError(
                f"{name} is not made with row weights, only {', '.join(self._makers)}: see MultiLabelMetrics"
            )
        self[name] = value = self._makers[name]()
        return value
