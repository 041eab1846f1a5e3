"""Whatever a file of numbers, images or documents holds, its reader gives rows or one error in one line."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lopsided.data.dataset import Dataset
from lopsided.data.formats import arff, coco, docred, npy, svmlight
from lopsided.data.formats.base import Format
from lopsided.data.inputs import Inputs, Texts
from lopsided.data.readers import ReadOptions
from lopsided.data.storage import UserError
from lopsided.data.target_files import with_targets

pytestmark = pytest.mark.slow

LABELS = ReadOptions(label_columns=("l*",))

PIECES = [
    "0",
    "1",
    "?",
    "a",
    "l",
    ",",
    " ",
    "{",
    "}",
    "'",
    '"',
    "\\",
    "\t",
    "\n",
    "%",
    "1e999",
    "-2.5",
    "9" * 30,
    "é",
    "\0",
]
DECLARED = st.lists(st.sampled_from(["numeric", "{0,1}", "{1,'a b'}", "string", "{", "date"]), max_size=3)


@st.composite
def nearly_arff(draw: st.DrawFn) -> bytes:
    attributes = [f"@attribute {name} {kind}" for name, kind in zip("lab", draw(DECLARED), strict=False)]
    rows = draw(st.lists(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), max_size=4))
    return "\n".join(["@relation x", *attributes, "@data", *rows]).encode()


SCALARS = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.sampled_from(["P1", "a", "ä", "\ud800"])
ANY = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=4)


def object_of(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """An object whose fields are mostly as they should be, or lacking, or anything."""
    return st.fixed_dictionaries({}, optional={name: value | ANY for name, value in fields.items()}) | ANY


NUMBER = st.integers(0, 2)
MENTION = object_of(sent_id=NUMBER, pos=st.lists(NUMBER, min_size=2, max_size=2), type=st.just("PER"))
DOCUMENT = object_of(
    sents=st.lists(st.lists(st.sampled_from("abc"), max_size=3), max_size=2),
    vertexSet=st.lists(st.lists(MENTION, max_size=2), max_size=3),
    labels=st.lists(object_of(h=NUMBER, t=NUMBER, r=st.just("P1")), max_size=2),
)
INSTANCES = object_of(
    images=st.lists(object_of(id=NUMBER, file_name=st.just("1.jpg")), max_size=3),
    annotations=st.lists(object_of(image_id=NUMBER, category_id=NUMBER), max_size=3),
    categories=st.lists(object_of(id=NUMBER, name=st.sampled_from("ab")), max_size=3),
)


@st.composite
def nearly_npy(draw: st.DrawFn) -> bytes:
    """An array, of which some bytes are others."""
    kind = draw(st.sampled_from(["<f4", ">f8", "|i1", "|b1", "<U2", "|O", "<c8", "<M8[s]"]))
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    file = io.BytesIO()
    np.save(file, np.zeros(shape, dtype=kind))
    content = bytearray(file.getvalue())
    for place in draw(st.lists(st.integers(0, len(content) - 1), max_size=2)):
        content[place] = draw(st.integers(0, 255))
    return bytes(content)


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def refuses(read: Callable[[], object]) -> bool:
    """Whether it raises a UserError, which must be one line."""
    try:
        read()
    except UserError as error:
        return "\n" not in str(error) or pytest.fail(f"several lines: {error}")
    return False


def check(form: Format, path: Path, content: bytes, options: ReadOptions = LABELS) -> None:
    """Reads a file of that content, with and without labels."""
    path.write_bytes(content)
    parts: list[Inputs] = []
    data: list[Dataset] = []
    assert form.read is not None
    assert form.read_inputs is not None
    read, read_inputs = form.read, form.read_inputs
    refuses(lambda: parts.extend(read_inputs(path, options, lambda count: None)))
    refuses(lambda: data.append(read(path, options, lambda count: None)))
    for part in data:
        targets = part.targets
        assert len(targets.crow) == len(part) + 1
        assert targets.crow[-1] == len(targets.col)
        for name in part.label_names:
            name.encode()  # what cannot be encoded cannot be written to a report
        assert not len(targets.col) or int(targets.col.max()) < part.num_labels == len(part.label_names)
    for inputs in parts if form is not coco.FORMAT else []:
        assert len(list(inputs.keys())) == len(inputs)
        for excerpt in map(inputs.excerpt, range(len(inputs))):
            assert isinstance(excerpt, bytes) or excerpt.encode() is not None


@given(st.binary() | nearly_arff())
def test_arff(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    check(arff.FORMAT, tmp_path_factory.getbasetemp() / "any.arff", content)


@given(st.binary() | st.lists(DOCUMENT, max_size=2).map(as_json) | DOCUMENT.map(as_json))
def test_documents(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    check(docred.FORMAT, tmp_path_factory.getbasetemp() / "any.json", content)


@given(st.binary() | INSTANCES.map(as_json))
def test_instances(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    (tmp_path_factory.getbasetemp() / "1.jpg").write_bytes(b"")
    check(coco.FORMAT, tmp_path_factory.getbasetemp() / "any.json", content)


@pytest.mark.filterwarnings("ignore")  # of numpy, of headers that other versions wrote
@given(st.binary() | nearly_npy())
def test_arrays(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.npy"
    check(npy.FORMAT, path, content, ReadOptions())
    refuses(lambda: with_targets(Texts(()), path, path, ReadOptions(), []))


SPARSE = st.sampled_from([*"0123", "1:", "2:0.5", " ", ",", "\n", ".0", "#", "-", "2 3\n", "2 3 4\n", "9" * 30])


@given(st.lists(SPARSE).map("".join).map(str.encode))
def test_sparse_rows(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.svm"
    check(svmlight.FORMAT, path, content)
    refuses(lambda: svmlight.read_targets(path))
