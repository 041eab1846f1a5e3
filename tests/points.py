"""Points in three dimensions with two labels: what the tests of training train on, with an encoder that is theirs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lopsided.data.dataset import Dataset
from lopsided.models.recipe import Recipe
from lopsided.targets import SparseTargets
from lopsided.training.rows import Rows

RECIPE = Recipe(epochs=3, batch_size=4, learning_rate=0.5, optimizer="sgd", momentum=0.9)
WIDTH = 4


@dataclass(frozen=True)
class Points:
    """Inputs: (rows, 3) float32."""

    kind: ClassVar[str] = "point"
    x: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Tensor) -> "Points":
        return Points(self.x[rows])

    def excerpt(self, row: int) -> str:
        return str(self.x[row].tolist())

    def keys(self) -> Iterator[bytes]:
        return (bytes(row.numpy()) for row in self.x)

    def batch(self, rows: Tensor) -> tuple[Tensor, ...]:
        return self.x[rows], rows


class Hidden(nn.Module):
    """A linear layer with dropout behind it; writes down which rows it saw in training."""

    def __init__(self, seen: list[list[int]], dropout: float) -> None:
        super().__init__()
        self.width, self.linear, self.dropout = WIDTH, nn.Linear(3, WIDTH), nn.Dropout(dropout)
        self.seen = seen

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        if self.training:
            self.seen.append(rows.tolist())
        hidden: Tensor = self.dropout(self.linear(x))
        return hidden


@dataclass(frozen=True)
class AsTheyAre:
    """Encodes points as they are; `seen` has the rows of every batch of training, in their order."""

    name: ClassVar[str] = "points"
    inputs: ClassVar[type[Any]] = Points
    dropout: float = 0.0
    seen: list[list[int]] = field(default_factory=list)

    @classmethod
    def fit(cls, inputs: Points, dropout: float = 0.0) -> "AsTheyAre":
        return cls(dropout)

    def encode(self, inputs: Points) -> Points:
        return inputs

    def make_body(self) -> Hidden:
        return Hidden(self.seen, self.dropout)

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        return RECIPE

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"dropout": self.dropout}, {}

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> "AsTheyAre":
        return cls(**values)


def targets_of(dense: Tensor) -> SparseTargets:
    """Sparse targets of (rows, L) bool."""
    indices = [row.nonzero().flatten().tolist() for row in dense]
    listed = SparseTargets.from_indices(indices)
    return SparseTargets(listed.crow, listed.col, None, dense.shape[1])


def points(rows: int, seed: int = 0) -> Rows:
    """Points whose labels lie on one side of a plane each."""
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))
    truth = x @ torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, -0.5]]) > 0.3
    return labelled(x, truth)


def labelled(x: Tensor, truth: Tensor) -> Rows:
    names = tuple(f"label {number}" for number in range(truth.shape[1]))
    return Rows(Points(x), Dataset(Points(x), targets_of(truth), names))


def dense(rows: Rows) -> Tensor:
    """The targets, (rows, L) bool."""
    targets, truth = rows.data.targets, torch.zeros(len(rows), rows.data.num_labels, dtype=torch.bool)
    truth[targets.row, targets.col] = True
    return truth
