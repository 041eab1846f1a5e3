"""Columns of files become tables: what each holds is told by its cells, or by the user."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from lopsided.data.inputs import Table
from lopsided.data.storage import UserError
from lopsided.data.tables import TableColumns, TableMaker, choose_columns

COLUMNS: dict[str, Sequence[Any]] = {
    "size": ["1.5", "", "-2e3", "NA", "7", "0"],
    "count": [3, None, float("nan"), 4.5, True, 0],
    "colour": ["red", "blue", " red", "", "?", "blue"],
    "zip": ["01234", "01234", "99999", "01234", "1", "1"],
    "listed": [[1, 2.0], [3, 4], [0.5, 0], [0, 0], [0, 0], [0, 1]],
    "written": ["[1, 2]", "[3 4.5]", "[0,0]", "[-1e-3, 0]", "[0. 1.]", "[0 0]"],
    "id": ["a", "b", "c", "d", "e", "f"],
}


def where(row: int) -> str:
    return f"rows.csv, line {row + 2}"


def choose(names: Sequence[str], categories: Sequence[str] = (), asked: Sequence[str] = ()) -> TableColumns:
    return choose_columns(where, COLUMNS.__getitem__, names, categories, asked, lambda note: None)


def make(columns: TableColumns, **cells: Sequence[Any]) -> Table:
    return TableMaker(columns).make(where, (COLUMNS | cells).__getitem__, 6)


def test_what_columns_hold_is_told_by_their_cells() -> None:
    notes: list[str] = []
    columns = choose_columns(where, COLUMNS.__getitem__, list(COLUMNS), ("zip",), (), notes.append)
    assert columns == TableColumns(("size", "count"), ("colour", "zip"), ("listed", "written"))
    assert notes == [
        "column 'id' numbers the rows and is left out (take it with --feature-columns)",
        "inputs: columns of numbers (2), categories (2), lists of numbers (2)",
    ]
    table = make(columns)
    assert table.number_names == ("size", "count", "listed.0", "listed.1", "written.0", "written.1")
    nan = np.nan
    expected = [[1.5, 3, 1, 2, 1, 2], [nan, nan, 3, 4, 3, 4.5], [-2000, nan, 0.5, 0, 0, 0], [nan, 4.5, 0, 0, -1e-3, 0]]
    np.testing.assert_array_equal(table.numbers[:4].numpy(), np.array(expected, np.float32))
    assert table.categories.T.tolist() == [[0, 1, 0, -1, -1, 1], [0, 0, 1, 0, 2, 2]]
    assert table.category_values == (("red", "blue"), ("01234", "99999", "1"))


def test_an_identifier_that_is_asked_for_is_taken() -> None:
    assert choose(["id"], asked=["id"]).categories == ("id",)


def test_blocks_share_the_codes_of_categories() -> None:
    maker = TableMaker(TableColumns((), ("colour",), ()))
    parts = [maker.make(where, {"colour": cells}.__getitem__, 2) for cells in (["red", "blue"], ["green", "red"])]
    table = maker.join(parts)
    assert table.categories.tolist() == [[0], [1], [2], [0]]
    assert table.category_values == (("red", "blue", "green"),)
    assert table.numbers.shape == (4, 0)


def test_texts_are_not_taken_for_categories_in_silence() -> None:
    texts = ["one text", "another", "3", "a third", "", "one text"]
    with pytest.raises(
        UserError, match=r"line 2: 'x' is 'one text': a text .--text-column., or one of 4 categories in 5"
    ):
        choose_columns(where, lambda name: texts, ["x"], (), (), lambda note: None)
    with pytest.raises(UserError, match=r"line 2: 'x' is .*\(dict\): neither number, category nor text"):
        choose_columns(where, lambda name: [{"a": 1}], ["x"], (), (), lambda note: None)


NUMBERS = {  # with a comma before the fraction, with a point; None where they are none
    "7,1": (7.1, None),
    "12": (12, 12),
    "1,234": (1.234, 1234),
    "-1.234.567,5e2": (-123456750, None),
    "1,234.5": (None, 1234.5),
    "12,34,5": (None, None),
    "0,234": (0.234, None),
}


@pytest.mark.parametrize("cell", NUMBERS)
def test_what_a_comma_in_a_number_means_is_asked(cell: str) -> None:
    cells, possible = [cell, "12", ""], []
    for sign, value in zip((",", "."), NUMBERS[cell], strict=True):
        if value is not None:
            columns = choose_columns(where, lambda name: cells, ["x"], (), (), lambda note: None, sign)
            numbers = TableMaker(columns).make(where, lambda name: cells, 3).numbers[:, 0].tolist()
            assert numbers == pytest.approx([value, 12, np.nan], nan_ok=True)
            possible.append(f"--decimal {sign}")
    if possible and cell != "12":
        with pytest.raises(UserError, match=f"line 2: 'x' is '{cell}': a number .{' or '.join(possible)}: the sign"):
            choose_columns(where, lambda name: cells, ["x"], (), (), lambda note: None)


def test_keys_of_rows_do_not_depend_on_how_they_lie_in_memory() -> None:
    numbers = torch.arange(6.0).reshape(2, 3)
    assert list(Table.of_numbers(numbers.T.contiguous().T).keys()) == list(Table.of_numbers(numbers).keys())


BAD_CELLS: dict[str, tuple[TableColumns, list[Any], str]] = {
    "no text": (TableColumns((), ("size",), ()), ["a", "b", "\ud800", 4, 5, 6], "line 4: 'size' must be valid text"),
    "a text": (
        TableColumns(("size",), (), ()),
        [1, "2", "x", 4, 5, 6],
        "line 4: 'size' is 'x'; expected a number, as in",
    ),
    "not a number": (TableColumns(("size",), (), ()), ["1_000"] * 6, "line 2: 'size' is '1_000'; expected a number"),
    "infinite": (
        TableColumns(("size",), (), ()),
        [1, 2, 3, 4, "inf", 6],
        "line 6: 'size' has a number that is infinite",
    ),
    "too large": (TableColumns(("size",), (), ()), [1, 1e39, 3, 4, 5, 6], "line 3: .* too large for float32"),
    "no list": (
        TableColumns((), (), ("size",)),
        [[1], [2], 3, [4], [5], [6]],
        "line 4: 'size' is '3'; expected a list",
    ),
    "missing": (
        TableColumns((), (), ("size",)),
        [[1], None, [3], [4], [5], [6]],
        "line 3: 'size' is 'None'; expected a",
    ),
    "other length": (
        TableColumns((), (), ("size",)),
        [[1], [2], [3, 3], [4], [5], [6]],
        "line 4: 'size' has 2 numbers, but 1",
    ),
    "cut off": (TableColumns((), (), ("size",)), ["[0.1 0.2 ... 0.3]"] * 6, "line 2: .* expected a list of numbers"),
}


@pytest.mark.parametrize("name", BAD_CELLS)
def test_bad_cells_are_named_with_their_line(name: str) -> None:
    columns, cells, message = BAD_CELLS[name]
    with pytest.raises(UserError, match=message):
        make(columns, size=cells)
