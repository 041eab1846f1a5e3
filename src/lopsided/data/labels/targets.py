"""Builds targets in compressed sparse rows, joins rows and gives several files the same labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from lopsided.targets import SparseTargets


@dataclass(frozen=True)
class Labels:
    """Holds the labels of all rows of a file.

    targets: (rows, L). names: L names. unlisted_unknown: whether a label of another file, which this one never names,
    is unknown here rather than negative.
    """

    targets: SparseTargets
    names: Sequence[str]
    unlisted_unknown: bool = False


def sparse_targets(row: Tensor, col: Tensor, values: Tensor | None, num_rows: int, num_labels: int) -> SparseTargets:
    """Makes targets of entries in any order, (entries,) int64 each; values: (entries,) float32, None if all are 1.

    An entry that is 0 is left out, one that is listed twice counts once, with its largest value, NaN the smallest.

    >>> sparse_targets(torch.tensor([1, 0, 1]), torch.tensor([2, 0, 2]), None, 2, 3).col
    tensor([0, 2])
    """
    key = row * max(1, num_labels) + col
    if values is None:
        key = key.unique()
    else:
        key, place = key.unique(return_inverse=True)
        rank = values.double().nan_to_num(nan=-1.0)
        rank = torch.full((len(key),), -1.0, dtype=torch.double).scatter_reduce(0, place, rank, "amax")
        key, rank = key[rank != 0], rank[rank != 0]
        values = rank.where(rank >= 0, torch.nan).float()
        values = None if bool((values == 1).all()) else values
    row, col = key // max(1, num_labels), key % max(1, num_labels)
    crow = pad(torch.bincount(row, minlength=num_rows).cumsum(0), (1, 0))
    return SparseTargets(crow, col, values, num_labels)


def join_rows(targets: SparseTargets, to: Tensor, num_rows: int) -> SparseTargets:
    """Joins rows: row i becomes a part of row to[i]. A label is unknown if it is in all parts, else its largest value.

    >>> parts = SparseTargets(torch.tensor([0, 1, 2]), torch.tensor([1, 1]), torch.tensor([torch.nan, 1.0]), 2)
    >>> join_rows(parts, torch.tensor([0, 0]), 1).col
    tensor([1])
    """
    num_labels = targets.num_labels or 0
    row = to[targets.row]
    if targets.values is None:
        return sparse_targets(row, targets.col, None, num_rows, num_labels)
    unknown = targets.values.isnan()
    key, times = (row * num_labels + targets.col)[unknown].unique(return_counts=True)
    in_all = key[times == torch.bincount(to, minlength=num_rows)[key // max(1, num_labels)]]
    row = torch.cat([row[~unknown], in_all // max(1, num_labels)])
    col = torch.cat([targets.col[~unknown], in_all % max(1, num_labels)])
    values = torch.cat([targets.values[~unknown], torch.full((len(in_all),), torch.nan)])
    return sparse_targets(row, col, values, num_rows, num_labels)


def rename(labels: Labels, names: Sequence[str]) -> SparseTargets:
    """Returns the targets with the columns of `names`, among which are all names of the labels."""
    targets, num_rows = labels.targets, len(labels.targets.crow) - 1
    place = {name: number for number, name in enumerate(names)}
    columns = torch.tensor([place[name] for name in labels.names], dtype=torch.long)
    row, col, values = targets.row, columns[targets.col], targets.values
    if labels.unlisted_unknown:
        new = torch.tensor(sorted(set(range(len(names))) - set(columns.tolist())), dtype=torch.long)
        values = torch.ones(len(row)) if values is None else values
        values = torch.cat([values, torch.full((len(new) * num_rows,), torch.nan)])
        row = torch.cat([row, torch.arange(num_rows).repeat_interleave(len(new))])
        col = torch.cat([col, new.repeat(num_rows)])
    return sparse_targets(row, col, values, num_rows, len(names))
