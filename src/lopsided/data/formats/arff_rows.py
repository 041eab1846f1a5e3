"""Parses ARFF: attributes, and rows that are dense or sparse."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NoReturn, cast

import numpy as np

from lopsided.data.numbers import number_in
from lopsided.data.opening import OnBytes, Say, read_lines, shown
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

_QUOTED = r"'[^'\\]*(?:\\.[^'\\]*)*'|\"[^\"\\]*(?:\\.[^\"\\]*)*\""
_TOKEN = re.compile(rf"\s*((?:\d+\s+)?(?:{_QUOTED})|[^,]*?)\s*(?:,|$)")  # of a sparse row, a number stands before it
_ATTRIBUTE = re.compile(rf"@attribute\s+({_QUOTED}|\S+)\s+(.*\S)\s*", re.IGNORECASE)
_RELATION = re.compile(r"@relation\s+(.*\S)\s*", re.IGNORECASE)
_ITEM = re.compile(rf"(\d+)\s+({_QUOTED}|\S+)")
_NUMBERS = {"numeric", "real", "integer"}


@dataclass(frozen=True)
class Attribute:
    """Holds a column. values: those of a nominal attribute; None for a number. is_text: whether cells are any text."""

    name: str
    values: tuple[str, ...] | None = None
    is_text: bool = False

    @property
    def is_binary(self) -> bool:
        return self.values is not None and sorted(self.values) == ["0", "1"]

    @property
    def is_category(self) -> bool:
        return self.values is not None and not self.is_binary


@dataclass
class Cells:
    """Holds cells of rows as numbers: of a nominal attribute, which value; of a text, which of `texts`; NaN for "?".

    starts: of sparse rows, where each begins in `column` and `value`; None if every row has all cells. Cells that a
    sparse row leaves out are 0, which is a nominal attribute's first value.
    """

    rows: int = 0
    starts: array[int] | None = None
    column: array[int] = field(default_factory=lambda: array("q"))
    value: array[float] = field(default_factory=lambda: array("d"))
    texts: list[str] = field(default_factory=list)

    def matrix(self, columns: Sequence[int], attributes: int) -> np.ndarray:
        """Returns (rows, columns) float64, of columns chosen among so many attributes."""
        if self.starts is None:
            return np.frombuffer(self.value).reshape(self.rows, attributes)[:, columns]
        row, column, value = self.entries(columns, attributes)
        matrix = np.zeros((self.rows, len(columns)))
        matrix[row, column] = value
        return matrix

    def entries(self, columns: Sequence[int], attributes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns row, place among the chosen columns, and value of each cell that stands in a sparse row."""
        row = np.repeat(np.arange(self.rows), np.diff(np.array(self.starts)))
        place = np.full(attributes, -1)
        place[columns] = np.arange(len(columns))
        column = place[np.array(self.column)]
        chosen = column >= 0
        return row[chosen], column[chosen], np.array(self.value)[chosen]


@contextmanager
def open_arff(path: Path, options: ReadOptions, say: Say, on_bytes: OnBytes) -> Iterator[ArffFile]:
    """Opens a file and reads its header."""
    lines = cast("Generator[str, None, None]", read_lines(path, options, say, on_bytes))
    with closing(lines):
        yield ArffFile(path, lines)


