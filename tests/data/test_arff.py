"""ARFF, dense and sparse, with the labels that Mulan's XML or MEKA's relation names."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io.arff
import torch

from lopsided.data.dataset import Dataset
from lopsided.data.formats import arff
from lopsided.data.inputs import SparseFeatures, Table, Texts
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

HEADER = """% made by hand
@RELATION 'toy: -C 2'
@attribute sad {0,1}
@attribute 'it''s\\' ok' {false, true}
@attribute size real
@Attribute colour {red, 'dark blue'}
@attribute "is new" {1,0}

@DATA
"""
LABELS = ReadOptions(label_columns=("a", "b"))


def write(folder: Path, text: str, name: str = "toy.arff") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def labels(data: Dataset) -> list[list[float]]:
    dense = torch.zeros(len(data), data.num_labels)
    targets = data.targets
    values = torch.ones(len(targets.col)) if targets.values is None else targets.values
    dense[targets.row, targets.col] = values
    return dense.tolist()


def test_dense_rows_are_a_table(tmp_path: Path) -> None:
    header = HEADER.replace("it''s\\' ok", "it\\'s ok")
    path = write(tmp_path, header + "1, true, 0.5, red, 1\n% a comment\n\n0,false,-2e3,'dark blue',0\n?,true,?,?,?\n")
    data = arff.read(path, ReadOptions())
    assert list(data.label_names) == ["sad", "it's ok"]
    assert data.notes == ("labels: the first 2 attributes, as '-C 2' in the relation says",)
    np.testing.assert_equal(np.array(labels(data)), [[1, 1], [0, 0], [np.nan, 1]])
    table = data.inputs
    assert isinstance(table, Table)
    assert (table.number_names, table.category_names) == (("size", "is new"), ("colour",))
    np.testing.assert_equal(table.numbers.numpy(), np.array([[0.5, 1], [-2000, 0], [np.nan, np.nan]], np.float32))
    assert table.categories.tolist() == [[0], [1], [-1]]
    assert table.category_values == (("red", "dark blue"),)


SPARSE = (
    "@relation 'x: -C -1'\n@attribute a numeric\n@attribute b {0,1}\n@attribute c numeric\n@attribute l {0,1}\n@data\n"
)


def test_sparse_rows_are_sparse_features(tmp_path: Path) -> None:
    data = arff.read(write(tmp_path, SPARSE + "{0 2.5, 3 1}\n{}\n{ 1 1,2 0 ,\t3 ?}\n"), ReadOptions())
    rows = data.inputs
    assert isinstance(rows, SparseFeatures)
    assert (rows.indptr.tolist(), rows.indices.tolist(), rows.values.tolist()) == ([0, 1, 1, 2], [0, 1], [2.5, 1])
    assert (rows.num_features, rows.declared) == (3, True)
    np.testing.assert_equal(labels(data), [[1], [0], [np.nan]])


def test_what_a_sparse_row_leaves_out_is_the_first_value(tmp_path: Path) -> None:
    text = "@relation 'x: -C 1'\n@attribute l {yes,no}\n@attribute a numeric\n@data\n{1 2}\n{0 no}\n"
    assert labels(arff.read(write(tmp_path, text), ReadOptions())) == [[1], [0]]


XML = '<?xml version="1.0"?>'
XML += '<labels xmlns="http://mulan.sourceforge.net/labels"><label name="c"><label name="a"/></label></labels>'
PLAIN = "@relation x\n@attribute a {0,1}\n@attribute b numeric\n@attribute c numeric\n@data\n1,2,0\n0,3,0.5\n"


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("toy.xml", XML, ReadOptions()),
        ("names.xml", XML, ReadOptions(labels_file=Path("names.xml"))),
        ("names.txt", "c\na\n", ReadOptions(labels_file=Path("names.txt"))),
        ("other.xml", XML, ReadOptions(label_columns=("[ac]",))),
    ],
)
def test_labels_are_named_beside_the_data(folder: Path, name: str, content: str, options: ReadOptions) -> None:
    write(folder, content, name)
    data = arff.read(write(folder, PLAIN, "toy-train.arff"), options)
    assert (list(data.label_names), labels(data)) == (["a", "c"], [[1, 0], [0, 0.5]])
    assert isinstance(data.inputs, Table)
    assert data.inputs.numbers.tolist() == [[2], [3]]


def test_rows_to_predict_need_no_labels(folder: Path) -> None:
    write(folder, XML, "toy.xml")
    path = write(folder, PLAIN.replace("@attribute a {0,1}\n", "").replace("1,2,", "2,").replace("0,3,", "3,"))
    (block,) = arff.read_inputs(path, ReadOptions())
    assert isinstance(block, Table)
    assert block.numbers.tolist() == [[2], [3]]


def test_strings_are_texts(tmp_path: Path) -> None:
    text = "@relation 'x: -C 1'\n@attribute l {0,1}\n@attribute a string\n@attribute b STRING\n@data\n"
    text += "1,'a, b\\'s',\"c\"\n0,?,d\n"
    path = write(tmp_path, text)
    assert arff.read(path, ReadOptions()).inputs == Texts(("a, b's\nc", "\nd"))
    assert arff.read(path, ReadOptions(text_columns=("b",))).inputs == Texts(("c", "d"))


START = "@relation x\n@attribute a {0,1}\n@attribute b numeric\n@data\n"
BAD_FILES = {
    "no labels": (
        START + "0,1\n",
        ReadOptions(),
        "no -C in the name of its relation; name the labels with --label-col",
    ),
    "no such label": (
        START + "0,1\n",
        ReadOptions(label_columns=("a", "z*")),
        r"no attribute 'z\*', which --label-col",
    ),
    "more labels than attributes": (
        START.replace("x", "-C -9", 1),
        ReadOptions(),
        "'-C -9' in the .* only 2 attributes",
    ),
    "labels alone": (START + "0,1\n", LABELS, "all 2 attributes are labels"),
    "no data": ("@relation x\n@attribute a numeric\n", LABELS, "no line @data"),
    "no rows": (START, ReadOptions(label_columns=("a",)), ": no rows$"),
    "another word": (
        "@relation x\na numeric\n",
        LABELS,
        "line 2: expected @relation, @attribute or @data, got 'a numer",
    ),
    "a date": ("@relation x\n@attribute a date\n@data\n", LABELS, "line 2: 'a' is of the type 'date'"),
    "twice": (START.replace("b n", "a n"), LABELS, "the attribute 'a' stands twice in the header"),
    "too few values": (START + "0,1\n0\n", LABELS, "line 6: 1 values, but the header has 2 attributes"),
    "no such value": (START + "2,1\n", LABELS, "line 5: 'a' is '2', which is none of its values '0, 1'"),
    "no number": (START + "1,x\n", LABELS, "line 5: 'b' is 'x'; expected a number"),
    "no digit": (START + "1,1_000\n", LABELS, "line 5: 'b' is '1_000'; expected a number"),
    "infinite": (START + "1,inf\n", LABELS, "line 5: 'b' is 'inf'; expected a number"),
    "a label beyond 1": (START + "1,7\n", ReadOptions(label_columns=("b",)), "the label 'b' is '7.0'; expected 0, 1"),
    "mixed": (START + "1,7\n{0 1}\n", LABELS, "line 6: sparse rows, .* and dense ones in one file"),
    "a weight": (START + "{0 1}, {5}\n", LABELS, "line 5: expected a row such as .0 1, 4 0.5. without a weight"),
    "not closed": (START + "{0 1\n", LABELS, "line 5: expected a row such as .0 1, 4 0.5. without a weight"),
    "beyond the attributes": (START + "{7 1}\n", LABELS, "line 5: expected an attribute, 0 to 1, .* got '7 1'"),
    "an attribute twice": (START + "{0 1,0 1}\n", LABELS, "line 5: the attribute 0 stands twice in the row"),
    "unknown in a sparse row": (START + "{1 ?}\n", ReadOptions(label_columns=("a",)), "'b' is '\\?' in a sparse row"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named_in_one_line(tmp_path: Path, name: str) -> None:
    text, options, message = BAD_FILES[name]
    with pytest.raises(UserError, match=message) as caught:
        arff.read(write(tmp_path, text), options)
    assert str(caught.value).startswith(str(tmp_path / "toy.arff"))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yeast", "scene", "emotions"])
def test_dense_sets_are_what_scipy_reads(shared: Path, name: str) -> None:
    path = shared / f"data/mulan_{name}/{name}-test.arff"
    records, meta = scipy.io.arff.loadarff(path)
    data = arff.read(path, ReadOptions())
    assert isinstance(data.inputs, Table)
    features = [column for column in meta.names() if column not in data.label_names]
    assert list(data.inputs.number_names) == features
    expected = np.stack([records[column].astype(np.float32) for column in features], 1)
    np.testing.assert_array_equal(data.inputs.numbers.numpy(), expected)
    truth = np.stack([records[column].astype(np.float32) for column in data.label_names], 1)
    np.testing.assert_array_equal(np.array(labels(data), np.float32), truth)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows", "features", "labels_a_row"), [("enron", 1702, 1001, 3.38), ("medical", 978, 1449, 1.25)]
)
def test_sparse_sets_are_what_their_table_says(
    shared: Path, name: str, rows: int, features: int, labels_a_row: float
) -> None:
    parts = [arff.read(shared / f"data/mulan_{name}/{name}-{part}.arff", ReadOptions()) for part in ("train", "test")]
    assert sum(map(len, parts)) == rows
    assert all(isinstance(part.inputs, SparseFeatures) and part.inputs.num_features == features for part in parts)
    assert sum(float(part.label_counts().sum()) for part in parts) / rows == pytest.approx(labels_a_row, abs=0.005)


BOMB = "<!DOCTYPE a [<!ENTITY a0 'aaaaaaaaaa'>"
BOMB += "".join(f"<!ENTITY a{level + 1} '{f'&a{level};' * 10}'>" for level in range(9)) + "]>"


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<labels>" * 2000, "more than 1000 elements within each other"),
        (BOMB + "<labels><label name='&a9;'/></labels>", "not XML: limit on input amplification factor"),
    ],
)
def test_xml_that_would_grow_is_refused(folder: Path, xml: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"names\.xml: {message}"):
        arff.read(write(folder, SPARSE), ReadOptions(labels_file=write(folder, xml, "names.xml")))
