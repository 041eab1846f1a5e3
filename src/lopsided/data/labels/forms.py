"""Reads columns of labels of which it is known how they hold them: names, vectors, columns of values, dictionaries."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

import torch

from lopsided.data.inputs import Numbered
from lopsided.data.labels.cells import NAN, Values, first_rows, for_each
from lopsided.data.labels.names import LabelNames
from lopsided.data.labels.separators import find_separator, split_names
from lopsided.data.labels.targets import Labels, sparse_targets
from lopsided.data.numbers import number_in
from lopsided.data.opening import Say, shown, typed
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

Columns = dict[str, list[Any]]
Where = Callable[[int], str]  # from a row to its file and line
Names = list[str] | None  # of a row; None if its labels are not known

_MISSING = ("?", "nan", "null")  # as a cell of names
_PAIR = re.compile(r"(.*\S)\s*[:=]\s*(\S+)", re.DOTALL)
_VECTOR_SIGNS = str.maketrans(",;|[]()", "       ")


@dataclass(frozen=True)
class Reading:
    """Holds what all readers of labels need."""

    where: Where
    options: ReadOptions
    say: Say
    values: Values
    names: LabelNames

    @cached_property
    def words(self) -> dict[str, float]:
        """Says what words mean that the user named: NaN for unknown, 0 for negative."""
        said = ((self.options.unknown, NAN), (self.options.negative, 0.0))
        return {word.strip().lower(): value for words, value in said for word in words}

    def error(self, row: int, column: str, expected: str, cell: Any) -> UserError:
        return UserError(f"{self.where(row)}: {shown(column)} must be {expected}, got {shown(cell)}")

    def value(self, row: int, column: str, cell: Any) -> float:
        """Returns the value of one label. Raises UserError where it is none."""
        value = self.values(cell)
        if value is None:
            expected = "0, 1, a number between or empty (unknown)"
            comma = " or --decimal ," if "," in str(cell) and number_in(str(cell), ",") is not None else ""
            raise UserError(
                f"{self.where(row)}: {shown(column)} must be {expected}, got {shown(cell)}; say what that means: "
                f"--unknown={shown(cell, 20)}, --negative or --positive{comma}"
            )
        return value

    def are_unknown(self, rows: Sequence[int], what: str, row_count: int) -> bool:
        """Tells whether labels that some rows leave out are unknown. Raises UserError where no option says it."""
        if rows and self.options.absent is None:
            raise UserError(
                f"{self.where(rows[0])}: {what} (as in {len(rows)} of {row_count} rows): is it negative, or unknown? "
                "Say --absent negative or --absent unknown"
            )
        if rows:
            self.say(f"{what}: {self.options.absent}, in {len(rows)} of {row_count} rows")
        return self.options.absent == "unknown"


def is_missing(cell: Any) -> bool:
    """Tells whether there is nothing in a cell: None, NaN, or a text of blanks."""
    return cell is None or cell != cell or (isinstance(cell, str) and not cell.strip())


def read_names(reading: Reading, columns: Columns) -> Labels:
    """Reads cells that hold one name or number of a label, or several."""
    rows = _joined([_names_of(reading, column, cells) for column, cells in columns.items()])
    clean: list[Names] = []
    for number, names in enumerate(rows):
        if names is not None:
            where = reading.where(number)
            names = [name for name in (reading.names.name(raw, where) for raw in names) if name]
        clean.append(names)
    return _from_names(reading, clean, columns)


def _from_names(reading: Reading, rows: list[Names], columns: Columns) -> Labels:
    names = reading.names.ordered({name for row in rows for name in row or ()}, reading.say)
    number = {name: place for place, name in enumerate(names)}
    missing = [row for row, labels in enumerate(rows) if labels is None]
    unknown = reading.are_unknown(missing, f"no labels in column {_listed(columns)}", len(rows))
    lengths = torch.tensor([len(row or ()) for row in rows], dtype=torch.long)
    row = torch.arange(len(rows)).repeat_interleave(lengths)
    col = torch.tensor([number[name] for labels in rows for name in labels or ()], dtype=torch.long)
    values = None
    if missing and unknown:
        values = torch.cat([torch.ones(len(row)), torch.full((len(missing) * len(names),), NAN)])
        row = torch.cat([row, torch.tensor(missing).repeat_interleave(len(names))])
        col = torch.cat([col, torch.arange(len(names)).repeat(len(missing))])
    return Labels(sparse_targets(row, col, values, len(rows), len(names)), names)


def _joined(columns: list[list[Names]]) -> list[Names]:
    """Returns the names of each row in all columns; None where all columns have None."""
    if len(columns) == 1:
        return columns[0]
    joined: list[Names] = []
    for parts in zip(*columns, strict=True):
        listed = [part for part in parts if part is not None]
        joined.append([name for part in listed for name in part] if listed else None)
    return joined


def _names_of(reading: Reading, column: str, cells: list[Any]) -> list[Names]:
    texts = [cell for cell in cells if isinstance(cell, str) and not is_missing(cell)]
    bracketed = sum(map(_is_bracketed, texts)) if reading.options.label_form is None else 0
    if bracketed and bracketed < len(texts):
        row = next(row for row, cell in enumerate(cells) if isinstance(cell, str) and _is_bracketed(cell))
        raise UserError(
            f"{reading.where(row)}: {shown(column)} is {shown(cells[row])}, a list that cannot be read; if the "
            "brackets belong to a name: --label-form names"
        )
    if bracketed:
        cells = [cell.strip()[1:-1] if isinstance(cell, str) else cell for cell in cells]
        texts = [cell.strip()[1:-1] for cell in texts]
    given = reading.options.separator
    separator = "" if given is None else typed(given)
    if given is None and texts:
        separator = find_separator(f"{reading.where(0)}: column {shown(column)}", texts)
    if reading.options.label_form is None and texts:
        _refuse_pairs(reading, column, cells, separator)
    reading.say(f"labels: {_describe(cells, separator)} in column {shown(column)}")
    return [_names_in(reading, row, column, cell, separator) for row, cell in enumerate(cells)]


def _refuse_pairs(reading: Reading, column: str, cells: list[Any], separator: str) -> None:
    """Raises UserError if each name ends in a value, such as "drama:0", and some have two values."""
    different = [(row, cell) for row, cell in first_rows(cells) if isinstance(cell, str)]
    parts = {part: row for row, cell in reversed(different) for part in split_names(cell, separator)}
    pairs = [_PAIR.fullmatch(part) for part in parts]
    named = [pair for pair in pairs if pair and reading.values(pair[2]) is not None]
    if named and len(named) == len(parts) and len({pair[1] for pair in named}) < len(named):
        part, row = min(parts.items(), key=itemgetter(1))
        raise UserError(
            f"{reading.where(row)}: {shown(column)} holds {shown(part)}: the name of a label (--label-form names)? "
            'Names with values must be written as {"name": 1, "another": 0}'
        )


def _is_bracketed(cell: str) -> bool:
    return cell.strip()[:1] + cell.strip()[-1:] in ("[]", "{}", "()")


def _describe(cells: list[Any], separator: str) -> str:
    if any(isinstance(cell, list) for cell in cells):
        return "lists of names"
    return f"names between {shown(separator)}" if separator else "one name a row"


def _names_in(reading: Reading, row: int, column: str, cell: Any, separator: str) -> Names:
    word = cell.strip().lower() if isinstance(cell, str) else None
    if word in _MISSING or (word is None and is_missing(cell)):
        return None
    if isinstance(cell, list | tuple) or cell == {}:
        names = [_name(reading, row, column, item, cell) for item in cell if item is not None]
    elif word is None or word in reading.words:
        names = [_name(reading, row, column, cell, cell)]
    else:
        names = split_names(cell, separator)
    if not reading.words:
        return names
    meanings = [reading.words.get(name.strip().lower()) for name in names]
    labels = [name for name, meaning in zip(names, meanings, strict=True) if meaning is None]
    unknown = any(meaning is not None and math.isnan(meaning) for meaning in meanings)
    if unknown and labels:
        raise reading.error(row, column, "names of labels, or a word that --unknown names, not both", cell)
    return None if unknown else labels


def _name(reading: Reading, row: int, column: str, item: Any, cell: Any) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, bool) or not (isinstance(item, int) or (isinstance(item, float) and item.is_integer())):
        raise reading.error(row, column, "a list of names", cell)
    return str(int(item))


def read_vectors(reading: Reading, columns: Columns) -> Labels:
    """Reads cells that hold a value for each label, in the same order in all rows."""
    if len(columns) != 1:
        raise UserError(f"--label-form vector needs one label column, got {_listed(columns)}")
    ((column, cells),) = columns.items()
    rows = [_digits(vector_of(cell)) for cell in cells]
    missing = [row for row, vector in enumerate(rows) if vector is None]
    unknown = reading.are_unknown(missing, f"no labels in column {shown(column)}", len(rows))
    width = next((len(vector) for vector in rows if vector is not None), 0)
    names = reading.names.listed or Numbered(width)
    values = torch.full((len(rows), len(names)), NAN if unknown else 0.0)
    for place, vector in enumerate(rows):
        if vector is None:
            continue
        if len(vector) != len(names):
            raise UserError(f"{reading.where(place)}: {shown(column)} has {len(vector)} values for {len(names)} labels")
        values[place] = torch.tensor([reading.value(place, column, item) for item in vector])
    reading.say(f"labels: vectors of {width} values in column {shown(column)}")
    if not reading.names.listed:
        reading.say(f"the labels have no names but their numbers, 0 to {width - 1} (name them with --labels-file)")
    row, col = values.nonzero(as_tuple=True)
    return Labels(sparse_targets(row, col, values[row, col], len(rows), len(names)), names)


def _digits(vector: list[Any] | None) -> list[Any] | None:
    """Returns ["0", "1"] for ["01"]; any other vector as it is."""
    if vector is None or len(vector) != 1 or not isinstance(vector[0], str) or vector[0].strip("01"):
        return vector
    return list(vector[0])


def vector_of(cell: Any) -> list[Any] | None:
    """Returns the values in a cell, such as [1, 0, 0], "1,0,0" or "1 0 0"; None if there is nothing in it."""
    if isinstance(cell, list | tuple):
        return list(cell) or None
    return None if is_missing(cell) else str(cell).translate(_VECTOR_SIGNS).split()


def read_columns(reading: Reading, columns: Columns) -> Labels:
    """Reads columns that are labels, whose cells say whether a row has it. An empty one is unknown."""
    names = [reading.names.name(column, "the header") for column in columns]
    order = reading.names.listed or tuple(dict.fromkeys(names))
    for column, cells in columns.items():
        for row, cell in first_rows(cells):
            reading.value(row, column, cell)  # raises UserError
    values = [torch.tensor(for_each(reading.values, cells)) for cells in columns.values()]
    empty = [torch.tensor(for_each(is_missing, cells)).nonzero().squeeze(1) for cells in columns.values()]
    if reading.options.absent or not any(bool((column == 0).any()) for column in values):
        what = "an empty cell where label columns hold no 0" if reading.options.absent is None else "an empty cell"
        some_empty = torch.cat(empty).unique().tolist()
        if not reading.are_unknown(some_empty, what, len(values[0])):
            for value, places in zip(values, empty, strict=True):
                value[places] = 0.0
    rows = [column.nonzero().squeeze(1) for column in values]
    place = {name: number for number, name in enumerate(order)}
    columns_of = [torch.full_like(row, place[name]) for name, row in zip(names, rows, strict=True)]
    entries = torch.cat([value[row] for value, row in zip(values, rows, strict=True)])
    reading.say(f"labels: {len(columns)} columns of values, {_listed(columns)}")
    return Labels(sparse_targets(torch.cat(rows), torch.cat(columns_of), entries, len(values[0]), len(order)), order)


def read_dicts(reading: Reading, columns: Columns) -> Labels:
    """Reads cells with names of labels and the value of each. A name that a row lacks is unknown if others say 0."""
    (column, cells), *others = columns.items()
    if others:
        raise UserError(f"one column of names with values is expected, got {_listed(columns)}")
    rows = [_named_values(reading, row, column, cell) for row, cell in enumerate(cells)]
    names = reading.names.ordered({name for row in rows for name in row}, reading.say)
    lacking = [number for number, row in enumerate(rows) if len(row) < len(names)]
    zeros = any(value == 0 for row in rows for value in row.values())
    unknown = bool(lacking) and zeros and reading.options.absent is None
    if unknown:
        reading.say(f"a label that {shown(column)} lacks is unknown, in {len(lacking)} of {len(rows)} rows")
    else:
        unknown = reading.are_unknown(lacking, f"a label that {shown(column)} lacks", len(rows))
    reading.say(f"labels: names with values in column {shown(column)}")
    number = {name: place for place, name in enumerate(names)}
    row, col, values = [], [], []
    for place, listed in enumerate(rows):
        for name in names if unknown else listed:
            row.append(place)
            col.append(number[name])
            values.append(listed.get(name, NAN))
    entries = torch.tensor(row, dtype=torch.long), torch.tensor(col, dtype=torch.long), torch.tensor(values)
    return Labels(sparse_targets(*entries, len(rows), len(names)), names, unknown)


def _named_values(reading: Reading, row: int, column: str, cell: Any) -> dict[str, float]:
    if is_missing(cell):
        return {}
    if cell == []:
        return {}
    if not isinstance(cell, dict):
        raise reading.error(row, column, "an object of names and values", cell)
    named = ((reading.names.name(str(name), reading.where(row)), value) for name, value in cell.items())
    return {name: reading.value(row, f"{column}.{name}", value) for name, value in named if name}


def _listed(columns: Columns) -> str:
    names = list(map(shown, columns))
    return ", ".join(names if len(names) <= 8 else [*names[:8], f"and {len(names) - 8} more"])
