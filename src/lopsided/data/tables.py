"""Makes tables of the cells of a file: columns of numbers, of categories, and of lists of numbers (embeddings)."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lopsided.data.inputs import Table
from lopsided.data.labels.forms import Where
from lopsided.data.labels.names import is_text
from lopsided.data.makers import Column
from lopsided.data.numbers import MISSING, number_in
from lopsided.data.opening import Say, shown
from lopsided.data.storage import UserError

_WORDS = 3  # of a cell, on the average, from which on a column looks like texts
_ROW_NUMBERS = {"", "id", "index", "row", "row_id", "unnamed: 0"}  # in lower case, as the name of a column
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LIST = re.compile(rf"\s*\[\s*{_NUMBER}(?:[\s,]+{_NUMBER})*[\s,]*\]\s*")
_LARGEST = float(np.finfo(np.float32).max)


class Vectors(Sequence[list[float]]):
    """Holds cells that are lists of numbers, all of one length: (rows, width) values."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        return self.values[place].tolist()


@dataclass(frozen=True)
class TableColumns:
    """Names the columns of each kind. vectors: whose cells are lists of numbers, all of one length.

    decimal: the sign before the fraction of a number, as of `number_in`.
    """

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    vectors: tuple[str, ...]
    decimal: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return self.numbers + self.categories + self.vectors


def choose_columns(
    where: Where,
    column: Column,
    names: Sequence[str],
    categories: Sequence[str],
    asked: Sequence[str],
    say: Say,
    decimal: str | None = None,
) -> TableColumns:
    """Tells by the first rows what the columns hold.

    categories: those that are categories whatever they hold. asked: those that the user named; others that number the
    rows are left out. decimal: the sign before the fraction of a number, as of `number_in`. Raises UserError for a
    column of texts that hardly repeat, of numbers with commas where `decimal` is None, or of anything else.
    """
    kinds: dict[str, str] = {}
    for name in names:
        cells = column(name)
        if name not in asked and name not in categories and name.strip().lower() in _ROW_NUMBERS and _all_differ(cells):
            say(f"column {shown(name)} numbers the rows and is left out (take it with --feature-columns)")
            continue
        kinds[name] = "category" if name in categories else _kind(where, name, cells, name in asked, decimal)
        if kinds[name] == "text":
            raise UserError(_text_or_category(where, name, names, column, decimal))
    numbers, categories, vectors = (
        tuple(name for name in kinds if kinds[name] == kind) for kind in ("number", "category", "vector")
    )
    counts = {"numbers": len(numbers), "categories": len(categories), "lists of numbers": len(vectors)}
    say("inputs: columns of " + ", ".join(f"{kind} ({count})" for kind, count in counts.items() if count))
    return TableColumns(numbers, categories, vectors, decimal)


def _all_differ(cells: Sequence[Any]) -> bool:
    return len(set(map(str, cells))) == len(cells)


def _kind(where: Where, name: str, cells: Sequence[Any], asked: bool, decimal: str | None) -> str:
    """Returns number, category or vector; or text, for what may be one."""
    if isinstance(cells, Vectors):
        return "vector"
    present = [(row, cell) for row, cell in enumerate(cells) if not _is_empty(cell)]
    if present and all(_is_vector(cell) for _, cell in present):
        return "vector"
    for row, cell in present:
        if not isinstance(cell, str) and _number(cell, decimal) is None:
            raise UserError(
                f"{where(row)}: {shown(name)} is {shown(cell)} ({type(cell).__name__}): neither number, category nor "
                "text; name the columns to use with --feature-columns"
            )
    if _are_numbers(present, decimal):
        return "number"
    if decimal is None:
        _refuse_commas(where, name, present)
    different = {str(cell).strip() for _, cell in present}
    return "text" if not asked and 2 * len(different) > len(present) else "category"


def _text_or_category(where: Where, name: str, names: Sequence[str], column: Column, decimal: str | None) -> str:
    """Asks what a column holds, and names the one that looks most like texts: that with the most words a row."""
    present = [(row, str(cell).strip()) for row, cell in enumerate(column(name)) if not _is_empty(cell)]
    row, cell = next((row, cell) for row, cell in present if _number(cell, decimal) is None)
    different = len({cell for _, cell in present})
    words, text = max((_words(column(other)), other) for other in names)
    hint = f"; {shown(text)} has several words a row: if those are the texts, --text-column {shown(text)}"
    return (
        f"{where(row)}: {shown(name)} is {shown(cell)}: a text (--text-column), or one of {different} "
        f"categories in {len(present)} rows (--category-columns)? Or name the columns to use with --feature-columns"
        f"{hint if words >= _WORDS else ''}"
    )


def _words(cells: Sequence[Any]) -> float:
    """Returns how many words a cell has on the average."""
    return sum(len(str(cell).split()) for cell in cells) / max(1, len(cells))


def _is_empty(cell: Any, empty: Container[str] = MISSING) -> bool:
    if isinstance(cell, str):
        return cell.strip().lower() in empty
    return cell is None or (isinstance(cell, float) and cell != cell)


def _is_vector(cell: Any) -> bool:
    if isinstance(cell, str):
        return bool(_LIST.fullmatch(cell))
    return isinstance(cell, list | tuple) and all(isinstance(item, int | float) for item in cell)


