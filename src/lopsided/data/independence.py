"""Tells which rows say the same, or belong together, so that no row that is judged was trained on."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lopsided.data.dataset import Dataset
from lopsided.data.inputs import digest
from lopsided.data.labels.forms import is_missing
from lopsided.data.storage import UserError


def copies(keys: Iterable[bytes | int]) -> Tensor:
    """Numbers the different rows, (rows,) int64 from 0 on in the order of the rows: copies have the same number.

    >>> from lopsided.data.inputs import Texts
    >>> copies(Texts(("A  cat", "a dog", "a cat")).keys())
    tensor([0, 1, 0])
    """
    number: dict[bytes | int, int] = {}
    return torch.tensor([number.setdefault(key, len(number)) for key in keys], dtype=torch.long)


def together(rows: Dataset) -> Tensor:
    """Numbers the sets of rows that no split may part, (rows,) int64: copies, and rows of one group.

    Where a row of one group has a copy in another, both groups are one set.
    """
    content = copies(rows.hashes.tolist())
    if rows.groups is None or not len(rows):
        return content
    from scipy import sparse  # importing these takes long
    from scipy.sparse.csgraph import connected_components

    groups = rows.groups.unique(return_inverse=True)[1] + len(rows)  # nodes beside those of the contents
    edges = sparse.coo_matrix((np.ones(len(rows)), (content.numpy(), groups.numpy())), shape=(2 * len(rows),) * 2)
    return torch.from_numpy(connected_components(edges, directed=False)[1]).long()[content]


def number_groups(cells: Sequence[Any]) -> Tensor:
    """Numbers the groups that the cells of a column name, (rows,) int64: the same name alike in every file.

    A row whose cell is empty is a group of its own, with a number below 0.
    """
    numbers = [-1 - row if is_missing(cell) else _hash(str(cell).strip()) for row, cell in enumerate(cells)]
    return torch.tensor(numbers, dtype=torch.long)


def _hash(name: str) -> int:
    """Returns a number of 56 bits, so that any two of a million names share one with probability 7e-6."""
    return int.from_bytes(digest(name.encode("utf-8", "surrogatepass"))[:7], "big")


def shared_groups(train: Dataset, test: Dataset) -> Tensor:
    """Returns the numbers, ascending int64, of the rows of `test` whose group also stands in `train`."""
    if train.groups is None or test.groups is None:
        return torch.zeros(0, dtype=torch.long)
    return ((test.groups >= 0) & torch.isin(test.groups, train.groups)).nonzero()[:, 0]


def overlap(train: Dataset, test: Dataset) -> Tensor:
    """Returns the numbers, ascending int64, of the rows of `test` that also stand in `train`."""
    return torch.isin(test.hashes, train.hashes).nonzero()[:, 0]


def refuse_same_file(files: Mapping[str, Path]) -> None:
    """Raises UserError if two files, named by the options that ask for them, are one file or hold the same bytes."""
    for (first, one), (second, other) in combinations(files.items(), 2):
        try:
            same = one.samefile(other) or filecmp.cmp(one, other, shallow=False)
        except OSError:
            continue  # the reader of that file says what is wrong with it
        if same:
            known = one if first == "data" else f"--{first} {one}"
            raise UserError(
                f"--{second}: {other} holds the same rows as {known}, and rows that a model has seen say "
                f"nothing about new ones; leave --{second} out to split rows off, or name another file"
            )
