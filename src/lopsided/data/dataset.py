"""Defines what every reader returns, and what the rest of the tool takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lopsided.data.inputs import Inputs, csr_entries
from lopsided.targets import SparseTargets


@dataclass(frozen=True)
class MultiLabelData:
    """Holds rows with their labels.

    inputs: images, uint8 (rows, channels, height, width); or one text per row.
    targets: bool (rows, labels).
    """

    inputs: Tensor | tuple[str, ...]
    targets: Tensor
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return self.targets.shape[0]

    def __getitem__(self, rows: Sequence[int]) -> MultiLabelData:
        inputs = self.inputs[list(rows)] if isinstance(self.inputs, Tensor) else tuple(self.inputs[i] for i in rows)
        return MultiLabelData(inputs, self.targets[list(rows)], self.labels)


@dataclass(frozen=True)
class Splits:
    """Holds the three parts of a data set; all share the same labels in the same order."""

    train: MultiLabelData
    valid: MultiLabelData
    test: MultiLabelData

    def hide_positives(self, share: float, seed: int) -> Splits:
        """Returns the same, with a random share of the training set's positive labels turned negative.

        Real annotations miss labels like this; validation and test keep the truth.
        """
        drawn = torch.rand(self.train.targets.shape, generator=torch.Generator().manual_seed(seed))
        return replace(self, train=replace(self.train, targets=self.train.targets & (drawn >= share)))


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
        return replace(self, inputs=self.inputs.take(rows), targets=self.targets_of(rows), groups=groups)

    def targets_of(self, rows: Tensor) -> SparseTargets:
        """Returns the targets of some of the rows, by (n,) int64 number."""
        crow, entries = csr_entries(self.targets.crow, rows)
        values = None if self.targets.values is None else self.targets.values[entries]
        return SparseTargets(crow, self.targets.col[entries], values, self.num_labels)

    def label_counts(self) -> Tensor:
        """Counts, (L,) float64, the positives of each label; a soft label counts as what it is, an unknown one as 0."""
        weights = None if self.targets.values is None else self.targets.values.double().nan_to_num(nan=0.0)
        return torch.bincount(self.targets.col, weights, minlength=self.num_labels).double()
