"""Sparse targets: the positive labels of each row."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lopsided.targets.checks import has_values


@dataclass(frozen=True)
class SparseTargets:
    """The positive labels of each row, in compressed sparse rows (CSR). Labels that are not listed are negative.

    Args:
        crow: (rows + 1,) integer; row b owns the entries crow[b] to crow[b + 1].
        col: (entries,) integer, the label of each entry. A label listed twice in a row counts once.
        values: (entries,) in [0, 1], soft targets of the listed labels, NaN where unknown; ones when left out.
        num_labels: L, if it should be checked.

    Rows are the leading dimensions of the logits, flattened.

    >>> SparseTargets.from_indices(torch.tensor([[2, 0], [1, -1]])).col
    tensor([2, 0, 1])
    """

    crow: Tensor
    col: Tensor
    values: Tensor | None = None
    num_labels: int | None = None  # checked against the logits where it is known

    @classmethod
    def from_indices(cls, indices: Tensor | Sequence[Sequence[int]], pad: int = -1) -> SparseTargets:
        """Makes targets from index lists: (rows, longest) integers filled up with `pad`, or a list per row."""
        if not isinstance(indices, Tensor):
            lengths = torch.tensor([0, *(len(row) for row in indices)])
            col = [operator.index(label) for row in indices for label in row]
            return cls(lengths.cumsum(0), torch.tensor(col, dtype=torch.long))
        if indices.ndim != 2 or indices.is_floating_point() or indices.dtype == torch.bool:
            raise ValueError(f"indices must be (rows, longest) integers, got {indices.dtype} {tuple(indices.shape)}")
        if has_values(indices) and len(indices) and indices.shape[1] > 2 and ((indices == 0) | (indices == 1)).all():
            raise ValueError(
                f"indices {tuple(indices.shape)} are all 0 or 1, as targets of all labels are: pass those as they are, "
                "or .to_sparse_csr() of them; indices are the numbers of the positive labels, filled up with pad"
            )
        listed = indices != pad
        lengths = torch.nn.functional.pad(listed.sum(1), (1, 0))
        return cls(lengths.cumsum(0), indices[listed])

    @classmethod
    def from_csr(cls, matrix: Tensor) -> SparseTargets:
        """Makes targets from a 2-D `torch.sparse_csr_tensor`, whose stored values are the targets."""
        if matrix.ndim != 2:
            raise ValueError(f"CSR targets must be (rows, labels), got {tuple(matrix.shape)}")
        return cls(matrix.crow_indices(), matrix.col_indices(), matrix.values(), matrix.shape[1])

    @property
    def row(self) -> Tensor:
        """The row of each entry, (entries,)."""
        return torch.repeat_interleave(self.crow.diff(), output_size=len(self.col))

    def to(self, device: torch.device | str) -> SparseTargets:
        """Returns the same on another device."""
        values = None if self.values is None else self.values.to(device)
        return SparseTargets(self.crow.to(device), self.col.to(device), values, self.num_labels)
