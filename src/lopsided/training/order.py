"""Says in which order the rows of an epoch are trained on, and from what random numbers begin."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.data.dataset import Dataset
from lopsided.training.rows import Rows


def random_seed(seed: int, epoch: int, step: int = 0, process: int = 0) -> int:
    """Returns from what random numbers begin: 32 bits, since torch's generator of a CPU leaves out all others.

    >>> random_seed(3, 5) == (3 << 20) + 5
    True
    >>> len({random_seed(*each) for each in ((3, 5), (3 + 4096, 5), (3, 5, 1), (3, 5, 0, 1))})
    4
    """
    first = (seed << 20) + epoch
    others = 0x9E3779B1 * (first >> 32) + 0x85EBCA6B * step + 0xC2B2AE35 * process  # factors without a pattern
    return (first + others) % 2**32


def rows_in_order(rows: Rows, sampling: str, generator: torch.Generator) -> Tensor:
    """Returns the rows of an epoch, (rows,) int64: every row once, or as `class_aware` draws them.

    Encoded rows may have an order of their own, random too, in which rows that share work stand together.
    """
    if sampling == "class_aware":
        return class_aware(rows.data, generator)
    order = getattr(rows.encoded, "order", None)
    every: Tensor = torch.randperm(len(rows), generator=generator) if order is None else order(generator)
    return every


def class_aware(data: Dataset, generator: torch.Generator) -> Tensor:
    """Draws as many rows as there are, with replacement: a label first, all alike, then one of its rows.

    So every label is drawn equally often, however rare it is; labels that often come along with it come along here too.
    Rows without any label are drawn as often as they are in the data.

    >>> from lopsided.data.inputs import Texts
    >>> from lopsided.targets import SparseTargets
    >>> targets = SparseTargets.from_indices([[0]] * 90 + [[1]] * 10)
    >>> rows = class_aware(Dataset(Texts(("",) * 100), targets, ("a", "b")), torch.Generator().manual_seed(0))
    >>> bool(40 < (rows >= 90).sum() < 60)
    True

    Source: Shen, Lin and Huang, Relay backpropagation, ECCV 2016, for one label a row.
    """
    row, label = data.positives()
    by_label = row[label.argsort(stable=True)]
    counts = torch.bincount(label, minlength=data.num_labels)
    first, present = counts.cumsum(0) - counts, counts.nonzero().flatten()
    drawn = torch.empty(0, dtype=torch.long)
    without = (torch.bincount(row, minlength=len(data)) == 0).nonzero().flatten()
    if len(present):
        labels = present[torch.randint(len(present), (len(data) - len(without),), generator=generator)]
        place = (torch.rand(len(labels), generator=generator, dtype=torch.float64) * counts[labels]).long()
        drawn = by_label[first[labels] + place]
    mixed = torch.cat([drawn, without])
    return mixed[torch.randperm(len(mixed), generator=generator)]
