"""Defines the rows that `lopsided fit` trains on, and reads them from files of sparse features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lopsided.data.formats import svmlight
from lopsided.data.inputs import SparseFeatures, csr_entries
from lopsided.data.opening import OnBytes, ignore
from lopsided.data.options import ReadOptions
from lopsided.targets import SparseTargets


@dataclass(frozen=True)
class SparseRows:
    """Holds rows of sparse features with their labels, both as compressed sparse rows.

    indptr: (rows + 1,) int64; row i owns the entries indptr[i] to indptr[i + 1] of indices and values.
    indices: (entries,) int64 feature numbers, each once a row. values: (entries,) float32, finite.
    labels: crow (rows + 1,) and col int64, each label once a row.

    >>> rows = SparseRows(
    ...     torch.tensor([0, 2, 3]), torch.tensor([4, 1, 3]), torch.tensor([3.0, 4.0, 1.0]), num_features=5,
    ...     labels=SparseTargets(torch.tensor([0, 1, 1]), torch.tensor([2]), num_labels=3),
    ... )  # fmt: skip
    >>> (indices, offsets, weights), labels = rows.unit_length().batch(torch.tensor([1, 0]))
    >>> indices, offsets, weights
    (tensor([3, 4, 1]), tensor([0, 1]), tensor([1.0000, 0.6000, 0.8000]))
    >>> labels.crow
    tensor([0, 0, 1])
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    num_features: int
    labels: SparseTargets
    declared: bool = False  # do the numbers of features and labels come from a header?

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_labels(self) -> int:
        assert self.labels.num_labels is not None
        return self.labels.num_labels

    def label_counts(self) -> Tensor:
        """Counts, (num_labels,) int64, the rows with each label."""
        return torch.bincount(self.labels.col, minlength=self.num_labels)

    def unit_length(self) -> SparseRows:
        """Returns the same with every row scaled to unit Euclidean length; a row of zeros stays as it is."""
        row = torch.repeat_interleave(self.indptr.diff())
        squares = torch.zeros(len(self), dtype=torch.float64).index_add_(0, row, self.values.double().square())
        scale = torch.where(squares > 0, squares.rsqrt(), 1.0)
        return replace(self, values=(self.values * scale[row]).float())

    def batch(self, rows: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], SparseTargets]:
        """Returns (indices, offsets, per_sample_weights) of an `nn.EmbeddingBag`, and labels, of (n,) row numbers."""
        indptr, entries = csr_entries(self.indptr, rows)
        crow, listed = csr_entries(self.labels.crow, rows)
        labels = SparseTargets(crow, self.labels.col[listed], num_labels=self.num_labels)
        return (self.indices[entries], indptr[:-1], self.values[entries]), labels

    def take(self, rows: Tensor) -> SparseRows:
        """Returns some of the rows, by (n,) number."""
        (indices, offsets, values), labels = self.batch(rows)
        indptr = torch.cat([offsets, torch.tensor([len(indices)])])
        return SparseRows(indptr, indices, values, self.num_features, labels)

    def fitted_to(self, num_features: int, num_labels: int) -> SparseRows:
        """Returns the same for a model with that many features and labels.

        Without a header, rows of validation or test may have features that no training row had: they are left out,
        and labels that none had stay, which no model can find. A header must say what that of the training rows said.
        """
        if self.declared:
            sizes = (self.num_features, self.num_labels)
            if sizes != (num_features, num_labels):
                raise ValueError(
                    f"its header says {sizes[0]} features and {sizes[1]} labels, but the training rows have "
                    f"{num_features} and {num_labels}"
                )
            return self
        known = self.indices < num_features
        indptr = torch.nn.functional.pad(known.cumsum(0), (1, 0))[self.indptr]
        labels = replace(self.labels, num_labels=max(num_labels, self.num_labels))
        return SparseRows(indptr, self.indices[known], self.values[known], num_features, labels)


def read_sparse(path: Path, on_bytes: OnBytes = ignore) -> SparseRows:
    """Reads a file of the svmlight or of the extreme-classification format, see `formats.svmlight`."""
    data = svmlight.read(path, ReadOptions(), on_bytes)
    rows = data.inputs
    assert isinstance(rows, SparseFeatures)
    return SparseRows(rows.indptr, rows.indices, rows.values, rows.num_features, data.targets, rows.declared)