def _number(cell: Any, decimal: str | None) -> float | None:
    """Returns the number that a cell is or writes; None if it is none."""
    if isinstance(cell, str):
        return number_in(cell, decimal)
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return None


def _are_numbers(present: Sequence[tuple[int, Any]], decimal: str | None) -> bool:
    return all(_number(cell, decimal) is not None for _, cell in present)


def _refuse_commas(where: Where, name: str, present: Sequence[tuple[int, Any]]) -> None:
    """Raises UserError if all cells are numbers once it is said what a comma in them means."""
    possible = [f"--decimal {sign}" for sign in (",", ".") if _are_numbers(present, sign)]
    if possible:
        row, cell = next((row, cell) for row, cell in present if _number(cell, None) is None)
        raise UserError(
            f"{where(row)}: {shown(name)} is {shown(cell)}: a number ({' or '.join(possible)}: the sign before its "
            "fraction), or a category (--category-columns)?"
        )


class TableMaker:
    """Makes tables of the rows of a file, block by block; a category has the same code in all of them.

    >>> maker = TableMaker(TableColumns(("size",), ("colour",), ()))
    >>> table = maker.make("line {}".format, {"size": ["1.5", ""], "colour": ["red", "blue"]}.__getitem__, rows=2)
    >>> table.numbers.tolist(), table.categories.tolist(), table.category_values
    ([[1.5], [nan]], [[0], [1]], (('red', 'blue'),))
    """

    def __init__(self, columns: TableColumns) -> None:
        self.columns = columns
        self._codes: dict[str, dict[str, int]] = {name: {} for name in columns.categories}
        self._widths: dict[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return self.columns.names

    def join(self, parts: Sequence[Table]) -> Table:
        """Joins what `make` returned."""
        numbers, categories = (torch.cat([getattr(part, name) for part in parts]) for name in ("numbers", "categories"))
        return replace(parts[-1], numbers=numbers, categories=categories)

    def make(self, where: Where, column: Column, rows: int) -> Table:
        """Makes the table of some rows. Raises UserError for a cell that is not what its column holds."""
        parts = [self._numbers(where, name, column(name))[:, None] for name in self.columns.numbers]
        parts += [self._vectors(where, name, column(name)) for name in self.columns.vectors]
        numbers = np.concatenate(parts, 1) if parts else np.empty((rows, 0), np.float32)
        codes = [self._categories(where, name, column(name)) for name in self.columns.categories]
        categories = torch.tensor(codes, dtype=torch.long).reshape(len(codes), rows).T.contiguous()
        values = tuple(map(tuple, self._codes.values()))
        return Table(torch.from_numpy(numbers), self._number_names(), categories, self.columns.categories, values)

    def _number_names(self) -> tuple[str, ...]:
        items = [f"{name}.{item}" for name in self.columns.vectors for item in range(self._widths[name])]
        return (*self.columns.numbers, *items)

    def _numbers(self, where: Where, name: str, cells: Sequence[Any]) -> np.ndarray:
        numbers = [math.nan if _is_empty(cell) else _number(cell, self.columns.decimal) for cell in cells]
        if None in numbers:
            row = numbers.index(None)
            raise UserError(
                f"{where(row)}: {shown(name)} is {shown(cells[row])}; expected a number, as in the first rows "
                "(or is it a category? --category-columns)"
            )
        return _as_float32(where, name, np.array(numbers, dtype=np.float64))

    def _vectors(self, where: Where, name: str, cells: Sequence[Any]) -> np.ndarray:
        vectors = cells.values if isinstance(cells, Vectors) else _read_vectors(where, name, cells)
        width = self._widths.setdefault(name, len(vectors[0]))
        for row, vector in enumerate(vectors):
            if len(vector) != width:
                raise UserError(f"{where(row)}: {shown(name)} has {len(vector)} numbers, but {width} in the first row")
        return _as_float32(where, name, np.array(vectors, dtype=np.float64).reshape(len(vectors), width))

    def _categories(self, where: Where, name: str, cells: Sequence[Any]) -> list[int]:
        codes, listed = self._codes[name], len(self._codes[name])
        row_codes = [-1 if _is_empty(c, ("", "?")) else codes.setdefault(str(c).strip(), len(codes)) for c in cells]
        for value in list(codes)[listed:]:
            if not is_text(value):
                row = row_codes.index(codes[value])
                raise UserError(f"{where(row)}: {shown(name)} must be valid text, got {shown(value)}")
        return row_codes


def _read_vectors(where: Where, name: str, cells: Sequence[Any]) -> list[Any]:
    for row, cell in enumerate(cells):
        if _is_empty(cell) or not _is_vector(cell):
            raise UserError(f"{where(row)}: {shown(name)} is {shown(cell)}; expected a list of numbers")
    return [
        np.fromstring(cell.strip("[] \t\r\n").replace(",", " "), sep=" ") if isinstance(cell, str) else cell
        for cell in cells
    ]


def _as_float32(where: Where, name: str, numbers: np.ndarray) -> np.ndarray:
    large = np.abs(numbers) > _LARGEST
    if large.any():
        row = int(large.reshape(len(large), -1).any(1).argmax())
        raise UserError(f"{where(row)}: {shown(name)} has a number that is infinite or too large for float32")
    return numbers.astype(np.float32)
