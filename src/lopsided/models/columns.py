"""Learns from training rows how the columns of a table are read, and reads other tables the same way, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lopsided.data.inputs import Numbered, Table

_SAMPLE = 2**17  # rows, evenly spaced, on which a scale is measured
_BEND, _END = 8.0, 1e3  # spreads from the middle: where a number begins to count by its logarithm, and where that ends
_LEAST = 0.3  # spreads; a column that hardly ever leaves its middle is not blown up beyond this
_EMPTY, _OTHER, _FIRST = 0, 1, 2  # codes of a category: of an empty cell, of a value that is rare or new, of the others
_COMMON = 2  # training rows that a value needs for a code of its own


@dataclass(frozen=True)
class Scale:
    """Standardises columns of numbers, each by what it is like in the training rows.

    A number counts by its distance from the median, in spreads: the median distance of the numbers that differ from it.
    Far out, the logarithm of the distance counts, so that one number of 1e30 does not make all others equal. Then the
    mean becomes 0 and the standard deviation 1. A constant column becomes 0, whatever comes later, and so does an empty
    cell. All of it is computed in float64.

    center, spread, mean, std: (D,) float64, spread 0 for a constant column. gaps: (G,) int64, the columns with empty
    cells in training; a column more says for each of these whether the cell is empty.

    >>> scale = Scale.of(torch.tensor([[1.0, 7.0], [2.0, 7.0], [torch.nan, 7.0], [3.0, 7.0]]))
    >>> scale(torch.tensor([[2.0, 8.0], [torch.nan, 7.0]]))
    tensor([[0., 0., 0.],
            [0., 0., 1.]])
    """

    center: Tensor
    spread: Tensor
    mean: Tensor
    std: Tensor
    gaps: Tensor

    @classmethod
    def of(cls, numbers: Tensor) -> Scale:
        """Measures the columns of (rows, D) numbers."""
        sample = numbers[:: -(-len(numbers) // _SAMPLE)] if len(numbers) else numbers
        measured = torch.tensor([_measured(column.double()) for column in sample.T], dtype=torch.float64)
        center, spread, mean, std = measured.reshape(-1, 4).unbind(1)
        return cls(center, spread, mean, std, numbers.isnan().any(0).nonzero()[:, 0])

    @property
    def width(self) -> int:
        return len(self.center) + len(self.gaps)

    def __call__(self, numbers: Tensor) -> Tensor:
        """Returns (n, width) float32, finite, of (n, D) numbers."""
        is_constant = self.spread == 0
        distance = (numbers.double() - self.center) / self.spread.where(~is_constant, 1.0)
        scaled = ((_bent(distance) - self.mean) / self.std).where(~(is_constant | numbers.isnan()), 0.0)
        return torch.cat([scaled, numbers[:, self.gaps].isnan()], 1).float()


def _measured(column: Tensor) -> tuple[float, float, float, float]:
    """Returns center, spread, mean and deviation of a column; spread 0 if all is equal but for rounding to float32."""
    column = column[column.isfinite()]
    if not len(column):
        return 0.0, 0.0, 0.0, 1.0
    center = float(np.median(column.numpy()))
    distances = (column - center).abs()
    distances = distances[distances > 2 * torch.finfo(torch.float32).eps * abs(center)]
    if not len(distances):
        return center, 0.0, 0.0, 1.0
    spread = float(np.median(distances.numpy()))
    bent = _bent((column - center) / spread)
    return center, spread, bent.mean().item(), max(_LEAST, bent.std(correction=0).item())


def _bent(distance: Tensor) -> Tensor:
    far = _BEND * (1 + (distance.abs().clamp(_BEND, _END) / _BEND).log())
    return torch.where(distance.abs() > _BEND, distance.sign() * far, distance)


@dataclass(frozen=True)
class Columns:
    """Says what the columns of the training table are called, how its numbers are scaled, what its categories are.

    values: for each category, the texts with a code of their own.
    """

    number_names: Sequence[str]
    scale: Scale
    category_names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, table: Table) -> Columns:
        """Learns from training rows. Raises ValueError for a table without a column."""
        if not len(table.number_names) + len(table.category_names):
            raise ValueError("a table needs a column of numbers or of categories beside the labels, and has none")
        values = []
        for codes, texts in zip(table.categories.T, table.category_values, strict=True):
            counts = torch.bincount(codes[codes >= 0], minlength=len(texts)).tolist()
            values.append(tuple(text for text, count in zip(texts, counts, strict=True) if count >= _COMMON))
        return cls(table.number_names, Scale.of(table.numbers), table.category_names, tuple(values))

    @property
    def num_codes(self) -> int:
        """How many codes the categories have together."""
        return sum(_FIRST + len(texts) for texts in self.values)

    def numbers(self, table: Table) -> Tensor:
        """Returns the (rows, D) numbers of a table in the order of training. Raises ValueError for a missing column."""
        self._check(table)
        if table.number_names == self.number_names:
            return table.numbers
        columns = [_as_numbers(table, name) for name in self.number_names]
        return torch.stack(columns, 1) if columns else torch.empty(len(table), 0)

    def codes(self, table: Table) -> Tensor:
        """Returns (rows, C) int64 codes, those of each category after those of the one before.

        Raises ValueError for a missing column.
        """
        self._check(table)
        first, columns = 0, []
        for name, texts in zip(self.category_names, self.values, strict=True):
            columns.append(first + _as_codes(table, name, texts))
            first += _FIRST + len(texts)
        return torch.stack(columns, 1) if columns else torch.empty(len(table), 0, dtype=torch.long)

    def _check(self, table: Table) -> None:
        if table.number_names == self.number_names and table.category_names == self.category_names:
            return
        given, known = table.number_names, self.number_names
        if isinstance(given, Numbered) and isinstance(known, Numbered) and len(given) != len(known):
            raise ValueError(f"{len(given)} numbers a row, but {len(known)} in training")
        present = {*table.number_names, *table.category_names}
        missing = [name for name in (*self.number_names, *self.category_names) if name not in present]
        if missing:
            total = len(self.number_names) + len(self.category_names)
            raise ValueError(
                f"{len(missing)} of the {total} columns of training are missing here: {_some(missing)}; there are "
                f"{_some([*table.category_names, *table.number_names]) or 'none'}, which may stand in any order"
            )

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        names = self.number_names
        values = {
            "numbers": len(names) if isinstance(names, Numbered) else list(names),
            "categories": {name: list(texts) for name, texts in zip(self.category_names, self.values, strict=True)},
        }
        return values, dict(vars(self.scale))

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> Columns:
        names = Numbered(values["numbers"]) if isinstance(values["numbers"], int) else tuple(values["numbers"])
        texts = tuple(map(tuple, values["categories"].values()))
        return cls(names, Scale(**tensors), tuple(values["categories"]), texts)


def _as_numbers(table: Table, name: str) -> Tensor:
    """Returns a column of numbers, which may be one of texts in a file where some of them look like no number."""
    if name in table.number_names:
        return table.numbers[:, table.number_names.index(name)]
    place = table.category_names.index(name)
    numbers = [_number(text, name) for text in table.category_values[place]]
    return torch.tensor([*numbers, torch.nan])[table.categories[:, place]]


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"column {name!r} held numbers in training; here it holds {text!r}") from None


def _as_codes(table: Table, name: str, texts: Sequence[str]) -> Tensor:
    """Returns the codes of a column of categories, which may be one of numbers where all of them look like numbers.

    A number is the category that is written otherwise, 3.0 for 3, if only one is that number.
    """
    known = {text: _FIRST + number for number, text in enumerate(texts)}
    numbers_of = {text: np.float32(text) for text in texts if _looks_like_number(text)}
    times = Counter(numbers_of.values())
    by_number = {number: known[text] for text, number in numbers_of.items() if times[number] == 1}
    if name in table.category_names:
        place = table.category_names.index(name)
        codes = [
            known.get(text, by_number.get(np.float32(text), _OTHER) if _looks_like_number(text) else _OTHER)
            for text in table.category_values[place]
        ]
        return torch.tensor([*codes, _EMPTY])[table.categories[:, place]]
    numbers = table.numbers[:, table.number_names.index(name)]
    different, place_of = numbers.nan_to_num(nan=torch.inf).unique(return_inverse=True)
    codes = [by_number.get(number, _OTHER) for number in different.numpy()]
    return torch.tensor(codes, dtype=torch.long)[place_of].where(~numbers.isnan(), _EMPTY)


def _looks_like_number(text: str) -> bool:
    try:
        return bool(np.isfinite(np.float32(text)))
    except ValueError:
        return False


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