class ArffFile:
    """Parses a file: its attributes at once, its rows when they are asked for."""

    def __init__(self, path: Path, lines: Iterator[str]) -> None:
        self.path = path
        self.relation = ""
        self.attributes: list[Attribute] = []
        self._lines = enumerate(lines, 1)
        self._read_header()
        self._codes = [
            None if a.values is None else {value: code for code, value in enumerate(a.values)} for a in self.attributes
        ]
        names = [attribute.name for attribute in self.attributes]
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise UserError(f"{path}: the attribute {shown(twice)} stands twice in the header")

    def _read_header(self) -> None:
        for number, line in self._lines:
            line = line.strip()
            keyword = line.split(maxsplit=1)[0].lower() if line else "%"
            if keyword.startswith("%"):
                continue
            if keyword == "@data":
                return
            if match := _RELATION.fullmatch(line):
                self.relation = unquoted(match[1])
            elif match := _ATTRIBUTE.fullmatch(line):
                self.attributes.append(self._attribute(number, unquoted(match[1]), match[2]))
            else:
                self._fail(number, f"expected @relation, @attribute or @data, got {shown(line)}")
        raise UserError(f"{self.path}: no line @data, after which the rows of an ARFF file begin")

    def _attribute(self, number: int, name: str, kind: str) -> Attribute:
        if kind.startswith("{") and kind.endswith("}"):
            return Attribute(name, tuple(unquoted(token) for token in _tokens(kind[1:-1])))
        word = kind.split()[0].lower()
        if word not in _NUMBERS | {"string"}:
            self._fail(
                number, f"{shown(name)} is of the type {shown(kind)}; only numbers, strings and nominal are read"
            )
        return Attribute(name, is_text=word == "string")

    def read(self, rows: int | None) -> Cells:
        """Returns the next rows; all that are left for None."""
        cells = Cells()
        data = ((number, line) for number, line in self._lines if line.strip() and not line.lstrip().startswith("%"))
        for number, line in islice(data, rows):
            line = line.strip()
            sparse = line.startswith("{")
            if cells.rows == 0 and sparse:
                cells.starts = array("q", [0])
            if sparse != (cells.starts is not None):
                self._fail(number, "sparse rows, such as {0 1, 4 0.5}, and dense ones in one file")
            (self._sparse_row if sparse else self._dense_row)(number, line, cells)
            cells.rows += 1
        return cells

    def _dense_row(self, number: int, line: str, cells: Cells) -> None:
        tokens = _tokens(line)
        if len(tokens) != len(self.attributes):
            self._fail(number, f"{len(tokens)} values, but the header has {len(self.attributes)} attributes")
        cells.value.extend([self._number(number, column, token, cells) for column, token in enumerate(tokens)])

    def _sparse_row(self, number: int, line: str, cells: Cells) -> None:
        if not line.endswith("}") or re.search(r"}\s*,\s*{", line):
            self._fail(number, f"expected a row such as {{0 1, 4 0.5}} without a weight, got {shown(line)}")
        columns = set()
        for token in _tokens(line[1:-1]) if line[1:-1].strip() else []:
            match = _ITEM.fullmatch(token)
            column = int(match[1][:18]) if match else -1
            if match is None or column >= len(self.attributes):
                most = len(self.attributes) - 1
                self._fail(
                    number, f"expected an attribute, 0 to {most}, and its value, such as 4 0.5, got {shown(token)}"
                )
            if column in columns:
                self._fail(number, f"the attribute {column} stands twice in the row")
            columns.add(column)
            cells.column.append(column)
            cells.value.append(self._number(number, column, match[2], cells))
        assert cells.starts is not None
        cells.starts.append(len(cells.column))

    def _number(self, number: int, column: int, token: str, cells: Cells) -> float:
        if token == "?":
            return math.nan
        attribute, codes = self.attributes[column], self._codes[column]
        if attribute.is_text:
            if cells.starts is not None:
                self._fail(number, f"{shown(attribute.name)} is a string, which is read in dense rows alone")
            cells.texts.append(unquoted(token))
            return len(cells.texts) - 1
        if codes is not None:
            code = codes.get(unquoted(token))
            if code is None:
                values = shown(", ".join(attribute.values or ()))
                self._fail(number, f"{shown(attribute.name)} is {shown(token)}, which is none of its values {values}")
            return code
        value = number_in(token)
        if value is None or math.isinf(value):
            self._fail(number, f"{shown(attribute.name)} is {shown(token)}; expected a number")
        return value

    def _fail(self, line: int, problem: str) -> NoReturn:
        raise UserError(f"{self.path}, line {line}: {problem}")


def _tokens(text: str) -> list[str]:
    """Cuts at the commas that stand in no quotation marks."""
    if "'" not in text and '"' not in text:
        return [token.strip() for token in text.split(",")]
    tokens, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:  # a quotation mark that nothing closes is a letter
            return [token.strip() for token in text.split(",")]
        tokens.append(match[1])
        place = match.end()
    return [*tokens, ""] if text.endswith(",") else tokens


def unquoted(token: str) -> str:
    """Returns a name or value without the quotation marks and backslashes that protect it."""
    if len(token) > 1 and token[0] == token[-1] and token[0] in "'\"":
        token = token[1:-1]
    token = token.replace("\\\\", "\0")  # which no text holds; `re` takes half a microsecond for each
    last = "\\" * token.endswith("\\")  # it protects nothing
    return token.replace("\\", "").replace("\0", "\\") + last
