"""Splits rows so as to keep the share of every label, also of the rarest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor


def stratified_split(targets: Tensor, fractions: Sequence[float], seed: int = 0) -> list[list[int]]:
    """Splits by iterative stratification: returns disjoint row numbers, ascending, one list per fraction.

    targets: bool (rows, labels). fractions: positive, summing to 1; each part gets about its share of the rows and
    of the positives of every label, the rarest label first, while there is still a choice.

    Source: Sechidis, Tsoumakas and Vlahavas, On the stratification of multi-label data, ECML PKDD 2011.

    >>> import torch
    >>> targets = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.bool)
    >>> [targets[part].sum(0).tolist() for part in stratified_split(targets, (0.5, 0.5))]
    [[1, 1], [1, 1]]
    """
    shares = np.asarray(fractions, dtype=float)
    if (shares <= 0).any() or not np.isclose(shares.sum(), 1):
        raise ValueError(f"fractions must be positive and sum to 1, got {tuple(fractions)}")
    positives = targets.numpy()
    order = np.random.default_rng(seed).permutation(len(positives))
    labels_of = [np.flatnonzero(row) for row in positives]
    rows_of = [order[positives[order, label]] for label in range(positives.shape[1])]
    unplaced = positives.sum(0)  # positives of each label in rows not yet placed
    wanted_rows = shares * len(positives)
    wanted = shares[:, None] * unplaced  # (parts, labels)
    part_of = np.full(len(positives), -1)

    def place(row: int, part: int) -> None:
        part_of[row] = part
        wanted_rows[part] -= 1
        wanted[part, labels_of[row]] -= 1
        unplaced[labels_of[row]] -= 1

    while unplaced.any():
        rarest = int(np.where(unplaced > 0, unplaced, np.iinfo(unplaced.dtype).max).argmin())
        for row in rows_of[rarest]:
            if part_of[row] < 0:
                place(row, int(np.lexsort((wanted_rows, wanted[:, rarest]))[-1]))
    for row in order:
        if part_of[row] < 0:  # no labels
            place(row, int(wanted_rows.argmax()))
    return [np.flatnonzero(part_of == part).tolist() for part in range(len(shares))]
