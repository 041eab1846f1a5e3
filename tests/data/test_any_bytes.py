"""Whatever a file holds, a reader gives its rows or one error in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lopsided.data.dataset import Dataset
from lopsided.data.formats import svmlight
from lopsided.data.inputs import SparseFeatures
from lopsided.data.opening import shown
from lopsided.data.readers import ReadOptions, read
from lopsided.data.storage import UserError

NEARLY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "labels", "label", ""]), inner, max_size=3)
    ),
    max_leaves=6,
)
PIECES = ["text", "labels", ",", "\t", '"', "\n", "\r", "a", "é", "\0", "\ufeff"]
NEARLY_CSV = st.lists(st.sampled_from(PIECES)).map("".join)
NEARLY_SPARSE = st.lists(
    st.sampled_from([*map(str, range(3)), *",: \n\r\v.-e#", "12", "1:2", " 3:4", "9" * 400]).map(str.encode)
).map(b"".join)


def read_or_refuse(read: Callable[[Path], Any], path: Path, content: bytes) -> Any:
    """What `read` gives for a file with that content; None if it refuses, in one line that begins with the path."""
    path.write_bytes(content)
    try:
        return read(path)
    except UserError as error:
        message = str(error)
    assert message.startswith(str(path))
    assert "\n" not in message
    return None


def read_sparse(path: Path) -> Dataset:
    return svmlight.read(path, ReadOptions())


@pytest.mark.slow
@given(st.binary() | NEARLY_CSV.map(str.encode) | st.lists(NEARLY_JSON.map(json.dumps)).map("\n".join).map(str.encode))
def test_records(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever options settle what is ambiguous, a data set comes back or one line."""
    settled = ReadOptions(absent="unknown", separator=",", label_form="names")
    for suffix in (".jsonl", ".csv", ".tsv", ".train", ".parquet", ".xlsx"):
        path = tmp_path_factory.getbasetemp() / f"any{suffix}"
        for options in (ReadOptions(), settled):
            data = read_or_refuse(lambda path, options=options: read(path, options), path, content)  # type: ignore[misc]
            if data is not None:
                assert len(data.targets.crow) == len(data) + 1
                assert all(name.encode() for name in data.label_names)
                assert all(text.encode() is not None for text in data.inputs.texts)
                assert not len(data.targets.col) or int(data.targets.col.max()) < data.num_labels


@pytest.mark.slow
@given(st.binary() | NEARLY_SPARSE)
def test_sparse_rows(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    data = read_or_refuse(read_sparse, tmp_path_factory.getbasetemp() / "any.txt", content)
    if data is not None:
        rows, targets = data.inputs, data.targets
        assert isinstance(rows, SparseFeatures)
        assert len(targets.crow) == len(rows) + 1 == len(rows.indptr)
        assert rows.indptr[-1] == len(rows.indices) == len(rows.values)
        assert targets.crow[-1] == len(targets.col)
        assert rows.values.isfinite().all()
        assert not len(rows.indices) or int(rows.indices.max()) < rows.num_features
        assert not len(targets.col) or int(targets.col.max()) < data.num_labels


def test_a_header_with_a_number_of_five_thousand_digits(tmp_path: Path) -> None:
    assert read_or_refuse(read_sparse, tmp_path / "long.txt", b"1" * 5000 + b" 2 3\n1 0:1\n") is None


def test_a_label_that_is_no_text(tmp_path: Path) -> None:
    content = json.dumps({"text": "a", "labels": ["\ud800", "b"]}).encode()
    assert read_or_refuse(read, tmp_path / "lone.jsonl", content) is None


@pytest.mark.parametrize("sign", ["\x9b", "\ufeff", "\ud800", "\U000e0001", "a", "'"])
def test_what_is_shown_is_short_though_it_is_escaped(sign: str) -> None:
    assert len(shown(sign * 1000)) <= 2 * 40 + 1
    assert shown(sign * 2) == repr(sign * 2)
