"""Scores of rows, of all labels or of the best candidates of each row, and the truth beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lopsided.metrics.lists import Array
from lopsided.metrics.truth import SparseMatrix, Truth, as_targets, as_tensor, places, truth_matrices
from lopsided.targets import SparseTargets


@dataclass(frozen=True)
class Scores:
    """Scores of some rows. What takes `Scores` takes a tensor or an array of the scores of all labels as well.

    values: (n, L) float of all labels, or (n, k) of k candidates a row. columns: (n, k) int64, the label that each
    score is of, `num_labels` where a row has fewer candidates; None where column l is label l. num_labels: L.

    >>> Scores.of([[0.5, 2.0, -1.0]]).num_labels
    3
    """

    values: Tensor
    columns: Tensor | None
    num_labels: int

    @classmethod
    def of(cls, scores: Any, num_labels: int | None = None) -> Scores:
        """Reads a tensor, a numpy array or a list, (n, L); or a CSR tensor or matrix, whose entries are candidates.

        Raises TypeError for what is not floating point, ValueError for other shapes or not `num_labels` labels.
        """
        if isinstance(scores, Scores):
            made = scores
        elif isinstance(scores, SparseMatrix) or (isinstance(scores, Tensor) and scores.layout == torch.sparse_csr):
            made = cls._of_entries(as_targets(scores))
        else:
            values = as_tensor(scores)
            if values.layout != torch.strided:
                raise TypeError(f"sparse scores must be torch.sparse_csr, got {values.layout}: call .to_sparse_csr()")
            made = cls(values, None, values.shape[-1] if values.ndim else 0)
        if not made.values.is_floating_point():
            raise TypeError(f"scores must be a floating point tensor, got {made.values.dtype}")
        if made.values.ndim != 2 or num_labels not in (None, made.num_labels):
            width = "labels" if num_labels is None else f"{num_labels}), as num_labels says"
            shape = (len(made), made.num_labels) if made.values.ndim == 2 else tuple(made.values.shape)
            raise ValueError(f"scores must be (rows, {width}{')' * (num_labels is None)}; got {shape}")
        return made

    @classmethod
    def _of_entries(cls, entries: Tensor | SparseTargets) -> Scores:
        """Pads ragged rows to the longest, with -inf for label `num_labels`, which is none."""
        assert isinstance(entries, SparseTargets)
        assert entries.values is not None
        assert entries.num_labels is not None
        labels = entries.num_labels
        if len(entries.col) and not 0 <= entries.col.min() <= entries.col.max() < labels:  # torch does not look
            raise ValueError(f"sparse scores must name each of the labels [0, {labels}) once in a row at most")
        lengths = entries.crow.diff().long()
        row = torch.repeat_interleave(lengths)
        place = torch.arange(len(row)) - entries.crow.long()[row]
        shape = len(lengths), max(1, int(lengths.max())) if len(lengths) else 1
        values = entries.values.new_full(shape, -torch.inf)
        columns = torch.full(shape, entries.num_labels)
        values[row, place], columns[row, place] = entries.values.detach(), entries.col.long()
        return cls(values, columns, entries.num_labels)

    def __len__(self) -> int:
        return len(self.values)

    def where_listed(self, values: Tensor, rest: float) -> Tensor:
        """Returns values in the shape of the scores, with `rest` where a row has no further candidate."""
        return values if self.columns is None else values.masked_fill(self.columns >= self.num_labels, rest)

    def at(self, per_label: Tensor) -> Tensor:
        """Returns (L,) numbers of labels, to be broadcast with the values."""
        per_label = per_label.to(self.values.device)
        return per_label if self.columns is None else pad(per_label, (0, 1))[self.columns]

    def places(self, chosen: Tensor) -> Array:
        """Maps bool in the shape of the scores to the places, row * L + label, rising, of the chosen entries."""
        if self.columns is None:
            return places(chosen.cpu())
        row, _ = self.where_listed(chosen, False).nonzero(as_tuple=True)
        labels = self.columns[self.where_listed(chosen, False)]
        return np.sort((row * self.num_labels + labels).cpu().numpy())

    def sum(self, values: Tensor) -> Tensor:
        """Maps values in the shape of the scores to (L,) their sum over the rows."""
        if self.columns is None:
            return values.sum(0)
        return values.new_zeros(self.num_labels + 1).index_add_(0, self.columns.flatten(), values.flatten())[:-1]


ScoresLike = Scores | Tensor | Array | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Judged:
    """Scores with the truth: what metrics are computed of, and what rules and calibrators are fitted to.

    hits: bool in the shape of the scores, whether the label is true. positives: (L,) int64, the rows in which each
    label is true, whether it is a candidate or not. rows: (L,) int64, the rows in which it is known. known: bool in the
    shape of the scores, None where all labels are known: what is unknown is neither true nor false, and not looked at.
    Made by `of`, which checks. Scores are finite and float32, on the CPU.

    >>> judged = Judged.of([[2.0, -1.0], [0.5, 3.0]], [[1, 0], [0, float("nan")]])
    >>> judged.positives, judged.rows
    (tensor([1, 0]), tensor([2, 1]))
    """

    scores: Scores
    hits: Tensor
    positives: Tensor
    rows: Tensor
    known: Tensor | None = None

    @classmethod
    def of(cls, scores: Any, targets: Any, mask: Any = None, ignore_index: int | None = None) -> Judged:
        """Joins scores, see `Scores`, with targets as the losses take them, but hard: 0 and 1, dense or sparse.

        NaN, `mask`, (n, L) bool, False, and `ignore_index` mark unknown labels. Raises ValueError for soft targets,
        for shapes that do not fit, and for scores of known labels that are not finite in float32.
        """
        scores = Scores.of(scores)
        targets = as_targets(targets)
        if scores.columns is not None:
            return cls._of_candidates(scores, targets, mask, ignore_index)
        shape = torch.Size(scores.values.shape)
        hits, known = truth_matrices(targets, shape, mask, ignore_index)
        rows = torch.full((shape[1],), shape[0]) if known is None else _column_counts(known)
        return cls(_as_float32(scores, known), hits, _column_counts(hits), rows, known)

    @classmethod
    def _of_candidates(cls, scores: Scores, targets: Any, mask: Any, ignore_index: int | None) -> Judged:
        assert scores.columns is not None
        columns, labels = scores.columns.cpu(), scores.num_labels
        if columns.shape != scores.values.shape:
            raise ValueError(f"scores {tuple(scores.values.shape)} and columns {tuple(columns.shape)} do not fit")
        width = labels
        if isinstance(targets, SparseTargets) and mask is None:  # rows may have labels that the model does not know
            width = max(width, targets.num_labels or 0, 1 + int(targets.col.max()) if len(targets.col) else 0)
            targets = replace(targets, num_labels=None)
        truth = Truth.of(targets, len(scores), width, mask, ignore_index)
        true, unknown = torch.from_numpy(truth.true), torch.from_numpy(truth.unknown)
        place = torch.arange(len(scores))[:, None] * width + columns
        known = (columns < labels) & ~torch.isin(place, unknown)
        hits = torch.isin(place, true) & known
        positives, hidden = (torch.bincount(each % width, minlength=width)[:labels] for each in (true, unknown))
        all_known = None if known.all() else known
        return cls(_as_float32(scores, all_known), hits, positives, len(scores) - hidden, all_known)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def num_labels(self) -> int:
        return self.scores.num_labels

    @cached_property
    def listed_positives(self) -> Tensor:
        """Returns (L,) int64, the positives of each label among the scores: all, unless there are only candidates."""
        return self.positives if self.scores.columns is None else self.scores.sum(self.hits.long())

    def together(self) -> Judged:
        """Returns all entries as if of one label."""
        one, known = Scores(self.scores.values.reshape(-1, 1), None, 1), self.known
        count = torch.tensor([one.values.numel()] if known is None else [int(known.sum())])
        known = None if known is None else known.reshape(-1, 1)
        return Judged(one, self.hits.reshape(-1, 1), self.positives.sum()[None], count, known)

    def parts(self, entries: int = 2**22) -> Iterator[Judged]:
        """Yields ranges of labels, each of about that many scores; candidates are few and stay together."""
        if self.scores.columns is not None:
            yield self
            return
        width = max(1, entries // len(self))
        for low in range(0, self.num_labels, width):
            part = slice(low, low + width)
            values = self.scores.values[:, part]
            known = None if self.known is None else self.known[:, part]
            scores = Scores(values, None, values.shape[1])
            yield Judged(scores, self.hits[:, part], self.positives[part], self.rows[part], known)

    def split(self, rows: int) -> Iterator[Judged]:
        """Yields so many rows at a time; the counts of labels stay those of all."""
        columns, known = (None if each is None else each.split(rows) for each in (self.scores.columns, self.known))
        for place, values in enumerate(self.scores.values.split(rows)):
            scores = Scores(values, None if columns is None else columns[place], self.num_labels)
            hits = self.hits[place * rows : (place + 1) * rows]
            yield replace(self, scores=scores, hits=hits, known=None if known is None else known[place])

    def by_label(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Returns the known scores and hits of every label."""
        values, hits, known = self.scores.values, self.hits, self.known
        if self.scores.columns is None:
            for label in range(self.num_labels):
                chosen = slice(None) if known is None else known[:, label]
                yield values[chosen, label], hits[chosen, label]
            return
        chosen = torch.ones_like(hits) if known is None else known
        columns = self.scores.columns[chosen]
        order = columns.argsort()
        lengths = torch.bincount(columns, minlength=self.num_labels).tolist()
        yield from zip(*(each[chosen][order].split(lengths) for each in (values, hits)), strict=True)

    def sum(self, values: Tensor) -> Tensor:
        """Maps values in the shape of the scores to (L,) their sum over the rows in which each label is known."""
        return self.scores.sum(values if self.known is None else torch.where(self.known, values, 0))


def _column_counts(chosen: Tensor) -> Tensor:
    """Maps (n, L) bool to (L,) int64, as torch counts, which takes ten times as long."""
    return torch.from_numpy(np.count_nonzero(chosen.numpy(), axis=0))


def _as_float32(scores: Scores, known: Tensor | None) -> Scores:
    values = scores.values.detach().float().cpu()
    if not values.numel():
        raise ValueError(f"scores must be floats, (rows, labels), got {scores.values.dtype} {tuple(values.shape)}")
    columns = None if scores.columns is None else scores.columns.cpu()
    if not all(math.isfinite(bound) for bound in values.aminmax()):
        finite = values.isfinite()
        wrong = ~finite if known is None else ~finite & known
        if wrong.any():
            raise ValueError(f"{int(wrong.sum())} of {values.numel()} scores are NaN or infinite in float32")
        values = values.masked_fill(~finite, 0.0)
    return replace(scores, values=values, columns=columns)
