"""Which labels of some rows are true and which are unknown, in whatever form a user holds that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lopsided.metrics.lists import Array
from lopsided.targets import SparseTargets, Supervision
from lopsided.targets.checks import check_inputs, check_values


@dataclass(frozen=True)
class Truth:
    """The true and the unknown labels of some rows. An entry is known by its place, row * labels + label."""

    rows: int
    labels: int
    true: Array  # (P,) int64, the places of the positives, rising
    unknown: Array  # (U,) int64, the places of the labels of which nothing is known, rising

    @classmethod
    def of(cls, targets: Any, rows: int, labels: int, mask: Any = None, ignore_index: int | None = None) -> Truth:
        """Reads dense or sparse targets as the losses do; raises ValueError for soft ones, which judge no decision."""
        targets, shape = as_targets(targets), torch.Size([rows, labels])
        if isinstance(targets, SparseTargets):
            return cls(rows, labels, *_sparse_places(targets, shape, _mask(mask, shape), ignore_index))
        true, known = dense_truth(targets, shape, mask, ignore_index)
        return cls(rows, labels, *(places(each) for each in (true, None if known is None else ~known)))

    def of_rows(self, low: int, high: int) -> Truth:
        """Returns the same of a range of rows."""
        start, end = low * self.labels, high * self.labels
        cut = (each[slice(*each.searchsorted([start, end]))] - start for each in (self.true, self.unknown))
        return Truth(high - low, self.labels, *cut)

    def matrices(self) -> tuple[Tensor, Tensor | None]:
        """Returns (rows, labels) bool: is it true; is it known, None where all are."""
        true = torch.zeros(self.rows * self.labels, dtype=torch.bool)
        true[torch.from_numpy(self.true)] = True
        known = None
        if len(self.unknown):
            known = torch.ones_like(true)
            known[torch.from_numpy(self.unknown)] = False
            known = known.view(self.rows, self.labels)
        return true.view(self.rows, self.labels), known


@runtime_checkable
class SparseMatrix(Protocol):
    """A sparse matrix of scipy, which is not imported for it."""

    def tocsr(self) -> Any: ...


def as_tensor(given: Any) -> Tensor:
    """Returns a tensor as it is; a numpy array, a list or anything else that numpy takes as a tensor."""
    if isinstance(given, Tensor):
        return given.detach()
    array = np.asarray(given)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"expected numbers, got {type(given).__name__} of {array.dtype}")
    return torch.from_numpy(array if array.flags.writeable and array.dtype.isnative else array.astype(array.dtype.type))


def as_targets(given: Any) -> Tensor | SparseTargets:
    """Returns dense targets as a tensor; CSR tensors and matrices of scipy as `SparseTargets`. On the CPU."""
    if isinstance(given, SparseTargets):
        return given.to("cpu")
    if isinstance(given, Tensor) and given.layout == torch.sparse_csr:
        return SparseTargets.from_csr(given.cpu())
    if isinstance(given, SparseMatrix):
        matrix = given.tocsr()
        crow, col, values = map(as_tensor, (matrix.indptr, matrix.indices, matrix.data))
        return SparseTargets(crow, col, values, matrix.shape[1])
    return as_tensor(given).cpu()


def dense_truth(
    targets: Tensor, shape: torch.Size, mask: Any = None, ignore_index: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Returns (rows, labels) bool: is it true; is it known, None where all are."""
    if targets.shape != shape:
        raise ValueError(
            f"targets have shape {tuple(targets.shape)} but scores {tuple(shape)}: pass a number for every label of "
            "every row, or class indices as lopsided.SparseTargets.from_indices(...)"
        )
    known = Supervision(targets, mask=_mask(mask, shape), ignore_index=ignore_index).known(shape)
    known = None if known is None or known.all() else known
    if targets.dtype == torch.bool:
        return (targets if known is None else targets & known), known
    _check_binary(targets if known is None else targets[known])
    return (targets == 1 if known is None else (targets == 1) & known), known


def truth_matrices(
    targets: Tensor | SparseTargets, shape: torch.Size, mask: Any = None, ignore_index: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Returns the same as `dense_truth` for dense or sparse targets; sparse ones are of (rows, labels)."""
    if isinstance(targets, SparseTargets):
        return Truth.of(targets, shape[0], shape[1], mask, ignore_index).matrices()
    return dense_truth(targets, shape, mask, ignore_index)


def places(chosen: Tensor | None) -> Array:
    """Returns the places of the True entries of (n, L) bool: int64, rising."""
    return np.empty(0, np.int64) if chosen is None else np.flatnonzero(chosen.numpy())


def member(places: Array, among: Array) -> Array:
    """Tells which places are among the other, rising ones."""
    if not len(among):
        return np.zeros(len(places), bool)
    result: Array = among[among.searchsorted(places).clip(max=len(among) - 1)] == places
    return result


def _sparse_places(
    targets: SparseTargets, shape: torch.Size, mask: Tensor | None, ignore_index: int | None
) -> tuple[Array, Array]:
    supervision = Supervision.of(targets, ignore_index, mask=mask)
    stand_in = torch.zeros(()).expand(shape)  # only its shape is looked at
    check_inputs(stand_in, supervision)
    check_values(stand_in, supervision)
    listed = (targets.row.long() * shape[1] + targets.col).numpy()
    true, unknown = listed, np.empty(0, np.int64)
    if supervision.values is not None:
        values = supervision.values
        empty = values.isnan().numpy()
        _check_binary(values[~values.isnan()])
        true, unknown = listed[(values == 1).numpy()], np.unique(listed[empty])
    if mask is not None:
        unknown = np.union1d(unknown, places(~mask))
    true = np.unique(true)
    return (true[~member(true, unknown)] if len(unknown) else true), unknown


def _mask(mask: Any, shape: torch.Size) -> Tensor | None:
    if mask is None:
        return None
    mask = as_tensor(mask).cpu()
    if mask.dtype != torch.bool or mask.shape != shape:
        raise ValueError(
            f"mask must be bool with the shape of the scores {tuple(shape)}, True where the label is known; got "
            f"{mask.dtype} {tuple(mask.shape)}"
        )
    known: Tensor = mask
    return known


def _check_binary(targets: Tensor) -> None:
    if targets.dtype != torch.bool and not ((targets == 0) | (targets == 1)).all():
        wrong = targets[(targets != 0) & (targets != 1)]
        raise ValueError(
            f"targets must be 0 or 1 to be evaluated, got {wrong[0].item():g} and {len(wrong) - 1} more: mark unknown "
            "ones with NaN, mask= or ignore_index=; soft ones cannot judge a decision"
        )
