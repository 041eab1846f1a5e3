"""Makes targets of the cells in which people write labels. Where a column can be read in two ways it asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from lopsided.data.labels.cells import Choices, Values, first_rows, for_each, unpacked
from lopsided.data.labels.forms import (
    Columns,
    Reading,
    Where,
    is_missing,
    read_columns,
    read_dicts,
    read_names,
    read_vectors,
    vector_of,
)
from lopsided.data.labels.names import LabelNames
from lopsided.data.labels.targets import Labels
from lopsided.data.numbers import number_in
from lopsided.data.opening import Say, shown
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

FORMS: dict[str, Callable[[Reading, Columns], Labels]] = {
    "names": read_names,
    "vector": read_vectors,
    "columns": read_columns,
    "dicts": read_dicts,
}


def read_labels(columns: Mapping[str, Sequence[Any]], where: Where, options: ReadOptions, say: Say) -> Labels:
    """Reads the label columns of all rows of a file.

    Raises UserError for a cell that is no label, and where a column has two readings and no option says which.

    >>> cells = ["['Crime', 'Drama ']", "[]", "['Drama']"]
    >>> labels = read_labels({"labels": cells}, "line {}".format, ReadOptions(), print)
    labels: lists of names in column 'labels'
    >>> labels.names, labels.targets.crow.tolist(), labels.targets.col.tolist()
    (('Crime', 'Drama'), [0, 2, 2, 3], [0, 1, 1])
    """
    reading = Reading(where, options, say, Values(options), LabelNames(options))
    unpacked_columns = {name: for_each(unpacked, cells) for name, cells in columns.items()}
    return FORMS[options.label_form or find_form(reading, unpacked_columns)](reading, unpacked_columns)


def find_form(reading: Reading, columns: Columns) -> str:
    """Returns how the columns hold labels: a key of FORMS. Raises UserError where two forms are possible."""
    kinds = {name: _kind(reading, name, cells) for name, cells in columns.items()}
    present = set(kinds.values()) - {"empty"}
    one = len(columns) == 1
    if present == {"dicts"}:
        return "dicts"
    if present == {"lists"}:
        return _form_of_lists(reading, columns) if one else "names"
    if present == {"values"}:
        if one and not reading.options.labels_file:
            _ask_what_one_column_means(reading, columns)
        return "names" if one else "columns"
    if {"lists", "dicts"} & present or {"values", "names"} <= present:
        _refuse_odd_cell(reading, kinds, columns)
        columns_of = {kinds[name]: name for name in kinds if kinds[name] in present}
        (kind, name), (other, other_name) = list(columns_of.items())[:2]
        raise UserError(f"{reading.where(0)}: {shown(name)} holds {kind}, {shown(other_name)} {other}; {_ONE_KIND}")
    if not one:
        _refuse_commas(reading, columns)
        _refuse_words(reading, columns)
    if not one and "numbers" in present:
        return _form_of_numbers(reading, columns)
    return _form_of_texts(reading, columns) if one and present else "names"


_MOST_WORDS = 4  # of several columns: 0, 1, -1 and one more
_ONE_KIND = "name columns of one kind in --label-columns, or say --label-form"


def _refuse_commas(reading: Reading, columns: Columns) -> None:
    """Raises UserError if all columns hold values once a comma stands before their fraction."""
    if reading.options.decimal is None and reading.options.separator is None:
        values = Values(reading.options.model_copy(update={"decimal": ","}))
        present = [(row, name, cell) for name, cells in columns.items() for row, cell in first_rows(cells)]
        if all(values(cell) is not None for _, _, cell in present):
            row, name, cell = next(each for each in present if reading.values(each[2]) is None)
            raise UserError(
                f"{reading.where(row)}: {shown(name)} is {shown(cell)}: the value of a label (--decimal ,), or two "
                "labels (--separator ,)?"
            )


def _refuse_words(reading: Reading, columns: Columns) -> None:
    """Raises UserError if all columns hold the same few words: one or two, such as "x", or -1 beside 0 and 1."""
    present = [(row, name, cell) for name, cells in columns.items() for row, cell in first_rows(cells)]
    present = [each for each in present if not is_missing(each[2])]
    words = {str(cell).strip().casefold() for _, _, cell in present}
    odd = [each for each in present if reading.values(each[2]) is None and not str(each[2]).strip().isdecimal()]
    if not odd or len(words) > _MOST_WORDS:
        return
    row, column, cell = odd[0]
    beside_values = {0.0, 1.0} <= {reading.values(word) for word in words} or number_in(str(cell)) is not None
    if len(words) > 2 and not beside_values:
        return
    word = shown(cell, 20)
    meaning = f"--positive={word}" + ", --negative or the other way round" * (len(words) > 1)
    if beside_values:
        meaning = f"say what {word} means: --unknown={word}, --negative={word} or --positive={word}"
    raise UserError(
        f"{reading.where(row)}: {shown(column)} is {shown(cell)}, and all label columns hold nothing but "
        f"{', '.join(map(shown, sorted(words)))}: names of labels (--label-form names), or do they say whether "
        f"a row has the label of the column ({meaning})?"
    )


def _refuse_odd_cell(reading: Reading, kinds: dict[str, str], columns: Columns) -> None:
    """Raises UserError for a cell that is no value in a column that begins with values, beside columns of values."""
    for column, cells in columns.items():
        first = next((cell for cell in cells if not is_missing(cell)), None)
        if kinds[column] in ("names", "numbers") and reading.values(first) is not None:
            for row, cell in enumerate(cells):
                reading.value(row, column, cell)


def _kind(reading: Reading, column: str, cells: list[Any]) -> str:
    """Returns what the cells of a column are: lists, dicts, values (0, 1 and between), numbers or names."""
    first: dict[str, int] = {}
    present = [(row, cell) for row, cell in first_rows(cells) if not is_missing(cell) and cell not in ([], {})]
    for row, cell in present:
        first.setdefault(_type(reading, row, column, cell), row)
    if not first:
        return "empty"
    if len(first) > 1 and not (set(first) == {"lists", "scalars"} and isinstance(cells[first["lists"]], Choices)):
        row, other = list(first.values())[:2]
        raise UserError(
            f"{reading.where(other)}: {shown(column)} is {shown(cells[other])}, but {shown(cells[row])} in "
            f"{reading.where(row)}; expected cells of one kind"
        )
    if set(first) != {"scalars"}:
        return "dicts" if "dicts" in first else "lists"
    if all(reading.values(cell) is not None for _, cell in present):
        return "values"
    return "numbers" if all(_is_whole(cell) for _, cell in present) else "names"


def _type(reading: Reading, row: int, column: str, cell: Any) -> str:
    if isinstance(cell, dict):
        return "dicts"
    if isinstance(cell, list | tuple):
        return "lists"
    if not isinstance(cell, str | int | float):
        raise reading.error(row, column, "names, numbers or lists of them", f"{type(cell).__name__} {cell}")
    return "scalars"


def _is_whole(cell: Any) -> bool:
    return cell.strip().isdecimal() if isinstance(cell, str) else isinstance(cell, int) or cell.is_integer()


def _form_of_lists(reading: Reading, columns: Columns) -> str:
    """Tells lists of names from vectors: those hold 0 and 1 alone, again and again, and all have one length."""
    ((column, cells),) = columns.items()
    rows = [(row, cell) for row, cell in enumerate(cells) if isinstance(cell, list | tuple) and len(cell)]
    lengths = {len(cell) for _, cell in rows}
    repeats = any(len(set(map(str, cell))) < len(cell) for _, cell in rows)
    if not rows or not all(_looks_like_vector(reading, cell) for _, cell in rows):
        if repeats and len(lengths) == 1:
            _refuse_other_vectors(reading, column, rows)
        return "names"
    fractions = any(reading.values(item) not in (0, 1) for _, cell in rows for item in cell)
    if lengths == {1} or (len(lengths) > 1 and not repeats):
        return "names"
    if not repeats and not fractions:
        row, cell = rows[0]
        raise UserError(
            f"{reading.where(row)}: {shown(column)} is {shown(cell)}: the labels '0' and '1' (--label-form names), or "
            "a value for each label (--label-form vector)?"
        )
    if len(lengths) > 1:
        row, cell = next((row, cell) for row, cell in rows if len(cell) != len(rows[0][1]))
        raise UserError(
            f"{reading.where(row)}: {shown(column)} has {len(cell)} values of 0 and 1, but {len(rows[0][1])} in "
            f"{reading.where(rows[0][0])}; expected one for each label"
        )
    return "vector"


def _refuse_other_vectors(reading: Reading, column: str, rows: list[tuple[int, Any]]) -> None:
    """Raises UserError for lists of numbers of one length, some of which have a number twice: no list of labels has."""
    if all(isinstance(item, int | float) for _, cell in rows for item in cell):
        row, cell = next((row, cell) for row, cell in rows if len(set(cell)) < len(cell))
        raise UserError(
            f"{reading.where(row)}: {shown(column)} is {shown(cell)}: the same label twice (--label-form names)? "
            "Values of labels would have to lie between 0 and 1"
        )


def _looks_like_vector(reading: Reading, cell: Sequence[Any]) -> bool:
    return all(not isinstance(item, list | dict) and reading.values(item) is not None for item in cell)


def _ask_what_one_column_means(reading: Reading, columns: Columns) -> NoReturn:
    ((column, cells),) = columns.items()
    row = next(row for row, cell in enumerate(cells) if not is_missing(cell))
    raise UserError(
        f"{reading.where(row)}: {shown(column)} holds only values from 0 to 1, such as {shown(cells[row])}. "
        f"If it says whether a row has the label {shown(column)}, name the columns of all labels (--label-columns); if "
        "they are names of labels: --label-form names"
    )


def _form_of_numbers(reading: Reading, columns: Columns) -> str:
    """Takes numbers in several columns for those of labels only where a file has names for them."""
    if reading.options.labels_file:
        return "names"
    for column, cells in columns.items():
        for row, cell in enumerate(cells):
            if reading.values(cell) is None:
                raise UserError(
                    f"{reading.where(row)}: {shown(column)} is {shown(cell)}: a label's number (--label-form names)? "
                    f"As a value of the label {shown(column)} it had to be 0, 1 or between"
                )
    raise AssertionError("a column of numbers holds one that is no value")


def _form_of_texts(reading: Reading, columns: Columns) -> str:
    """Tells names from vectors that are written as text: "1 0 0 1", "1,0,0,1" or "1001"."""
    ((column, cells),) = columns.items()
    texts = {row: cell for row, cell in enumerate(cells) if isinstance(cell, str) and not is_missing(cell)}
    vectors: list[Any] = [None] * len(cells)
    for row, cell in texts.items():
        vectors[row] = vector_of(cell)
        if not _looks_like_vector(reading, vectors[row]):
            break
    else:
        return _form_of_lists(reading, {column: vectors})
    width = len(next(iter(texts.values()), "").strip())
    if width > 2 and all(len(cell.strip()) == width and not cell.strip().strip("01") for cell in texts.values()):
        row, cell = next(iter(texts.items()))
        raise UserError(
            f"{reading.where(row)}: {shown(column)} is {shown(cell)}: the name of a label (--label-form names), or a "
            "value for each label (--label-form vector)?"
        )
    return "names"
