"""Scores of validation rows with the truth beside them: of all labels, or of the best candidates of each row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lopsided.targets import SparseTargets


@dataclass(frozen=True)
class ScoredLabels:
    """What decision rules and calibrators are fitted to.

    scores: (n, L) float of all labels, or (n, k) of k candidates a row; finite. hits: bool in the same shape, whether
    the label is true. labels: (n, k) int64, the label that each score is of, or None where column l is label l.
    positives: (L,) int64, the rows that have each label, found among the candidates or not.
    Made by `of` and `of_candidates`, which check.

    >>> scored = ScoredLabels.of(torch.tensor([[2.0, -1.0], [0.5, 3.0]]), torch.tensor([[1, 0], [0, 1]]))
    >>> scored.positives
    tensor([1, 1])
    """

    scores: Tensor
    hits: Tensor
    labels: Tensor | None
    positives: Tensor

    @classmethod
    def of(cls, scores: Tensor, targets: Tensor) -> ScoredLabels:
        """From (n, L) scores and (n, L) targets, bool or 0 and 1. Raises ValueError where they do not fit."""
        if targets.shape != scores.shape:
            raise ValueError(f"scores {tuple(scores.shape)} and targets {tuple(targets.shape)} must have one shape")
        if not ((targets == 0) | (targets == 1)).all():
            raise ValueError("targets must be 0 or 1: rows with soft or unknown labels cannot judge a decision")
        hits = targets.bool()
        return cls(_as_float32(scores), hits, None, hits.sum(0))

    @classmethod
    def of_candidates(cls, scores: Tensor, labels: Tensor, truth: SparseTargets, num_labels: int) -> ScoredLabels:
        """From (n, k) scores of (n, k) labels and the true labels of the n rows, each listed once."""
        if labels.shape != scores.shape or len(truth.crow) != len(scores) + 1:
            raise ValueError(
                f"scores {tuple(scores.shape)}, labels {tuple(labels.shape)} and the truth of {len(truth.crow) - 1} "
                "rows do not fit"
            )
        row = torch.repeat_interleave(truth.crow.diff())
        width = 1 + int(max(labels.max(), truth.col.max() if len(truth.col) else 0))
        hits = torch.isin(torch.arange(len(labels))[:, None] * width + labels, row * width + truth.col)
        known = truth.col[truth.col < num_labels]
        return cls(_as_float32(scores), hits, labels, torch.bincount(known, minlength=num_labels))

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def num_labels(self) -> int:
        return len(self.positives)

    @cached_property
    def found(self) -> Tensor:
        """(L,) int64, the positives of each label among the scores: all, unless there are only candidates."""
        return self.positives if self.labels is None else self.sum(self.hits.long())

    def together(self) -> ScoredLabels:
        """All as if of one label."""
        one = self.positives.sum()[None]
        return ScoredLabels(self.scores.reshape(-1, 1), self.hits.reshape(-1, 1), None, one)

    def parts(self, entries: int = 2**22) -> Iterator[ScoredLabels]:
        """Ranges of labels, one after the other, each of about that many scores; candidates are few and stay whole."""
        width = self.num_labels if self.labels is not None else max(1, entries // len(self))
        for low in range(0, self.num_labels, width):
            if self.labels is not None:
                yield self
            else:
                part = slice(low, low + width)
                yield ScoredLabels(self.scores[:, part], self.hits[:, part], None, self.positives[part])

    def by_label(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Every label with its scores and hits."""
        if self.labels is None:
            yield from ((label, self.scores[:, label], self.hits[:, label]) for label in range(self.num_labels))
            return
        order = self.labels.flatten().argsort()
        lengths = torch.bincount(self.labels.flatten(), minlength=self.num_labels).tolist()
        scores, hits = (each.flatten()[order].split(lengths) for each in (self.scores, self.hits))
        yield from zip(range(self.num_labels), scores, hits, strict=True)

    def sum(self, values: Tensor) -> Tensor:
        """Values in the shape of the scores -> (L,) their sum over the rows."""
        if self.labels is None:
            return values.sum(0)
        return values.new_zeros(self.num_labels).index_add_(0, self.labels.flatten(), values.flatten())


def at(per_label: Tensor, labels: Tensor | None) -> Tensor:
    """(L,) numbers of labels, to be broadcast with scores: of all labels if None, else (n, k) of these."""
    return per_label if labels is None else per_label[labels]


def _as_float32(scores: Tensor) -> Tensor:
    if scores.ndim != 2 or not scores.is_floating_point() or not scores.numel():
        raise ValueError(f"scores must be floats, (rows, labels), got {scores.dtype} {tuple(scores.shape)}")
    exact = scores.detach().float()
    finite = exact.isfinite()
    if not finite.all():
        raise ValueError(f"{int((~finite).sum())} of {scores.numel()} scores are NaN or infinite in float32")
    return exact
