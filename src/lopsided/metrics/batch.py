"""Scores and truth of some rows, whatever they came as, checked: what a collection of metrics adds up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lopsided.compute.topk import top_of
from lopsided.metrics.lists import Array, ListRanks, dense_lists, list_keys, stored_lists
from lopsided.metrics.scores import Scores
from lopsided.metrics.truth import Truth, member

SCALES = ("logits", "probabilities")
_PART = 1 << 20  # scores that are worked on at a time


@dataclass(frozen=True)
class Batch:
    """Some rows. An entry is known by its place, row * labels + label."""

    truth: Truth
    scores: Array  # (rows, labels), or (E,) of the stored entries; float32 or float64
    places: Array | None = None  # (E,) int64, the places of the stored entries, rising; None where all are given

    @property
    def rows(self) -> int:
        return self.truth.rows

    @property
    def labels(self) -> int:
        return self.truth.labels

    @property
    def true(self) -> Array:
        return self.truth.true

    def parts(self) -> Iterator[Batch]:
        """Yields few rows at a time; stored entries stay together."""
        if self.places is not None:
            yield self
            return
        step = max(1, _PART // self.labels)
        for low in range(0, self.rows, step):
            high = min(low + step, self.rows)
            yield Batch(self.truth.of_rows(low, high), self.scores[low:high])

    def without_unknown(self) -> Batch:
        """Returns the same where all labels are known; else only the entries of known labels, as if stored."""
        if not len(self.truth.unknown):
            return self
        places = np.arange(self.rows * self.labels) if self.places is None else self.places
        known = ~member(places, self.truth.unknown)
        return replace(self, scores=self.scores.reshape(-1)[known], places=places[known])

    def stored_true(self) -> Array:
        """Returns (E,) bool: which stored entries are positive?"""
        assert self.places is not None
        return member(self.places, self.true)

    def row_ranks(self) -> ListRanks:
        """Takes every row as a list of its known labels; for a batch `without_unknown`."""
        if self.places is None:
            return dense_lists(self.scores, *np.divmod(self.true, self.labels))
        rows = self.places // self.labels
        positives = np.bincount(self.true // self.labels, minlength=self.rows)
        lengths = self.labels - np.bincount(self.truth.unknown // self.labels, minlength=self.rows)
        return stored_lists(rows, self.scores, self.stored_true(), lengths, positives)

    def top(self, k: int) -> Array:
        """Returns (rows, k) labels by falling score, of equal ones the lower first; `labels` where none is left."""
        top = np.full((self.rows, k), self.labels)
        if self.places is None:
            best = top_of(torch.from_numpy(self.scores), min(k, self.labels))[1].numpy()
            top[:, : best.shape[1]] = best
            return top
        rows, labels = np.divmod(self.places, self.labels)
        order = np.argsort(list_keys(self.scores, rows), kind="stable")
        rank = np.arange(len(rows)) - rows.searchsorted(np.arange(self.rows))[rows]  # rows rise in either order
        first = rank < k
        top[rows[first], rank[first]] = labels[order[first]]
        return top

    def dense_scores(self, rest: float) -> Tensor:
        """Returns (rows, labels), with `rest` for entries that are not stored."""
        if self.places is None:
            return torch.from_numpy(self.scores)
        scores = np.full(self.rows * self.labels, rest, self.scores.dtype)
        scores[self.places] = self.scores
        return torch.from_numpy(scores.reshape(self.rows, self.labels))


def read_batch(scores: Scores, truth: Truth, scale: str) -> Batch:
    """Returns a batch whose shapes, and scores of known labels on the scale, are checked."""
    values = scores.values.detach().cpu()
    values = (values if values.dtype == torch.float64 else values.float()).contiguous()
    if scores.columns is None:
        _check_scale(values, truth, scale)
        return Batch(truth, values.numpy())
    columns = scores.columns.cpu()
    listed = columns != scores.num_labels
    labels, values = columns[listed], values[listed]
    _check_scale(values, None, scale)
    places = (torch.repeat_interleave(listed.sum(1)) * scores.num_labels + labels).numpy()
    order = places.argsort()
    places = places[order]
    if not (np.diff(places) > 0).all():
        raise ValueError(f"sparse scores must name each of the labels [0, {scores.num_labels}) once in a row at most")
    return Batch(truth, values.numpy()[order], places)


def _check_scale(values: Tensor, truth: Truth | None, scale: str) -> None:
    if not values.numel():
        return
    low, high = (bound.item() for bound in values.aminmax())
    if truth is not None and len(truth.unknown) and not (low >= 0 and high <= 1):
        # scores of unknown labels may be anything
        known = np.ones(values.numel(), bool)
        known[truth.unknown] = False
        return _check_scale(values.flatten()[torch.from_numpy(known)], None, scale)
    if low != low:
        raise ValueError(f"{int(values.isnan().sum())} of {values.numel()} scores are NaN: has the training diverged?")
    if scale == "probabilities" and not (low >= 0 and high <= 1):
        raise ValueError(f'probabilities must lie in [0, 1], got {low:g} to {high:g}: for logits, say scale="logits"')
