"""Defines what every reader returns, and what the rest of the tool takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


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
