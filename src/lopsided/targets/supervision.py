"""Targets: all that a user may say about labels becomes two weights per label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lopsided.targets.sparse import SparseTargets


def labels_last(given: Any, ndim: int, label_dim: int) -> Any:
    """Returns a dense tensor of ndim dimensions with its labels last; all else has them last already."""
    if not -ndim <= label_dim < ndim:
        raise ValueError(f"label_dim must be a dimension of the logits, which have {ndim}, got {label_dim}")
    dense = isinstance(given, Tensor) and given.layout == torch.strided
    return given.movedim(label_dim, -1) if dense and given.ndim == ndim > 1 else given


class Supervision(NamedTuple):
    """What a user says about the labels of a batch: `weights` makes two weights per label of it.

    Held as flat tensors, because autograd saves tensors: dense `values` alone, or the parts of a CSR matrix.
    """

    values: Tensor | None  # (..., L), any dtype; with crow and col (entries,) or None
    crow: Tensor | None = None
    col: Tensor | None = None
    mask: Tensor | None = None  # (..., L) bool, True = known
    weight: Tensor | None = None  # (L,) or (..., L)
    pos_weight: Tensor | None = None  # (L,)
    label_smoothing: float = 0.0
    ignore_index: int | None = None
    all_known: bool = False  # but for the mask: values hold no NaN and no ignore_index
    num_labels: int | None = None  # what sparse targets say of L

    @classmethod
    def of(cls, targets: Tensor | SparseTargets, ignore_index: int | None = None, **rest: Any) -> Supervision:
        """Makes a supervision from dense targets, a 2-D CSR tensor, or `SparseTargets`."""
        if isinstance(targets, Tensor):
            if targets.layout != torch.sparse_csr:
                return cls(targets, ignore_index=_as_stored(ignore_index, targets.dtype), **rest)
            targets = SparseTargets.from_csr(targets)
        elif not isinstance(targets, SparseTargets):
            of_indices = "index lists go through lopsided.SparseTargets.from_indices(...)"
            instead = "pass torch.as_tensor(...)" if hasattr(targets, "__array__") else of_indices
            raise TypeError(f"targets must be a tensor or SparseTargets, got {type(targets).__name__}: {instead}")
        if ignore_index == 0:
            raise ValueError(
                "ignore_index=0 would ignore each label that sparse targets do not list: pass mask= for unknown ones"
            )
        values = targets.values
        if values is not None and (ignored := _as_stored(ignore_index, values.dtype)) is not None:
            wide = values if values.is_floating_point() else values.float()
            values = wide.masked_fill(values == ignored, torch.nan)
        return cls(values, targets.crow, targets.col, num_labels=targets.num_labels, **rest)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.values, self.crow, self.col, self.mask, self.weight, self.pos_weight

    def with_tensors(self, tensors: Sequence[Tensor | None]) -> Supervision:
        """Returns the same with other tensors, in the order of `tensors`."""
        values, crow, col, mask, weight, pos_weight = tensors
        return self._replace(values=values, crow=crow, col=col, mask=mask, weight=weight, pos_weight=pos_weight)

    def shape(self, num_labels: int | None = None) -> tuple[torch.Size, torch.device]:
        """Returns the shape that logits must have, and the device; of sparse targets (rows, L), if it is known."""
        if self.crow is None:
            assert self.values is not None
            return self.values.shape, self.values.device
        labels = num_labels or self.num_labels
        if labels is None:
            raise ValueError("these sparse targets do not say how many labels there are: pass num_labels=")
        return torch.Size((len(self.crow) - 1, labels)), self.crow.device

    def dense(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Returns (..., L) targets. Unknown ones may be anything, NaN included."""
        if self.crow is None:
            assert self.values is not None
            return self.values.to(dtype)
        ones = torch.ones((), device=self.crow.device)
        return self._scattered(ones if self.values is None else self.values, shape, dtype)

    def _scattered(self, values: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Returns values of the stored entries in a matrix of zeros."""
        assert self.crow is not None
        assert self.col is not None
        rows = torch.repeat_interleave(self.crow.diff(), output_size=len(self.col))
        matrix = torch.zeros(shape, dtype=dtype, device=rows.device).view(-1, shape[-1])
        return matrix.index_put((rows, self.col.long()), values.to(dtype)).view(shape)

    def known(self, shape: torch.Size) -> Tensor | None:
        """Returns (..., L) bool, or None where every label is known."""
        known = self.mask
        if self.all_known:
            return known
        if self.crow is not None:
            if self.values is not None and self.values.is_floating_point():
                known = _both(known, ~self._scattered(self.values.isnan(), shape, torch.bool))
        elif self.values is not None:
            if self.ignore_index is not None:
                known = _both(known, self.values != self.ignore_index)
            if self.values.is_floating_point():
                known = _both(known, ~self.values.isnan())
        return known

    def weights(self, shape: torch.Size, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Returns (a+, a-), each (..., L): y and 1 - y, smoothed and weighted; 0 where the label is unknown."""
        positive = self.dense(shape, dtype)
        known = self.known(shape)
        if known is not None:
            positive = torch.where(known, positive, 0.0)  # NaN times a weight of 0 would stay NaN
        if self.label_smoothing:
            positive = positive * (1 - self.label_smoothing) + self.label_smoothing / 2
        negative = 1 - positive
        if self.pos_weight is not None:
            positive = positive * self.pos_weight.to(dtype)
        if self.weight is not None:
            weight = self.weight.to(dtype)
            positive, negative = positive * weight, negative * weight
        if known is not None:
            positive, negative = torch.where(known, positive, 0.0), torch.where(known, negative, 0.0)
        return positive, negative

    def number_of(self, what: str, shape: torch.Size) -> Tensor | int:
        """Returns how many known "labels" there are, "rows" with one, or "positive rows" with a positive weight."""
        if what == "positive rows":
            if self.crow is not None and self.values is None and not self.label_smoothing:
                return self._rows_that_list_a_positive(shape)
            return (self.weights(shape, torch.float32)[0] > 0).any(-1).sum()
        known = self.known(shape)
        if known is None:
            return math.prod(shape if what == "labels" else shape[:-1])  # numel() would fix a dynamic shape
        return (known if what == "labels" else known.any(-1)).sum()

    def _rows_that_list_a_positive(self, shape: torch.Size) -> Tensor:
        """Returns their number, from the stored entries alone: nothing dense is made, nothing waits for a device."""
        assert self.crow is not None
        assert self.col is not None
        weighs = torch.ones_like(self.col, dtype=torch.bool)
        row = torch.repeat_interleave(self.crow.diff(), output_size=len(self.col))
        for weight in (self.mask, self.weight, self.pos_weight):
            if weight is not None:
                weighs &= weight.expand(shape).reshape(-1, shape[-1])[row, self.col.long()] > 0
        before = torch.nn.functional.pad(weighs.cumsum(0), (1, 0))[self.crow.long()]
        return (before.diff() > 0).sum()

    def of_rows(self, rows: slice, shape: torch.Size) -> Supervision:
        """Returns the same for some rows of logits of `shape`, flattened to (rows, L)."""
        flat = self.flat(shape)

        def cut(tensor: Tensor | None) -> Tensor | None:
            return tensor if tensor is None or tensor.ndim < 2 else tensor[rows]

        part = flat._replace(mask=cut(flat.mask), weight=cut(flat.weight), pos_weight=cut(flat.pos_weight))
        if self.crow is None or self.col is None:
            return part._replace(values=cut(flat.values))
        crow = self.crow[rows.start : rows.stop + 1]
        entries = slice(int(crow[0]), int(crow[-1]))
        values = None if self.values is None else self.values[entries]
        return part._replace(values=values, crow=crow - crow[0], col=self.col[entries])

    def flat(self, shape: torch.Size) -> Supervision:
        """Returns the same for logits of `shape`, flattened to (rows, L)."""

        def flatten(tensor: Tensor | None) -> Tensor | None:
            return tensor.reshape(-1, shape[-1]) if tensor is not None and tensor.shape == shape else tensor

        values = self.values if self.crow is not None else flatten(self.values)
        return self._replace(values=values, mask=flatten(self.mask), weight=flatten(self.weight))

    def transpose(self, shape: torch.Size) -> Supervision:
        """Returns the same for logits of `shape`, flattened to (rows, L) and transposed."""

        def turn(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.expand(shape).reshape(-1, shape[-1]).T

        wide = torch.float32 if self.values is None else torch.promote_types(self.values.dtype, torch.float32)
        values = self.values if self.crow is None else self.dense(shape, wide)  # NaN stays NaN
        mask, weight, pos_weight = turn(self.mask), turn(self.weight), turn(self.pos_weight)
        rest = self.label_smoothing, self.ignore_index, self.all_known
        return Supervision(turn(values), None, None, mask, weight, pos_weight, *rest)


def _as_stored(ignore_index: int | None, dtype: torch.dtype) -> int | None:
    """Returns ignore_index as targets of that dtype store it, which for floats is rounded; None if they cannot."""
    if ignore_index is None or dtype == torch.bool:
        return ignore_index if ignore_index in (0, 1) else None
    limits = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    if not limits.min <= ignore_index <= limits.max:
        return None
    if not dtype.is_floating_point:
        return ignore_index
    digits = 2 - math.frexp(torch.finfo(dtype).eps)[1]
    unit = 1 << max(abs(ignore_index).bit_length() - digits, 0)
    return round(ignore_index / unit) * unit


def _both(one: Tensor | None, other: Tensor) -> Tensor:
    return other if one is None else one & other
