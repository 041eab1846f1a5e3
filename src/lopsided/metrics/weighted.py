"""Metrics of scores that are all at hand, with row weights, so that a bootstrap can weigh the rows anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lopsided.metrics.batch import Batch
from lopsided.metrics.counts import known_counts, label_counts, row_sums
from lopsided.metrics.exact_scores import ExactScores, label_lists
from lopsided.metrics.lists import Array, ListRanks, average_precision, list_keys, one_list, ratio, sorted_lists
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
        """Returns all but calibration, and AP and AUROC of one list. row_weights: (n,) not negative, None for ones."""
        return self._plain if row_weights is None else self._summary(row_weights)

    @cached_property
    def _plain(self) -> Summary:
        return self._summary(None)

    def _summary(self, row_weights: Tensor | None) -> Summary:
        w = None if row_weights is None else row_weights.double().numpy()
        sums = {
            "labels": lambda: label_counts(self._truth, self._decided, w),
            "rows": lambda: row_sums(self._truth, self._decided, w),
            "known": lambda: known_counts(self._truth, w),
            "top": lambda: top_k_sums(self._top, self._truth, self.ks, self.propensity, row_weights).numpy(),
        }

        def ranked(name: str) -> Array:
            if self.judged.scores.columns is not None:
                return np.full(self.judged.num_labels, np.nan)
            if w is None:
                return self._ranked_labels[name]
            of_weights: dict[str, Callable[[Array], Array]] = {
                "average_precision": self._ranking.average_precision,
                "auroc": self._ranking.auroc,
            }
            return of_weights[name](w)

        table = {name: partial(ranked, name) for name in ("average_precision", "auroc")}
        return Summary(_OnDemand(sums), _OnDemand(table), ks=self.ks)

    @cached_property
    def _ranked_labels(self) -> dict[str, Array]:
        return ranked_labels(self.judged)

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


def ranked_labels(judged: Judged) -> dict[str, Array]:
    """Returns (L,) float64 "average_precision" and "auroc" of scores of all labels, NaN where they are undefined."""
    values = judged.scores.values.numpy()
    if judged.known is not None:
        values = np.where(judged.known.numpy(), values, np.nan)
    lists = label_lists([ExactScores(values, places(judged.hits))], judged.num_labels)
    values = np.empty((2, judged.num_labels))
    for label, (keys, true) in enumerate(lists):
        ranks = one_list(keys, true, int(judged.rows[label]), len(true))
        values[:, label] = ranks.average_precision()[0], ranks.auroc()[0]
    return dict(zip(("average_precision", "auroc"), values, strict=True))


@dataclass(frozen=True)
class Ranking:
    """Average precision and AUROC of every label, with the sorting done once and for all weights."""

    order: Array  # (L, N) rows by falling score
    known: Array | None  # (L, N) bool, of which rows the label is known, in `order`
    row: Array  # (P,) the row of each positive, label by label and by falling score
    ranks: ListRanks  # of the positives; a list is a label

    @classmethod
    def of(cls, judged: Judged) -> Ranking:
        values = judged.scores.values.T.contiguous().numpy()
        keys = list_keys(values, np.arange(len(values))[:, None])
        order = keys.argsort(axis=1)
        label, place = np.nonzero(np.take_along_axis(judged.hits.T.numpy(), order, axis=1))
        row = order[label, place]
        ranks = sorted_lists(np.take_along_axis(keys, order, axis=1).reshape(-1), keys[label, row], *keys.shape)
        known = None if judged.known is None else np.take_along_axis(judged.known.T.numpy(), order, axis=1)
        return cls(order, known, row, ranks)

    def average_precision(self, row_weights: Array) -> Array:
        """Returns (L,) float64, NaN for a label without positives among the weighted rows."""
        hit, rows = row_weights[self.row], self._rows_before(row_weights, self._upto)
        precision = np.where(hit > 0, self._hits(hit, self.ranks.hits) / np.where(hit > 0, rows, 1), 0.0)
        return average_precision(self.ranks.list, precision, len(self.order), hit)

    def auroc(self, row_weights: Array) -> Array:
        """Returns (L,) float64, NaN for a label without positives or negatives among the weighted rows."""
        hit = row_weights[self.row]
        negatives = np.zeros(len(hit))
        for cuts, better in ((self._above, self.ranks.better), (self._upto, self.ranks.hits)):
            negatives += (self._rows_before(row_weights, cuts) - self._hits(hit, better)) / 2  # a tie counts by half
        positives = self.ranks.sum(hit)
        return 1 - ratio(self.ranks.sum(hit * negatives), positives * (self._ordered(row_weights).sum(1) - positives))

    def _ordered(self, row_weights: Array) -> Array:
        weights = row_weights[self.order]
        return weights if self.known is None else weights * self.known

    def _rows_before(self, row_weights: Array, cuts: Cuts) -> Array:
        """Returns (P,), the weight of the first rows of a label, as many as the cuts of each positive say."""
        sums = np.add.reduceat(self._ordered(row_weights).reshape(-1), cuts.places)
        running = np.concatenate([[0.0], sums.cumsum()])
        rows: Array = running[cuts.stop] - running[cuts.start]
        return rows

    def _hits(self, hit: Array, better: Array) -> Array:
        """Returns (P,), the weight of the first `better` positives of a label; hit: that of each positive."""
        running = np.concatenate([[0.0], hit.cumsum()])
        first = (self.ranks.positives.cumsum() - self.ranks.positives)[self.ranks.list]
        weight: Array = running[first + better] - running[first]
        return weight

    @cached_property
    def _above(self) -> Cuts:
        return Cuts.at(self.ranks.above, self.ranks.list, *self.order.shape)

    @cached_property
    def _upto(self) -> Cuts:
        return Cuts.at(self.ranks.upto, self.ranks.list, *self.order.shape)


class Cuts(NamedTuple):
    """Says where lists, one after the other, are cut, so that items between two cuts are added up at once.

    Positives are rare: a running sum of all items is held nowhere. places: rising, from 0 on. start, stop: (P,), the
    numbers of two cuts, between which there are the first items of a list.
    """

    places: Array
    start: Array
    stop: Array

    @classmethod
    def at(cls, counts: Array, of: Array, lists: int, length: int) -> Cuts:
        """Cuts lists of that length before their start and after the first `counts` items of the lists `of`."""
        stop = of * length + counts
        places = np.unique(np.concatenate([np.arange(lists + 1) * length, stop]))
        return cls(places[:-1], places.searchsorted(of * length), places.searchsorted(stop))


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
