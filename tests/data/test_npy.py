"""Arrays of numpy: embeddings with a file of labels, and archives that hold both."""

import gzip
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from lopsided.data import readers
from lopsided.data.dataset import Dataset
from lopsided.data.formats import npy
from lopsided.data.inputs import Images, SparseFeatures, Table
from lopsided.data.readers import ReadOptions
from lopsided.data.storage import UserError

NAN = float("nan")
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)
TRUTH = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]])


def dense(data: Dataset) -> list[list[float]]:
    result = torch.zeros(len(data), data.num_labels)
    values = torch.ones(len(data.targets.col)) if data.targets.values is None else data.targets.values
    result[data.targets.row, data.targets.col] = values
    return result.tolist()


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def save_alone(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


def write_labels(folder: Path, kind: str) -> None:
    """Writes the truth beside train.npy in one of many ways."""
    names = [[f"l{column}" for column in row.nonzero()[0]] for row in TRUTH]
    if kind == "train_labels.npy":
        np.save(folder / kind, TRUTH.astype(bool))
    elif kind == "train_y.npz":
        scipy.sparse.save_npz(folder / kind, scipy.sparse.csr_matrix(TRUTH.astype(np.float32)))
    elif kind == "train.jsonl":
        (folder / kind).write_text("".join(json.dumps(row) + "\n" for row in names))
    elif kind == "train.labels.jsonl":
        (folder / kind).write_text("".join(json.dumps({"labels": row}) + "\n" for row in names))
    elif kind == "train.txt":
        (folder / kind).write_text("".join(",".join(row) + "\n" for row in names))
    elif kind == "train.csv":
        (folder / kind).write_text("l0,l1,l2\n" + "".join(",".join(map(str, row)) + "\n" for row in TRUTH.tolist()))
    else:
        (folder / kind).write_text("3 3\n0:1 2:1\n\n1:1\n")


KINDS = ["train_labels.npy", "train_y.npz", "train.jsonl", "train.txt", "train.csv", "train_Y.txt"]


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_with_a_file_of_labels_beside_them(tmp_path: Path, kind: str) -> None:
    path = save_alone(tmp_path / "train.npy", VECTORS)
    write_labels(tmp_path, kind)
    data = readers.read(path)
    assert isinstance(data.inputs, Table)
    assert data.inputs.numbers.tolist() == VECTORS.tolist()
    assert dense(data) == TRUTH.tolist()
    assert data.notes[0] == f"labels of the rows: from {kind}"
    named = kind in ("train.jsonl", "train.txt", "train.csv")
    assert list(data.label_names) == (["l0", "l1", "l2"] if named else ["0", "1", "2"])


def test_a_file_of_labels_that_is_named(tmp_path: Path) -> None:
    path = save_alone(tmp_path / "train.npy", VECTORS)
    write_labels(tmp_path, "train.labels.jsonl")
    with pytest.raises(UserError, match=r"name the file with the labels of its rows with --targets-file$"):
        readers.read(path)
    data = readers.read(path, ReadOptions(targets_file=tmp_path / "train.labels.jsonl"))
    assert dense(data) == TRUTH.tolist()
    write_labels(tmp_path, "train.txt")
    write_labels(tmp_path, "train.csv")
    with pytest.raises(UserError, match=r"--targets-file; there are train\.csv, train\.txt"):
        readers.read(path)


@pytest.mark.parametrize(
    ("inputs", "labels"),
    [("X_train.npy", "y_train.npy"), ("trainX.npy", "trainY.npy"), ("embeddings.npy", "labels.npy")],
)
def test_usual_names(tmp_path: Path, inputs: str, labels: str) -> None:
    save_alone(tmp_path / labels, TRUTH)
    assert dense(readers.read(save_alone(tmp_path / inputs, VECTORS))) == TRUTH.tolist()


def test_labels_of_sparse_rows_may_stand_in_their_own_file(tmp_path: Path) -> None:
    (tmp_path / "rows.svm").write_text("0:1 3:2\n1:1\n2:0.5\n")
    (tmp_path / "labels.txt").write_text("cat,dog\n\ndog\n")
    data = readers.read(tmp_path / "rows.svm", ReadOptions(targets_file=tmp_path / "labels.txt"))
    assert isinstance(data.inputs, SparseFeatures)
    assert (list(data.label_names), dense(data)) == (["cat", "dog"], [[1, 1], [0, 0], [0, 1]])


def test_the_format_in_two_files_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "trn_X_Xf.txt").write_text("2 3\n0:1 2:0.5\n\n")
    (tmp_path / "trn_X_Y.txt").write_text("2 4\n3:1\n0:1 3:1\n")
    data = readers.read(tmp_path / "trn_X_Xf.txt")
    assert (dense(data), data.num_labels) == ([[0, 0, 0, 1], [1, 0, 0, 1]], 4)
    (tmp_path / "filter_labels_train.txt").write_text("1 3\n0 0\n0 0\n")
    filtered = readers.read(tmp_path / "trn_X_Xf.txt", ReadOptions(filter_file=tmp_path / "filter_labels_train.txt"))
    np.testing.assert_equal(dense(filtered), [[NAN, 0, 0, 1], [1, 0, 0, NAN]])
    assert filtered.notes[-1] == "filter_labels_train.txt: 3 labels of rows are not judged"
    for text, message in (
        ("2 0\n", "line 1: row 2 and label 0, but there are 2 rows and 4 labels"),
        ("1\n", "line 1: exp"),
    ):
        (tmp_path / "filter.txt").write_text(text)
        with pytest.raises(UserError, match=message):
            readers.read(tmp_path / "trn_X_Xf.txt", ReadOptions(filter_file=tmp_path / "filter.txt"))


