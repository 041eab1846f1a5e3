"""Splits rows so as to keep the share of every label, also of the rarest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from lopsided.data.dataset import Dataset
from lopsided.data.independence import together
from lopsided.data.storage import UserError
from lopsided.targets import SparseTargets


def split_rows(dataset: Dataset, fractions: Sequence[float], seed: int = 0) -> list[Tensor]:
    """Splits by iterative stratification, see `stratified_split`; copies of a row, and groups, stay in one part.

    Raises UserError if a part would be empty.
    """
    asked = ", ".join(f"{fraction:.3g}" for fraction in fractions)
    if min(fractions) < 1e-9:  # the rest, as 1 less the others is rounded
        given = f"{sum(fractions[1:]):.4g}"
        raise UserError(f"no rows are left to train on: --valid and --test must sum to less than 1, got {given}")
    sets = together(dataset)
    parts = stratified_split(dataset.targets, fractions, seed, sets)
    if not all(map(len, parts)):
        largest = int(sets.bincount().max()) if len(sets) else 0
        raise UserError(
            f"{len(dataset)} rows cannot be split by {asked}: copies and groups stay together, which makes "
            f"{len(sets.unique())} sets, the largest of {largest} rows; ask for other shares, or give separate files"
        )
    return parts


def rest_of(part: Tensor, rows: int) -> Tensor:
    """Returns the numbers of the rows that are not in a part, ascending.

    >>> rest_of(torch.tensor([3, 0]), 5)
    tensor([1, 2, 4])
    """
    return torch.ones(rows, dtype=torch.bool).index_fill(0, part, False).nonzero()[:, 0]


def stratified_split(
    targets: SparseTargets | Tensor, fractions: Sequence[float], seed: int = 0, groups: Tensor | None = None
) -> list[Tensor]:
    """Splits by iterative stratification: returns disjoint row numbers, int64, ascending, one tensor per fraction.

    Each part gets about its share of the rows and of the positives of every label, the rarest label first, while there
    is still a choice. A label with fewer positives than parts goes to the largest part, until that has its rows.

    targets: of the rows; or bool (rows, labels). A soft label counts as what it is, an unknown one (NaN) as 0.
    fractions: positive, summing to 1. groups: (rows,) integer; rows of one group stay in one part.
    Raises ValueError for fractions or groups that are not of this form.

    Source: Sechidis, Tsoumakas and Vlahavas, On the stratification of multi-label data, ECML PKDD 2011. There, the
    rarest label is looked for again after each placed label; here, the order of the labels is that of their positives
    in all rows. A row is then placed by its own rarest label, which is known at once, and the time is linear.

    >>> targets = SparseTargets.from_indices([[0], [0], [1], [1]])
    >>> [sorted(targets.col[part].tolist()) for part in stratified_split(targets, (0.5, 0.5))]
    [[0, 1], [0, 1]]
    """
    shares = np.asarray(fractions, dtype=float)
    if (shares <= 0).any() or not np.isclose(shares.sum(), 1):
        raise ValueError(f"fractions must be positive and sum to 1, got {tuple(fractions)}")
    positives = _positives(targets)
    rows = positives.shape[0]
    unit_of, sizes = np.arange(rows), np.ones(rows, dtype=np.int64)
    if groups is not None:
        if groups.shape != (rows,):
            raise ValueError(f"groups must be one number for each of the {rows} rows, got {tuple(groups.shape)}")
        _, unit_of, sizes = np.unique(groups.numpy(), return_inverse=True, return_counts=True)
        member = sparse.csr_matrix((np.ones(rows), unit_of, np.arange(rows + 1)), shape=(rows, len(sizes)))
        positives = (member.T @ positives).tocsr()
    part_of = _place(positives, sizes, shares, np.random.default_rng(seed))[unit_of]
    return [torch.from_numpy(np.flatnonzero(part_of == part)) for part in range(len(shares))]


def _positives(targets: SparseTargets | Tensor) -> Any:
    """Returns a CSR matrix (rows, L), float64, of how much of a positive each entry is."""
    if isinstance(targets, Tensor):
        return sparse.csr_matrix(targets.numpy(), dtype=float)
    crow, col = targets.crow.numpy(), targets.col.numpy()
    values = np.ones(len(col)) if targets.values is None else np.nan_to_num(targets.values.double().numpy(), nan=0.0)
    num_labels = targets.num_labels or int(col.max(initial=-1)) + 1
    positives = sparse.csr_matrix((values, col, crow), shape=(len(crow) - 1, num_labels))
    if targets.values is not None:
        positives.eliminate_zeros()
    return positives


def _place(positives: Any, sizes: np.ndarray, shares: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns the part of each unit, a row or a group of rows that stays together.

    positives: CSR (units, L), positives of each unit. sizes: (units,), its rows. shares: (parts,).
    """
    counts = np.asarray(positives.sum(0)).ravel()
    by_rarity = np.lexsort((random.random(len(counts)), counts))
    rarest = _rarest_label(positives, by_rarity)
    order = np.lexsort((random.random(len(sizes)), -sizes, rarest))  # large units first, while every part has room
    of_label = positives.tocsc()
    part_of, size_of = [-1] * len(sizes), sizes.tolist()
    room = (shares * sizes.sum()).tolist()  # rows that each part still wants
    for place, units in _runs(rarest, order):
        if place < len(counts):
            label = by_rarity[place]
            entries = slice(*of_label.indptr[label : label + 2])
            weight_of = dict(zip(of_label.indices[entries].tolist(), of_label.data[entries].tolist(), strict=True))
            wanted = (shares * counts[label]).tolist()  # positives of the label that each part still wants
            for unit, weight in weight_of.items():
                if part_of[unit] >= 0:
                    wanted[part_of[unit]] -= weight
        else:  # the units without a label
            weight_of, wanted = size_of, room.copy()
        for unit in units:
            part = _neediest(wanted, room, size_of[unit])
            part_of[unit] = part
            wanted[part] -= weight_of[unit]
            room[part] -= size_of[unit]
    return np.asarray(part_of, dtype=np.int64)


def _rarest_label(positives: Any, by_rarity: np.ndarray) -> np.ndarray:
    """Returns for each unit the smallest place of its labels in `by_rarity`, or the number of labels if it has none."""
    place_of = np.empty_like(by_rarity)
    place_of[by_rarity] = np.arange(len(by_rarity))
    rarest = np.full(positives.shape[0], len(by_rarity))
    labelled = np.diff(positives.indptr) > 0
    if labelled.any():
        rarest[labelled] = np.minimum.reduceat(place_of[positives.indices], positives.indptr[:-1][labelled])
    return rarest


def _runs(key: np.ndarray, order: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Yields each key with the numbers of those that have it; `order` sorts the keys."""
    begins = np.flatnonzero(np.diff(key[order], prepend=-1)).tolist()
    for begin, end in zip(begins, [*begins, len(order)][1:], strict=True):
        yield int(key[order[begin]]), order[begin:end].tolist()


def _neediest(wanted: list[float], room: list[float], size: int) -> int:
    """Returns the part that wants the label most, of those with room for the unit; without any, that with most room."""
    best = -1
    for part, space in enumerate(room):
        if space >= size and (best < 0 or (wanted[part], space) > (wanted[best], room[best])):
            best = part
    return best if best >= 0 else room.index(max(room))
