"""Encodes tables and embeddings: standardised numbers and embedded categories, with hidden layers or without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lopsided.data.inputs import Table
from lopsided.models.columns import Columns, Scale
from lopsided.models.encoder import Batch
from lopsided.models.recipe import Recipe, solved_recipe


@dataclass(frozen=True)
class TableRows:
    """Holds rows of a table, which are scaled when they are asked for."""

    numbers: Tensor  # (rows, D) float32, NaN where a cell is empty
    codes: Tensor  # (rows, C) int64
    scale: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.numbers)

    def batch(self, rows: Tensor) -> Batch:
        return self.scale(self.numbers[rows]), self.codes[rows]


class Mlp(nn.Module):
    """Computes hidden layers over numbers and the embeddings of categories.

    An embedding has the width of the first layer and is added there, which is what a linear layer over one column for
    every value would do.

    >>> mlp = Mlp(numbers=3, codes=5, hidden=8)
    >>> mlp(torch.zeros(2, 3), torch.tensor([[0, 4], [1, 3]])).shape
    torch.Size([2, 8])
    """

    def __init__(self, numbers: int, codes: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.width = hidden
        self.first = nn.Linear(numbers, hidden) if numbers else None
        self.embedding = nn.EmbeddingBag(codes, hidden, mode="sum") if codes else None
        self.activate = nn.Sequential(nn.ReLU(), nn.Dropout(dropout))
        more = [nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout)) for _ in range(layers - 1)]
        self.more = nn.Sequential(*more)

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        hidden = 0 if self.first is None else self.first(numbers)
        if self.embedding is not None:
            hidden = hidden + self.embedding(codes)
        result: Tensor = self.more(self.activate(hidden))
        return result


class Scaled(nn.Module):
    """Passes numbers on, beside one column for every value of a category: what a linear model sees of a table."""

    def __init__(self, numbers: int, codes: int) -> None:
        super().__init__()
        self.codes, self.width = codes, numbers + codes

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        values = torch.zeros(len(numbers), self.codes, dtype=numbers.dtype, device=numbers.device)
        return torch.cat([numbers, values.scatter_(1, codes, 1.0)], 1)


class FromNumbers(nn.Module):
    """Computes `body` of numbers as a file has them, NaN where a cell is empty, and of the codes of categories."""

    def __init__(self, scale: Scale, body: nn.Module) -> None:
        super().__init__()
        self.scale, self.body = scale, body

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        hidden: Tensor = self.body(self.scale(numbers), codes)
        return hidden


@dataclass(frozen=True)
class _TableEncoder:
    """Encodes a table by what its training rows were like."""

    inputs: ClassVar[type[Any]] = Table
    columns: Columns

    def encode(self, inputs: Table) -> TableRows:
        """Finds the columns of training by name. Raises ValueError where one is missing."""
        return TableRows(self.columns.numbers(inputs), self.columns.codes(inputs), self.columns.scale)

    def in_graph(self, inputs: Table, body: nn.Module) -> tuple[TableRows, nn.Module]:
        return replace(self.encode(inputs), scale=nn.Identity()), FromNumbers(self.columns.scale, body)


@dataclass(frozen=True)
class LinearTable(_TableEncoder):
    """Encodes a table for the head alone: a linear model of standardised numbers and of the values of categories.

    solve: whether it is solved, unless it is too large for that, or trained in steps.

    >>> table = Table.of_numbers(torch.tensor([[1.0, 1e9], [3.0, 2e9]]), ["age", "income"])
    >>> LinearTable.fit(table).encode(table).batch(torch.arange(2))[0]
    tensor([[-1., -1.],
            [ 1.,  1.]])
    """

    name: ClassVar[str] = "linear"
    solve: bool = True

    @classmethod
    def fit(cls, inputs: Table, solve: bool = True) -> LinearTable:
        return cls(Columns.of(inputs), solve)

    def make_body(self) -> Scaled:
        return Scaled(self.columns.scale.width, self.columns.num_codes)

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        width = self.make_body().width
        solved = solved_recipe(rows, rows * width, width, num_labels) if self.solve else None
        return solved or replace(recipe_of_layers(rows), learning_rate=0.03)

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return self.columns.stored()

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> LinearTable:
        return cls(Columns.from_stored(values, tensors))


@dataclass(frozen=True)
class MlpTable(_TableEncoder):
    """Encodes a table for hidden layers: standardised numbers, and embeddings of categories that are learnt.

    >>> table = Table.of_numbers(torch.randn(20, 3))
    >>> encoder = MlpTable.fit(table, hidden=8)
    >>> encoder.make_body()(*encoder.encode(table).batch(torch.arange(20))).shape
    torch.Size([20, 8])
    """

    name: ClassVar[str] = "mlp"
    hidden: int
    layers: int
    dropout: float

    @classmethod
    def fit(cls, inputs: Table, hidden: int = 512, layers: int = 1, dropout: float = 0.3) -> MlpTable:
        if hidden < 1 or layers < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"mlp: hidden and layers must be at least 1 and dropout in [0, 1), got {hidden}, {layers} and "
                f"{dropout:g}; a model without layers is called linear"
            )
        return cls(Columns.of(inputs), hidden, layers, dropout)

    def make_body(self) -> Mlp:
        return Mlp(self.columns.scale.width, self.columns.num_codes, self.hidden, self.layers, self.dropout)

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        return recipe_of_layers(rows)

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values, tensors = self.columns.stored()
        return values | {"hidden": self.hidden, "layers": self.layers, "dropout": self.dropout}, tensors

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> MlpTable:
        return cls(Columns.from_stored(values, tensors), values["hidden"], values["layers"], values["dropout"])


def recipe_of_layers(rows: int) -> Recipe:
    """Gives 20 epochs of some hundred steps, and fewer epochs where many rows give many steps."""
    batch_size = max(16, min(256, rows // 16))
    epochs = max(3, min(20, 6000 * batch_size // rows))
    return Recipe(epochs, batch_size, learning_rate=1e-3, weight_decay=0.3, average=0.98)