def test_embeddings_stay_on_disk(tmp_path: Path) -> None:
    path = save_alone(tmp_path / "a.npy", np.ones((10_000, 100), np.float32))
    tracemalloc.start()
    inputs = npy.read_all_inputs(path, ReadOptions())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(inputs) == 10_000
    assert peak < 100_000, "of 4 MB"


def test_a_block_is_all_that_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npy, "BLOCK_ROWS", 2)
    path = save_alone(tmp_path / "a.npy", VECTORS)
    blocks = [block for block in readers.read_inputs(path) if isinstance(block, Table)]
    assert [block.numbers.tolist() for block in blocks] == [VECTORS[:2].tolist(), VECTORS[2:].tolist()]
    save_alone(path, VECTORS / np.array([[1], [1], [1e-45]]))
    with pytest.raises(UserError, match="row 3: a number that is infinite or too large for float32"):
        list(readers.read_inputs(path))


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "bool", ">f4"])
def test_any_numbers(tmp_path: Path, dtype: str) -> None:
    (block,) = readers.read_inputs(save_alone(tmp_path / "a.npy", (VECTORS % 2).astype(dtype)))
    assert isinstance(block, Table)
    assert block.numbers.tolist() == (VECTORS % 2).tolist()


def test_an_archive_of_images_labels_and_names(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(256, size=(3, 5, 4, 3)).astype(np.uint8)
    difficult = np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]], np.int8)
    path = save(
        tmp_path / "a.npz", images=images, labels=TRUTH, difficult=difficult, classes=["a", "b", "c"], ids=[1, 2, 3]
    )
    data = readers.read(path, ReadOptions(unknown_array="difficult"))
    assert isinstance(data.inputs, Images)
    assert data.inputs.pixels.shape == (3, 3, 5, 4)
    assert data.inputs.pixels[1, 2].tolist() == images[1, :, :, 2].tolist()
    np.testing.assert_equal(dense(data), [[1, NAN, 1], [0, 0, 0], [0, 1, 0]])
    assert list(data.label_names) == ["a", "b", "c"]
    assert len(list(data.inputs.keys())) == 3
    (block,) = readers.read_inputs(path)
    assert isinstance(block, Images)


def test_arrays_that_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz.gz", first=VECTORS, second=TRUTH.astype(np.float32) * 0.5, third=TRUTH)
    (tmp_path / "b.npz.gz").write_bytes(gzip.compress((tmp_path / "a.npz.gz.npz").read_bytes()))
    path = tmp_path / "b.npz.gz"
    data = readers.read(path, ReadOptions(feature_columns=("first",), label_columns=("second",)))
    assert dense(data) == (TRUTH * 0.5).tolist()
    with pytest.raises(UserError, match=r"which array holds the features\? .*--feature-columns; there are first"):
        readers.read(path, ReadOptions(label_columns=("second",)))
    with pytest.raises(UserError, match=r"--label-columns must be one of its arrays: first .* got 'x'"):
        readers.read(path, ReadOptions(label_columns=("x",)))


