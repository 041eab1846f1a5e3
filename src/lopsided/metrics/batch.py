"""Scores and truth of some rows, whatever they came as, checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lopsided.compute.topk import ranked_labels
from lopsided.metrics.lists import Array, Ranks, dense_lists, list_keys, stored_lists
from lopsided.targets import SparseTargets, Supervision
from lopsided.targets.checks import check_inputs, check_values

SCALES = ("logits", "probabilities")
_PART = 1 << 20  # scores that are worked on at a time


@dataclass(frozen=True)
class Batch:
    """Some rows. An entry is known by its place, row * labels + label."""

    rows: int
    labels: int
    true: Array  # (P,) int64, the places of the positives, rising
    scores: Array  # (rows, labels), or (E,) of the stored entries; float32 or float64
    places: Array | None = None  # (E,) int64, the places of the stored entries, rising; None where all are given

    def parts(self) -> Iterator[Batch]:
        """Few rows at a time; stored entries stay together."""
        if self.places is not None:
            yield self
            return
        step = max(1, _PART // self.labels)
        for low in range(0, self.rows, step):
            high = min(low + step, self.rows)
            first, last = self.true.searchsorted([low * self.labels, high * self.labels])
            true = self.true[first:last] - low * self.labels
            yield Batch(high - low, self.labels, true, self.scores[low:high])

    def stored_true(self) -> Array:
        """(E,) bool: which stored entries are positive?"""
        assert self.places is not None
        return member(self.places, self.true)

    def positives_of_rows(self) -> Array:
        return np.bincount(self.true // self.labels, minlength=self.rows)

    def row_ranks(self) -> Ranks:
        """Every row a list of all labels."""
        if self.places is None:
            return dense_lists(self.scores, *np.divmod(self.true, self.labels))
        rows = self.places // self.labels
        return stored_lists(rows, self.scores, self.stored_true(), self.labels, self.positives_of_rows())

    def top(self, k: int) -> Array:
        """(rows, k) labels by falling score, of equal ones the lower first; where none is left, number `labels`."""
        top = np.full((self.rows, k), self.labels)
        if self.places is None:
            best = ranked_labels(torch.from_numpy(self.scores), min(k, self.labels)).numpy()
            top[:, : best.shape[1]] = best
            return top
        rows, labels = np.divmod(self.places, self.labels)
        order = np.argsort(list_keys(self.scores, rows), kind="stable")
        rank = np.arange(len(rows)) - rows.searchsorted(np.arange(self.rows))[rows]  # rows rise in either order
        kept = rank < k
        top[rows[kept], rank[kept]] = labels[order[kept]]
        return top

    def dense_scores(self, rest: float) -> Tensor:
        """(rows, labels), with `rest` for entries that are not stored."""
        if self.places is None:
            return torch.from_numpy(self.scores)
        scores = np.full(self.rows * self.labels, rest, self.scores.dtype)
        scores[self.places] = self.scores
        return torch.from_numpy(scores.reshape(self.rows, self.labels))


def member(places: Array, among: Array) -> Array:
    """bool: which places are in the other, rising ones?"""
    if not len(among):
        return np.zeros(len(places), bool)
    found: Array = among[among.searchsorted(places).clip(max=len(among) - 1)] == places
    return found


def read_batch(scores: Tensor, targets: Tensor | SparseTargets, num_labels: int, scale: str) -> Batch:
    """Checked: shapes, scores on the scale, targets 0 or 1."""
    _check_scores(scores, num_labels)
    scores = scores.detach().cpu()
    true = _true(targets, torch.Size(scores.shape))
    values = scores.values() if scores.layout == torch.sparse_csr else scores
    values = (values if values.dtype == torch.float64 else values.float()).contiguous()
    _check_scale(values, scale)
    if scores.layout != torch.sparse_csr:
        return Batch(len(scores), num_labels, true, values.numpy())
    rows, labels = torch.repeat_interleave(scores.crow_indices().diff()), scores.col_indices()
    places = (rows.long() * num_labels + labels).numpy()
    order = places.argsort()
    places = places[order]
    if ((labels < 0) | (labels >= num_labels)).any() or not (np.diff(places) > 0).all():  # torch does not look
        raise ValueError(f"sparse scores must name each of the labels [0, {num_labels}) once in a row at most")
    return Batch(len(scores), num_labels, true, values.numpy()[order], places)


def _check_scores(scores: Tensor, num_labels: int) -> None:
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        kind = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"scores must be a floating point tensor, got {kind}")
    if scores.layout not in (torch.strided, torch.sparse_csr):
        raise TypeError(f"sparse scores must be torch.sparse_csr, got {scores.layout}: call scores.to_sparse_csr()")
    if scores.ndim != 2 or scores.shape[1] != num_labels:
        raise ValueError(f"scores must be (rows, {num_labels}), as num_labels says; got {tuple(scores.shape)}")


def _check_scale(values: Tensor, scale: str) -> None:
    if not values.numel():
        return
    low, high = (bound.item() for bound in values.aminmax())
    if low != low:
        raise ValueError(f"{int(values.isnan().sum())} of {values.numel()} scores are NaN: has the training diverged?")
    if scale == "probabilities" and not (low >= 0 and high <= 1):
        raise ValueError(f'probabilities must lie in [0, 1], got {low:g} to {high:g}: for logits, say scale="logits"')


def _true(targets: Tensor | SparseTargets, shape: torch.Size) -> Array:
    """The places of the positives, rising."""
    if isinstance(targets, Tensor) and targets.layout == torch.strided:
        if targets.shape != shape:
            raise ValueError(f"targets have shape {tuple(targets.shape)} but scores {tuple(shape)}")
        _check_binary(targets)
        return np.flatnonzero((targets != 0).cpu().numpy())
    labels = Supervision.of(targets.to("cpu") if isinstance(targets, Tensor | SparseTargets) else targets)
    stand_in = torch.zeros(()).expand(shape)  # only its shape is looked at
    check_inputs(stand_in, labels)
    check_values(stand_in, labels)
    assert labels.crow is not None
    assert labels.col is not None
    rows = torch.repeat_interleave(labels.crow.diff())
    places = rows.long() * shape[1] + labels.col
    if labels.values is not None:
        _check_binary(labels.values)
        places = places[labels.values != 0]
    return np.unique(places.numpy())


def _check_binary(targets: Tensor) -> None:
    if targets.dtype != torch.bool and not ((targets == 0) | (targets == 1)).all():
        wrong = targets[(targets != 0) & (targets != 1)]
        raise ValueError(f"targets must be 0 or 1 to be evaluated, got {wrong[0].item():g} and {len(wrong) - 1} more")
