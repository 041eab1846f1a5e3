"""Defines what every reader returns, and what the rest of the tool takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from lopsided.data.inputs import Inputs, csr_entries
from lopsided.targets import SparseTargets


@dataclass(frozen=True)
class Dataset:
    """Holds inputs with their labels.

    targets: (rows, L) in compressed sparse rows, each label once a row. values: None where all that is listed is
    positive; else in [0, 1], NaN for a label that is unknown. num_labels is L.
    label_names: L names, or `Numbered` where labels are numbers.
    groups: (rows,) int64, rows of one group (a document, a patient) that no split may part; None without groups. A
    group has the same number in every file; numbers below 0 are those of rows without a group.
    notes: sentences about how the file was understood, for people: its encoding, where its labels stood.
    unlisted_unknown: whether a label that these rows never name, though those of another file do, is unknown here.
    """

    inputs: Inputs
    targets: SparseTargets
    label_names: Sequence[str]
    groups: Tensor | None = None
    notes: tuple[str, ...] = ()
    unlisted_unknown: bool = False

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def num_labels(self) -> int:
        return len(self.label_names)

    def take(self, rows: Tensor) -> Dataset:
        """Returns some of the rows, by (n,) int64 number."""
        groups = None if self.groups is None else self.groups[rows]
        taken = replace(self, inputs=self.inputs.take(rows), targets=self.targets_of(rows), groups=groups)
        if "hashes" in vars(self):
            vars(taken)["hashes"] = self.hashes[rows]
        return taken

    @cached_property
    def hashes(self) -> Tensor:
        """(rows,) int64 that stand for the contents of the rows; copies have the same. Images are read for them once.

        Different rows may have the same, but two sets of a million rows share one by chance with probability 5e-8.
        """
        keys = self.inputs.keys()
        return torch.tensor([int.from_bytes(key[:8], "big", signed=True) for key in keys], dtype=torch.long)

    def targets_of(self, rows: Tensor) -> SparseTargets:
        """Returns the targets of some of the rows, by (n,) int64 number."""
        crow, entries = csr_entries(self.targets.crow, rows)
        values = None if self.targets.values is None else self.targets.values[entries]
        return SparseTargets(crow, self.targets.col[entries], values, self.num_labels)

    def hard_targets(self) -> SparseTargets:
        """Returns what decisions are judged by: a soft label counts as positive from .5 on; unknown stays unknown."""
        values = self.targets.values
        if values is None:
            return self.targets
        return replace(self.targets, values=torch.where(values.isnan(), values, (values >= 0.5).float()))

    def label_counts(self) -> Tensor:
        """Counts, (L,) float64, the positives of each label; a soft label counts as what it is, an unknown one as 0."""
        weights = None if self.targets.values is None else self.targets.values.double().nan_to_num(nan=0.0)
        return torch.bincount(self.targets.col, weights, minlength=self.num_labels).double()

    def hard_counts(self) -> Tensor:
        """Counts, (L,) int64, the positives of each label that `hard_targets` has."""
        return torch.bincount(self.positives()[1], minlength=self.num_labels)

    def positives(self) -> tuple[Tensor, Tensor]:
        """Returns row and label, (positives,) int64 each, of the positives that `hard_targets` has."""
        hard = self.hard_targets()
        true = slice(None) if hard.values is None else hard.values == 1
        return hard.row[true], hard.col[true]


@dataclass(frozen=True)
class Unsplit:
    """Holds a file of which rows were split into training and validation, and the numbers of these, (n,) int64."""

    file: Dataset
    train: Tensor
    valid: Tensor

    def joined(self) -> Dataset:
        """Returns the rows of both, in the order of the file."""
        return self.file.take(self._numbers)

    def places(self) -> tuple[Tensor, Tensor]:
        """Returns the numbers of the rows of training and of validation among those that are joined."""
        return torch.searchsorted(self._numbers, self.train), torch.searchsorted(self._numbers, self.valid)

    @property
    def _numbers(self) -> Tensor:
        return torch.cat([self.train, self.valid]).sort().values


@dataclass(frozen=True)
class Splits:
    """Holds the parts of a data set; all share the same labels in the same order.

    notes: sentences for people about how the files were understood, and about rows that stand in two parts.
    tuning: the rows that thresholds are tuned on, which may be those of validation. folds: numbers of them, none, or
    for models that are trained on the rows of tuning: each of these is then scored by a model without its fold.
    seen: how many test rows are of a text, or of a group, that also stands among those of training or validation.
    unsplit: where the rows of validation were split off, what from; else None.
    """

    train: Dataset
    valid: Dataset | None
    test: Dataset | None
    notes: tuple[str, ...] = ()
    unsplit: Unsplit | None = None
    tuning: Dataset | None = None
    folds: tuple[Tensor, ...] = ()
    seen: int = 0

    def parts(self) -> dict[str, Dataset]:
        """Returns the parts that there are, by name; but for the rows of tuning, which belong to others."""
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    def sizes(self) -> dict[str, int]:
        """Returns the rows of each part by name; a half of those of validation may be kept for tuning."""
        sizes = {name: len(part) for name, part in self.parts().items()}
        if self.tuning is not None and self.tuning is not self.valid and not self.folds:
            sizes["valid"] += len(self.tuning)
        return sizes

    def hide_positives(self, share: float, seed: int) -> Splits:
        """Returns the same, with a random share of the training set's positive labels turned negative, none unknown.

        Real annotations miss labels like this; validation and test keep the truth.
        """
        targets = self.train.targets
        stays = torch.rand(len(targets.col), generator=torch.Generator().manual_seed(seed)) >= share
        if targets.values is not None:
            stays |= targets.values.isnan()
        crow = torch.nn.functional.pad(stays.cumsum(0), (1, 0))[targets.crow]
        values = None if targets.values is None else targets.values[stays]
        left = SparseTargets(crow, targets.col[stays], values, targets.num_labels)
        return replace(self, train=replace(self.train, targets=left), unsplit=None)