def test_values_that_mean_unknown(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x=VECTORS, y=np.array([[1, -1], [0, 1], [2, 0]], np.int8))
    with pytest.raises(UserError, match=r"array 'y', row 1, column 2: expected 0, 1, .* got -1; if .*: --unknown"):
        readers.read(path)
    data = readers.read(path, ReadOptions(unknown=("-1", "?"), negative=("2",)))
    np.testing.assert_equal(dense(data), [[1, NAN], [0, 1], [0, 0]])
    path = save(tmp_path / "a.npz", x=VECTORS, y=np.array([[1, 2], [2, 1], [2, 2]], np.int8))
    turned = readers.read(path, ReadOptions(negative=("1",), positive=("2",)))
    np.testing.assert_equal(dense(turned), [[0, 1], [1, 0], [1, 1]])


def test_sparse_matrices(tmp_path: Path) -> None:
    matrix = scipy.sparse.csr_matrix(np.array([[0, 2.5, 0], [0, 0, 0], [1, 0, 3]]))
    scipy.sparse.save_npz(tmp_path / "X.trn.npz", matrix)
    scipy.sparse.save_npz(tmp_path / "Y.trn.npz", scipy.sparse.csr_matrix(TRUTH))
    data = readers.read(tmp_path / "X.trn.npz", ReadOptions(targets_file=tmp_path / "Y.trn.npz"))
    assert isinstance(data.inputs, SparseFeatures)
    assert (data.inputs.indices.tolist(), data.inputs.values.tolist()) == ([1, 0, 2], [2.5, 1, 3])
    assert dense(data) == TRUTH.tolist()
    scipy.sparse.save_npz(tmp_path / "a.npz", matrix.tobsr())
    with pytest.raises(UserError, match="a sparse matrix of the format 'bsr'; save it as csr"):
        npy.read_all_inputs(tmp_path / "a.npz", ReadOptions())


