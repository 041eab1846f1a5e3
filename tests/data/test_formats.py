"""Formats beside JSON and CSV: Arrow's, fastText's, and what annotation tools export."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from lopsided.data.formats.arrow import vectors_of
from lopsided.data.inputs import Table
from lopsided.data.readers import ReadOptions, read, read_inputs
from lopsided.data.storage import UserError
from tests.data.test_readers import ROWS, rows, write

HUGGING_FACE = {
    "features": {
        "text": {"dtype": "string", "_type": "Value"},
        "labels": {"feature": {"names": ["y", "x"], "_type": "ClassLabel"}, "_type": "List"},
    }
}


def table(names: bool = True, metadata: dict[str, Any] | None = None) -> pyarrow.Table:
    """ROWS, with labels by name, or by number among "y" and "x"."""
    labels = [part if names else ["yx".index(name) for name in part] for _, part in ROWS]
    result = pyarrow.table({"text": [text for text, _ in ROWS], "labels": labels})
    return result.replace_schema_metadata({b"huggingface": json.dumps(metadata)}) if metadata else result


def save_stream(path: Path, content: pyarrow.Table) -> None:
    with pyarrow.ipc.new_stream(path, content.schema) as stream:
        stream.write_table(content)


def save_file(path: Path, content: pyarrow.Table) -> None:
    with pyarrow.ipc.new_file(path, content.schema) as file:
        file.write_table(content)


def save_folder(path: Path) -> Path:
    """What `datasets` writes with save_to_disk."""
    path.mkdir(parents=True)
    save_stream(path / "data-00000-of-00001.arrow", table(names=False))
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (path / "dataset_info.json").write_text(json.dumps(HUGGING_FACE))
    return path


def test_arrow(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(table(), tmp_path / "a.parquet", compression="zstd", row_group_size=2)
    pyarrow.feather.write_feather(table(), str(tmp_path / "a.feather"))
    save_stream(tmp_path / "stream.arrow", table())
    save_file(tmp_path / "file.arrow", table())
    pyarrow.parquet.write_table(table(False, {"info": HUGGING_FACE}), tmp_path / "numbers.parquet")
    for path in (*tmp_path.iterdir(), save_folder(tmp_path / "folder")):
        counts: list[int] = []
        assert rows(read(path, on_bytes=counts.append)) == ROWS
        assert sum(counts) == sum(f.stat().st_size for f in ([path] if path.is_file() else path.glob("*.arrow")))
        blocks = list(read_inputs(path))
        assert [text for block in blocks for text in block.texts] == [text for text, _ in ROWS]  # type: ignore[attr-defined]


def test_a_folder_of_several_data_sets_asks_which(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save_folder(tmp_path / split)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(UserError, match=f"holds several data sets; name one: {tmp_path}/train, {tmp_path}/test"):
        read(tmp_path)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert rows(read(tmp_path)) == ROWS


def test_columns_of_arrow(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {"text": ["a", "b"], "x": [True, None], "y": pyarrow.array([0, 1], pyarrow.int8())}
    columns["cats"] = pyarrow.array(
        [[("x", 1.0), ("y", 0.0)], [("x", 0.0), ("y", 1.0)]], pyarrow.map_("string", "float")
    )
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    data = read(path, ReadOptions(label_columns=("x", "y")))
    assert data.targets.values is not None
    assert data.targets.col.tolist() == [0, 0, 1]
    assert data.targets.values.isnan().tolist() == [False, True, False]
    assert rows(read(path)) == [("a", ["x"]), ("b", ["y"])]
    with pytest.raises(UserError, match="row 1: 'y' must be valid text, got '0'"):
        read(path, ReadOptions(text_columns=("y",)))


DAMAGED = [b"", b"PAR1", b"PAR1" + bytes(50) + b"PAR1", b"ARROW1\0\0" + b"\xff" * 99, b"\xff" * 99]


@pytest.mark.parametrize("file", ["a.parquet", "a.arrow", "a.feather"])
@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_arrow(tmp_path: Path, file: str, content: bytes) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=str(tmp_path / file)) as caught:
        read(tmp_path / file)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def save_sheets(path: Path, **sheets: list[Any]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, cells in sheets.items():
        sheet = book.create_sheet(name)
        for row in cells:
            sheet.append(row)
    book.save(path)
    return path


def test_a_sheet_is_read_as_a_csv_of_it(tmp_path: Path) -> None:
    cells: list[Any] = [
        [],
        ["text", "labels", None],
        *([text, ", ".join(names), ""] for text, names in ROWS),
        [None, None],
    ]
    path = save_sheets(tmp_path / "a.xlsx", empty=[], rows=cells)
    assert rows(read(path)) == ROWS
    assert sum(map(len, read_inputs(path))) == len(ROWS)
    with pytest.raises(UserError, match="2 sheets, 'one', 'two'; say which with --sheet"):
        read(save_sheets(path, one=cells, two=cells[:3]))
    assert rows(read(path, ReadOptions(sheet="two"))) == ROWS[:1]
    with pytest.raises(UserError, match="no sheet 'three' among 'one', 'two'"):
        read(path, ReadOptions(sheet="three"))
    with pytest.raises(UserError, match=r"row 3: 3 columns, but the header has 2"):
        read(save_sheets(path, one=[*cells[:2], ["a", "x", "more"]]))
    flags = [
        ["size", "on", "is_x", "is_y"],
        [1.5, datetime(2026, 1, 2), 1, True],
        [3.0, datetime(2026, 1, 2), 0.0, None],
    ]
    data = read(save_sheets(path, one=flags), ReadOptions(label_columns=("is_*",), feature_columns=("size",)))
    assert isinstance(data.inputs, Table)
    assert data.inputs.numbers.tolist() == [[1.5], [3.0]]
    assert data.targets.values is not None
    assert str(data.targets.values.tolist()) == "[1.0, 1.0, nan]"


def test_fasttext(tmp_path: Path) -> None:
    text = "__label__x __label__y a text\n\nno label\n__label__y\tanother text\n"
    expected = [("a text", ["x", "y"]), ("no label", []), ("another text", ["y"])]
    for name in ("a.txt", "a.train", "train"):
        assert rows(read(write(tmp_path / name, text))) == expected
    plain = write(tmp_path / "new.txt", "a text\nno label\n")
    blocks = read_inputs(plain, ReadOptions(format="fasttext"))
    assert [text for block in blocks for text in block.texts] == ["a text", "no label"]  # type: ignore[attr-defined]


def choices(*names: str, **annotation: Any) -> dict[str, Any]:
    return {"result": [{"from_name": "topic", "type": "choices", "value": {"choices": list(names)}}], **annotation}


LABEL_STUDIO = [
    {"id": 1, "data": {"text": "a"}, "annotations": [choices("x", "y")]},
    {"id": 2, "data": {"text": "b"}, "annotations": [{"result": []}, choices("x", was_cancelled=True)]},
    {"id": 3, "data": {"text": "c"}, "annotations": [choices("y")]},
]
PRODIGY = [
    {"text": "a", "options": [{"id": "x"}, {"id": "y"}], "accept": ["x", "y"], "answer": "accept"},
    {"text": "skipped", "options": [], "accept": [], "answer": "ignore"},
    {"text": "b", "options": [{"id": "x"}], "accept": [], "answer": "accept"},
    {"text": "c", "options": [{"id": "x"}], "accept": ["y"], "answer": "accept"},
]
PRODIGY_BINARY = [
    {"text": text, "label": label, "answer": answer}
    for text, label, answer in [
        ("a", "x", "accept"),
        ("a", "y", "accept"),
        ("b", "x", "reject"),
        ("b", "y", "reject"),
        ("c", "x", "reject"),
        ("c", "y", "accept"),
        ("d", "y", "ignore"),
    ]
]
CATS: list[dict[str, float]] = [{"x": 1.0, "y": 1.0}, {"x": 0.0, "y": 0.0}, {"x": 0, "y": 1}]
EXPORTS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "Label Studio": (LABEL_STUDIO, {}),
    "Label Studio, short": (
        [{"text": "a", "topic": {"choices": ["x", "y"]}}, {"text": "b", "topic": ""}, {"text": "c", "topic": "y"}],
        {"label_columns": ("topic",)},
    ),
    "Prodigy": (PRODIGY, {}),
    "Prodigy, label by label": (PRODIGY_BINARY, {"join_by": "text"}),
    "doccano": ([{"text": t, "label": names} for t, names in [("a", ["x", "y"]), ("b", []), ("c", ["y"])]], {}),
    "doccano, with annotators": (
        [
            {"text": t, "annotations": [{"label": n, "user": 1} for n in names]}
            for t, names in [("a", ["x", "y"]), ("b", []), ("c", ["y"])]
        ],
        {},
    ),
    "spaCy, records": ([{"text": text, "cats": cats} for text, cats in zip("abc", CATS, strict=True)], {}),
    "spaCy, pairs": ([[text, {"cats": cats}] for text, cats in zip("abc", CATS, strict=True)], {}),
    "spaCy, documents": (
        [
            {
                "id": 0,
                "paragraphs": [
                    {"raw": text, "cats": [{"label": name, "value": value} for name, value in cats.items()]}
                    for text, cats in zip("abc", CATS, strict=True)
                ],
            }
        ],
        {},
    ),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_exports(tmp_path: Path, name: str) -> None:
    records, options = EXPORTS[name]
    listed = write(tmp_path / "a.json", json.dumps(records, indent=2))
    lines = write(tmp_path / "a.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    for path in (listed, lines):
        data = read(path, ReadOptions(**options))
        assert rows(data) == [("a", ["x", "y"]), ("b", []), ("c", ["y"])]
        assert data.targets.values is None


DISPUTED = {
    "Label Studio": {"data": {"text": "a"}, "annotations": [choices("x", "y"), choices("x"), choices("x", "z", "z")]},
    "doccano": {
        "text": "a",
        "annotations": [{"label": given[0], "user": given[1]} for given in ["x1", "y1", "x2", "x3", "z3", "z3"]],
    },
}


@pytest.mark.parametrize("name", DISPUTED)
def test_annotators_who_disagree_are_told(tmp_path: Path, name: str) -> None:
    agreed = {"text": "b", "data": {"text": "b"}, "annotations": []}
    data = read(write(tmp_path / "a.json", json.dumps([DISPUTED[name], agreed])), ReadOptions(absent="negative"))
    assert rows(data) == [("a", ["x"]), ("b", [])]
    assert "annotators disagree in 1 of 2 records; a label counts if at least half of them gave it" in data.notes
    two = json.loads(json.dumps(DISPUTED[name]))
    two["annotations"] = two["annotations"][: 2 if name == "Label Studio" else 3]
    assert rows(read(write(tmp_path / "b.json", json.dumps([two])))) == [("a", ["x", "y"])], "of two, one is half"


BOMBS = {
    "one text in all rows": pyarrow.table({"text": ["a" * 1000] * 20_000}),
    "texts that compress well": pyarrow.table({"text": [f"{row}" + "a" * 1000 for row in range(20_000)]}),
    "empty texts": pyarrow.table({"text": [""] * 700_000}),
    "lists": pyarrow.table({"text": ["a"], "labels": [[1] * 2_000_000]}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOMBS)
def test_a_parquet_file_takes_no_more_than_the_limit(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(BOMBS[kind], path, compression="zstd")
    assert path.stat().st_size < 500_000
    usual, counted = pyarrow.default_memory_pool(), pyarrow.proxy_memory_pool(pyarrow.default_memory_pool())
    pyarrow.set_memory_pool(counted)
    try:
        with pytest.raises(UserError, match=r"a\.parquet: unpacks to more than 0\.005 GB; .* --max-unpacked 1"):
            list(read_inputs(path, ReadOptions(max_unpacked=0.005)))
    finally:
        pyarrow.set_memory_pool(usual)
    assert counted.max_memory() < 10_000_000
    assert sum(map(len, read_inputs(path, ReadOptions(max_unpacked=0.05, text_columns=("text",))))) == len(BOMBS[kind])


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
def test_numbers_that_are_not_compressed_are_never_too_many(tmp_path: Path, dtype: str) -> None:
    table = pyarrow.table({name: np.arange(20_000, dtype=dtype) for name in "ab"})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
    pyarrow.feather.write_feather(table, tmp_path / "a.feather", compression="uncompressed")
    for name in ("a.parquet", "a.feather"):
        options = ReadOptions(max_unpacked=1e-5, feature_columns=("a", "b"))
        assert sum(map(len, read_inputs(tmp_path / name, options))) == 20_000


def test_an_arrow_file_takes_no_more_than_the_limit(tmp_path: Path) -> None:
    pyarrow.feather.write_feather(
        BOMBS["one text in all rows"], tmp_path / "a.feather", compression="zstd", chunksize=1000
    )
    with pytest.raises(UserError, match=r"a\.feather: unpacks to more than 0\.005 GB"):
        list(read_inputs(tmp_path / "a.feather", ReadOptions(max_unpacked=0.005)))


def test_lists_of_one_length_are_taken_as_a_matrix_or_not_at_all() -> None:
    lists = [[0.5, 1.0], [float("nan"), 2.0], [3.0, 4.0]]
    types = pyarrow.list_(pyarrow.float32()), pyarrow.large_list(pyarrow.float64()), pyarrow.list_(pyarrow.float32(), 2)
    for parts in (pyarrow.array([[9.0, 9.0], *lists, [8.0, 8.0]], of) for of in types):
        cells = pyarrow.chunked_array([parts[1:3], parts[:0], parts[3:4]])
        found = vectors_of(cells)
        assert found is not None
        assert str(list(found)) == str(found[:]) == str(cells.to_pylist()) == str(lists)
    for other in ([[1.0], [1.0, 2.0]], [[1.0], None], [[1.0], [None]], [[1], [2]], ["a"], []):
        assert vectors_of(pyarrow.chunked_array([pyarrow.array(other)])) is None
