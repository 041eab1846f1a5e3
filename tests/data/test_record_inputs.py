"""Columns of records become texts, images or a table, and never silently the wrong one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lopsided.data import readers
from lopsided.data.dataset import Dataset
from lopsided.data.formats import delimited, jsonl
from lopsided.data.image_files import ImageFiles
from lopsided.data.inputs import Table, Texts
from lopsided.data.readers import ReadOptions
from lopsided.data.storage import UserError

TABLE = "id,size,colour,zip,labels\n1,1.5,red,01234,a;b\n2,,blue,99999,\n3,-2,red,01234,b\n4,7,blue,01234,a\n"


def options(**fields: Any) -> ReadOptions:
    return ReadOptions(**({"separator": ";"} | fields))


def read(path: Path, **fields: Any) -> tuple[Dataset, Table]:
    data = readers.read(path, options(**fields))
    assert isinstance(data.inputs, Table)
    return data, data.inputs


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "a.csv"
    path.write_text(TABLE)
    return path


@pytest.mark.parametrize("rows", [1, 3, 4096])
def test_columns_of_numbers_and_categories_are_a_table(csv: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(delimited, "BLOCK_ROWS", rows)
    data, table = read(csv, feature_columns=("size", "colour", "zip"), category_columns=("zip",))
    assert (table.number_names, table.category_names) == (("size",), ("colour", "zip"))
    np.testing.assert_array_equal(table.numbers[:, 0].numpy(), np.array([1.5, np.nan, -2, 7], np.float32))
    assert table.categories.tolist() == [[0, 0], [1, 1], [0, 0], [1, 0]]
    assert table.category_values == (("red", "blue"), ("01234", "99999"))
    assert list(data.label_names) == ["a", "b"]


def test_without_a_text_all_columns_but_labels_and_groups_are_inputs(csv: Path) -> None:
    data, table = read(csv, group_column="zip")
    assert (table.number_names, table.category_names) == (("size",), ("colour",))
    assert data.groups is not None
    first, other, *rest = data.groups.tolist()
    assert rest == [first, first] != [other, other]
    assert "column 'id' numbers the rows and is left out (take it with --feature-columns)" in data.notes
    assert "inputs: columns of numbers (1), categories (1)" in data.notes


def test_rows_to_predict_need_no_labels(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "BLOCK_ROWS", 3)
    csv.write_text("".join(line.rpartition(",")[0] + "\n" for line in TABLE.splitlines()))
    blocks = list(readers.read_inputs(csv, options(label_columns=("labels",), category_columns=("zip",))))
    assert [block.categories.tolist() for block in blocks if isinstance(block, Table)] == [
        [[0, 0], [1, 1], [0, 0]],
        [[1, 0]],
    ]


def test_a_text_is_a_text_though_there_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,size,labels\nx,1,a\ny,2,b\n")
    assert readers.read(path).inputs == Texts(("x", "y"))


def test_a_column_of_texts_among_numbers_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("size,comment,labels\n1,good,a\n2,not so good,b\n3,bad,a\n")
    with pytest.raises(UserError, match=r"line 2: 'comment' is 'good': a text .--text-column., or one of 3"):
        readers.read(path)
    assert readers.read(path, ReadOptions(feature_columns=("s*",))).inputs.excerpt(1) == "size 2"
    assert readers.read(path, ReadOptions(text_columns=("comment",))).inputs == Texts(("good", "not so good", "bad"))


def test_a_cell_that_is_not_what_the_first_rows_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "BLOCK_ROWS", 2)
    path = tmp_path / "a.csv"
    path.write_text("size,labels\n1,a\n2,b\n3,a\nlarge,b\n")
    with pytest.raises(UserError, match=r"a\.csv, line 5: 'size' is 'large'; expected a number, as in the first rows"):
        readers.read(path)


@pytest.mark.parametrize("kind", ["a.jsonl", "a.parquet"])
def test_embeddings_stand_in_a_column_of_lists(tmp_path: Path, kind: str) -> None:
    records = [{"vector": [0.5, float(row)], "labels": ["a"] if row else ["b", "a"]} for row in range(3)]
    if kind == "a.jsonl":
        (tmp_path / kind).write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / kind)
    _, table = read(tmp_path / kind)
    assert table.numbers.tolist() == [[0.5, 0], [0.5, 1], [0.5, 2]]
    assert table.number_names == ("vector.0", "vector.1")


def manifest(folder: Path, column: str = "file_name") -> Path:
    (folder / "images").mkdir()
    for number in range(3):
        (folder / f"images/{number}.PNG").write_bytes(b"")
    records = [{column: f"images/{number}.PNG", "labels": [f"l{number}"]} for number in range(3)]
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_paths_of_images_are_images(tmp_path: Path) -> None:
    data = readers.read(manifest(tmp_path))
    assert data.inputs == ImageFiles(tmp_path, ("images/0.PNG", "images/1.PNG", "images/2.PNG"))
    assert list(data.label_names) == ["l0", "l1", "l2"]
    assert "inputs: the images at the paths in column 'file_name'" in data.notes


def test_where_images_lie_can_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "BLOCK_ROWS", 2)
    (tmp_path / "lists").mkdir()
    moved = manifest(tmp_path, column="picture").rename(tmp_path / "lists/a.jsonl")
    with pytest.raises(UserError, match=r"line 1: no file .*lists/images/0\.PNG'; .*--image-folder"):
        readers.read(moved, ReadOptions(image_column="picture"))
    data = readers.read(moved, ReadOptions(image_column="picture", image_folder=tmp_path))
    assert data.inputs == ImageFiles(tmp_path, ("images/0.PNG", "images/1.PNG", "images/2.PNG"))


def test_rows_that_are_joined_must_have_the_same_inputs(csv: Path) -> None:
    csv.write_text("row,size,labels\nx,1,a\ny,2,b\nx,1,b\n")
    data, table = read(csv, join_by="row")
    assert (table.numbers.tolist(), data.targets.col.tolist()) == ([[1], [2]], [0, 1, 1])
    csv.write_text("row,size,labels\nx,1,a\ny,2,b\nx,3,b\n")
    with pytest.raises(UserError, match=r"line 4: 'row' is as in .*line 2, but the table is not"):
        readers.read(csv, options(join_by="row"))