@pytest.mark.parametrize("form", ["csc", "coo"])
@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
def test_sparse_matrices_by_columns_and_by_entries(tmp_path: Path, form: str, kind: Any) -> None:
    matrix, truth = kind(np.array([[0, 2.5, 0], [0, 0, 0], [1, 0, 3]])), kind(TRUTH != 0)
    scipy.sparse.save_npz(tmp_path / "X.trn.npz", matrix.asformat(form))
    scipy.sparse.save_npz(tmp_path / "Y.trn.npz", truth.asformat(form))
    data = readers.read(tmp_path / "X.trn.npz", ReadOptions(targets_file=tmp_path / "Y.trn.npz"))
    assert isinstance(data.inputs, SparseFeatures)
    assert (data.inputs.indices.tolist(), data.inputs.values.tolist()) == ([1, 0, 2], [2.5, 1, 3])
    assert dense(data) == TRUTH.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": np.array([0, 9])}, "damaged sparse matrix of the format 'csc': "),
        ({"shape": np.array([2**50, 2])}, f"of the format 'csc': {2**50} rows for 2 entries"),
        ({"shape": np.array([3])}, "damaged sparse matrix of the format 'csc': not enough values"),
        ({"format": np.array("coo")}, "of the format 'coo': "),
    ],
)
def test_damaged_sparse_matrices(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arrays = {"data": np.ones(2), "indices": np.array([0, 1]), "indptr": np.array([0, 1, 2]), "shape": np.array([3, 2])}
    np.savez(tmp_path / "a.npz", **({"format": np.array("csc")} | arrays | changes))
    with pytest.raises(UserError, match=message):
        npy.read_all_inputs(tmp_path / "a.npz", ReadOptions())


BAD_ARRAYS: dict[str, tuple[Any, str]] = {
    "no array": (b"x" * 100, "damaged, or no file of numpy"),
    "empty": (b"", "damaged, or no file of numpy"),
    "objects": (np.array([{}, []], dtype=object), "holds Python objects, which could run any code; save arrays of num"),
    "texts": (np.array([["a"]]), r"expected \(rows, D\) numbers.* got <U1 \(1, 1\)"),
    "one number a row": (VECTORS[0], r"expected \(rows, D\) numbers.* got float32 \(4,\)"),
    "no rows": (VECTORS[:0], "no rows"),
    "infinite": (np.array([[0, 1], [2, np.inf]]), "row 2: a number that is infinite or too large for float32"),
    "too large": (np.array([[0, 1], [1e39, 2]]), "row 2: a number that is infinite or too large for float32"),
    "no channels": (np.zeros((2, 5, 5, 5), np.uint8), "images must have 1 or 3 channels, the last or second dimension"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_files_are_named_in_one_line(tmp_path: Path, name: str) -> None:
    content, message = BAD_ARRAYS[name]
    path = tmp_path / "a.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(UserError, match=message) as caught:
        npy.read_all_inputs(path, ReadOptions())
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_header_of_eight_terabytes_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(8))
    archive = tmp_path / "a.npz"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(path, "x.npy")
    for damaged in (path, archive):
        with pytest.raises(UserError, match="damaged, or no file of numpy"):
            npy.read_all_inputs(damaged, ReadOptions())


@pytest.mark.parametrize("name", ["a.npz", "a.npy.gz"])
def test_what_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path, name: str) -> None:
    zeros, path = np.zeros((10_000, 100)), tmp_path / name
    if path.suffix == ".npz":
        np.savez_compressed(path, X=zeros)
    else:
        np.save(tmp_path / "a.npy", zeros)
        path.write_bytes(gzip.compress((tmp_path / "a.npy").read_bytes()))
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(
        UserError, match=rf"{name}: unpacks to more than 0.002 GB; where it is meant to: --max-unpacked 1"
    ):
        list(readers.read_inputs(path, ReadOptions(max_unpacked=0.002, format="npy")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < zeros.nbytes
    inputs = list(readers.read_inputs(path, ReadOptions(max_unpacked=0.02, format="npy")))
    assert sum(map(len, inputs)) == 10_000


def test_what_a_file_has_on_the_disk_is_never_too_much(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", X=np.zeros((10_000, 100)))
    assert len(npy.read_all_inputs(path, ReadOptions(max_unpacked=0.002))) == 10_000


def test_labels_of_a_shape_with_hardly_any_entries_are_refused(tmp_path: Path) -> None:
    save_alone(tmp_path / "train.npy", VECTORS)
    truth = scipy.sparse.csr_matrix(TRUTH.astype(np.float32))
    scipy.sparse.save_npz(
        tmp_path / "train_y.npz", scipy.sparse.csr_matrix((truth.data, truth.indices, truth.indptr), (3, 2**40))
    )
    with pytest.raises(UserError, match="1099511627776 labels by its shape, but the rows have 3 different ones"):
        readers.read(tmp_path / "train.npy")


def test_both_files_must_have_the_same_rows(tmp_path: Path) -> None:
    save_alone(tmp_path / "a_labels.npy", TRUTH[:2])
    with pytest.raises(UserError, match=r"a_labels\.npy: labels of 2 rows, but .*a\.npy has 3"):
        readers.read(save_alone(tmp_path / "a.npy", VECTORS))
    with pytest.raises(UserError, match=r"expected labels as \(rows, labels\) numbers from 0 to 1, got int64 \(3,\)"):
        readers.read(tmp_path / "a.npy", ReadOptions(targets_file=save_alone(tmp_path / "flat.npy", TRUTH[:, 0])))


@pytest.mark.slow
def test_voc_is_what_its_table_says(shared: Path) -> None:
    data = readers.read(shared / "data/voc2007test_32/voc2007test_32.npz", ReadOptions(unknown_array="difficult"))
    assert isinstance(data.inputs, Images)
    assert data.inputs.pixels.shape == (4952, 3, 32, 32)
    assert (data.num_labels, data.label_names[14]) == (20, "person")
    counts = data.label_counts()
    assert [int(counts.min()), int(counts.max()), int(counts.sum())] == [97, 2007, 7013]
    assert data.targets.values is not None
    assert int(data.targets.values.isnan().sum()) == 619
