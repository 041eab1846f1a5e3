"""Sparse features with label numbers: svmlight, and the extreme-classification formats in one file and in two."""

import gzip
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

from lopsided.data import readers
from lopsided.data.dataset import Dataset
from lopsided.data.formats import svmlight
from lopsided.data.inputs import SparseFeatures
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

EXAMPLE = "4 6 5\n4,0 1:0.5 5:-2\n 0:1e-3\n3\n\n"  # the second row has no label, the third no feature, the last neither
DENSE = np.array([[0, 0.5, 0, 0, 0, -2], [1e-3, 0, 0, 0, 0, 0], [0] * 6, [0] * 6], dtype=np.float32).tolist()


def write(folder: Path, text: str, name: str = "rows.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def read(path: Path) -> Dataset:
    return svmlight.read(path, ReadOptions())


def features(rows: object) -> list[list[float]]:
    """Dense, one entry at a time."""
    assert isinstance(rows, SparseFeatures)
    dense = np.zeros((len(rows), rows.num_features), dtype=np.float32)
    for row in range(len(rows)):
        for entry in range(int(rows.indptr[row]), int(rows.indptr[row + 1])):
            dense[row, rows.indices[entry]] = rows.values[entry]
    return dense.tolist()


def labels(data: Dataset) -> list[list[int]]:
    crow = data.targets.crow.tolist()
    return [data.targets.col[crow[row] : crow[row + 1]].tolist() for row in range(len(data))]


@pytest.mark.parametrize("block", [1, 20, 10**6])
@pytest.mark.parametrize("change", [("", ""), ("\n", "\r\n"), (" ", " \t"), ("\n", " \n")])
def test_the_repository_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, change: tuple[str, str]
) -> None:
    monkeypatch.setattr(svmlight, "_BLOCK", block)
    head, _, body = EXAMPLE.partition("\n")
    text = head + "\n" + (body.replace(*change) if change[0] else body)
    sizes: list[int] = []
    data = svmlight.read(write(tmp_path, text + "\n\n"), ReadOptions(), sizes.append)
    rows, targets = data.inputs, data.targets
    assert isinstance(rows, SparseFeatures)
    assert labels(data) == [[4, 0], [], [3], []]
    assert features(rows) == DENSE
    assert (rows.num_features, data.num_labels, rows.declared) == (6, 5, True)
    assert [t.dtype for t in (rows.indptr, rows.indices, targets.crow, targets.col)] == [torch.int64] * 4
    assert rows.values.dtype == torch.float32
    assert sum(sizes) == len(text) + 2
    assert data.label_counts().tolist() == [1, 0, 0, 1, 1]
    blocks = svmlight.read_inputs(tmp_path / "rows.txt", ReadOptions())
    assert [row for block in blocks for row in features(block)] == DENSE, "rows without labels are those with labels"


def test_svmlight_has_no_header_but_comments(tmp_path: Path) -> None:
    data = read(write(tmp_path, "# made by hand\n2,7 1:0.5 # first\n\n 3:1\n", "a.svm"))
    assert labels(data) == [[2, 7], []]
    assert isinstance(data.inputs, SparseFeatures)
    assert (data.inputs.num_features, data.num_labels, data.inputs.declared) == (4, 8, False)
    assert list(data.label_names) == list("01234567")


def test_equal_to_scikit_learn(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    dense = random.normal(size=(50, 30)) * 10.0 ** random.integers(-9, 9, (50, 30)) * (random.random((50, 30)) < 0.3)
    truth = (random.random((50, 9)) < 0.3).astype(np.int64)
    path = tmp_path / "a.svmlight"
    dump_svmlight_file(dense, truth, str(path), zero_based=True, multilabel=True)
    expected, expected_labels = load_svmlight_file(str(path), dtype=np.float32, multilabel=True, zero_based=True)
    data = read(path)
    assert features(data.inputs) == expected.toarray().tolist()
    assert labels(data) == [[int(label) for label in row] for row in expected_labels]


BAD_FILES = {
    "empty": ("", ": no rows$"),
    "header alone": ("2 3 4\n", ": no rows$"),
    "too few rows": ("3 6 5\n1 0:1\n2 1:1\n", ": 2 rows, but the header .line 1. says 3"),
    "too many rows": ("1 6 5\n1 0:1\n2 1:1\n", ": 2 rows, but the header .line 1. says 1"),
    "feature beyond the header": ("2 6 5\n1 0:1\n2 6:1\n", "line 3: feature 6, but the header .line 1. says 6, number"),
    "label beyond the header": ("2 6 5\n1 0:1\n2,5 1:1\n", "line 3: label 5, but the header .line 1. says 5, numbered"),
    "feature beyond reason": ("1 0:1\n2 99999999999:1\n", "line 2: feature 99999999999, but the most is 2147483647"),
    "value not a number": ("1 0:1\n2 1:x\n", "line 2: expected a feature and its value such as 12:0.5, got '1:x'"),
    "NaN": ("1 0:nan\n", "line 1: expected a feature and its value .* got '0:nan'"),
    "infinite": ("1 0:inf\n", "line 1: expected a feature and its value .* got '0:inf'"),
    "too large": ("1 0:1\n\n2 1:1 2:-1e39\n", r"line 3: the value -1e\+39 is too large for float32"),
    "no value": ("1 0:1 2\n", "line 1: expected a feature and its value .* got '2'"),
    "negative feature": ("1 -1:1\n", "line 1: .* got '-1:1'"),
    "spaces alone between labels": (
        "1 2 0:1\n",
        "line 1: expected .* such as 12:0.5, got '2'; labels are cut by commas",
    ),
    "a comma after the last label": ("1, 0:1\n", "line 1: expected labels such as 3,17, got '1,'"),
    "a label that is a fraction": ("1.5 0:1\n", "line 1: expected labels such as 3,17, got '1.5'"),
    "label not a number": ("1 0:1\ncat 0:1\n", "line 2: expected labels such as 3,17, got 'cat'$"),
    "no space before the features": ("1 0:1\n0:1 2:1\n", "line 2: .* got '0:1'; a row without labels begins with a sp"),
    "feature twice": ("1 0:1 3:1 0:2\n", "line 1: feature 0 stands twice in the row"),
    "features alone": ("3 6\n0:1\n1:1\n2:1\n", ": only features, .* name that of the labels with --targets-file"),
    "labels below a header of features": ("1 6\n3 1:1\n", "line 2: expected a feature and its value .* got '3'"),
    "header beyond reason": (
        "1 6 50000000000\n1 0:1\n",
        "line 1: 50000000000 in the header, but the most is 2147483648",
    ),
    "comment below a header": ("1 6 5\n1 0:1 # x\n", "line 2: expected a feature and its value .* got '#'"),
    "bytes": ("1 0:1\n\0\0 0:1\n", "line 2: expected labels"),
}


@pytest.mark.parametrize("block", [1, 10**6])
@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named_in_one_line(
    tmp_path: Path, name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svmlight, "_BLOCK", block)
    text, message = BAD_FILES[name]
    with pytest.raises(UserError, match=message) as caught:
        read(write(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'rows.txt'}")
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0, 4 2:1\n1 ,2,\t4 7:1\n", [[0, 4], [1, 2, 4]]),
        ("0.0,4.0 2:1\n 3:1\n7. 1:1\n", [[0, 4], [], [7]]),
        ("0,4,0 2:1\n10,10 3:1\n3,1,3,1 1:1\n", [[0, 4], [10], [3, 1]]),
        ("\ufeff2 1:1\n", [[2]]),
    ],
    ids=["blanks about commas", "what scikit-learn's reader gives", "a label twice counts once", "byte order mark"],
)
def test_labels_as_people_write_them(tmp_path: Path, text: str, expected: list[list[int]]) -> None:
    assert labels(read(write(tmp_path, text, "a.svm"))) == expected


@pytest.mark.parametrize("block", [1, 10**6])
def test_rows_to_predict_need_no_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(svmlight, "_BLOCK", block)
    path = write(tmp_path, "1:1 3:2\n 2:1\n4,cat 1:2\n9\n0 2 2:5 # of two\n", "new.svm")
    blocks = svmlight.read_inputs(path, ReadOptions())
    assert [index for block in blocks for index in block.indices.tolist()] == [1, 3, 2, 1, 2]
    assert svmlight.read_all_inputs(path, ReadOptions()).indptr.tolist() == [0, 2, 3, 4, 4, 5]
    with pytest.raises(UserError, match=r"line 1: expected a feature and its value .* got '1:x'"):
        list(svmlight.read_inputs(write(tmp_path, "0:1 1:x\n"), ReadOptions()))


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    """As in scikit-learn's reader, whether the file is trained on or predicted."""
    path = write(tmp_path, "0 1:1\n\n1 2:1\n \n# nothing\n1\n", "a.svm")
    assert load_svmlight_file(str(path))[0].shape[0] == 3
    assert labels(read(path)) == [[0], [1], [1]]
    assert exhaust(path) == len(svmlight.read_all_inputs(path, ReadOptions())) == 3


@pytest.mark.parametrize(
    ("name", "start", "expected"),
    [
        ("a.svm", "anything", True),
        ("a.libsvm.gz", "", True),
        ("a.txt", "4880 1836 159\n", True),
        ("a.txt", "4880 1836\n", True),
        ("a.txt", "1,2 3:0.5 4:", True),
        ("a.txt", "7\n\n 3:0.5\n", True),
        ("a.txt", "3:0.5 # one\n", True),
        ("a.txt", "12:30 is when we met\n", False),
        ("a.txt", "__label__x at 12:30 3:1\n", False),
    ],
)
def test_such_files_are_recognized(name: str, start: str, expected: bool) -> None:
    assert svmlight.recognizes(Path(name), start.encode()) is expected


def test_compressed_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt.gz"
    path.write_bytes(gzip.compress(EXAMPLE.encode()))
    assert labels(read(path)) == [[4, 0], [], [3], []]


NAMES = [
    ("trn_X_Xf.txt", "trn_X_Y.txt"),
    ("trainX.txt", "trainY.txt"),
    ("X_trn.txt.gz", "Y_trn.txt.gz"),
    ("trn_ft_mat.txt", "trn_lbl_mat.txt"),
]


@pytest.mark.parametrize(("first", "second"), NAMES)
def test_the_format_in_two_files(tmp_path: Path, first: str, second: str) -> None:
    pack = gzip.compress if first.endswith("gz") else bytes
    (tmp_path / first).write_bytes(pack(b"3 4\n0:0.5 3:1\n\n2:1\n"))
    with pytest.raises(UserError, match=f"only features, .* --targets-file; there is no .*{second}"):
        svmlight.find_targets(tmp_path / first, ReadOptions())
    (tmp_path / second).write_bytes(pack(b"3 9\n0:1.0 8:1.0\n3:1\n\n"))
    assert svmlight.find_targets(tmp_path / first, ReadOptions()) == tmp_path / second
    rows, targets = svmlight.read_all_inputs(tmp_path / first, ReadOptions()), svmlight.read_targets(tmp_path / second)
    assert features(rows) == [[0.5, 0, 0, 1], [0] * 4, [0, 0, 1, 0]]
    assert (targets.crow.tolist(), targets.col.tolist()) == ([0, 2, 3, 3], [0, 8, 3])
    assert (targets.values, targets.num_labels) == (None, 9)
    with pytest.raises(UserError, match=f"only labels, .* give that of the features, .*{first}"):
        svmlight.find_targets(tmp_path / second, ReadOptions())


def test_labels_with_values(tmp_path: Path) -> None:
    targets = svmlight.read_targets(write(tmp_path, "2 3\n0:0.25 2:1\n1:0\n"))
    assert targets.values is not None
    assert targets.values.tolist() == [0.25, 1, 0]
    with pytest.raises(UserError, match="row 2: the value of a label must be in 0 to 1, got 1:-2"):
        svmlight.read_targets(write(tmp_path, "2 3\n0:0.25\n1:-2\n"))
    with pytest.raises(UserError, match=r"line 2: label 3, but the header \(line 1\) says 3"):
        svmlight.read_targets(write(tmp_path, "2 3\n3:1\n1:1\n"))
    with pytest.raises(UserError, match="expected a first line such as '4880 159'"):
        svmlight.read_targets(write(tmp_path, "0:1\n1:1\n"))


def test_one_file_has_its_labels_itself(tmp_path: Path) -> None:
    assert svmlight.find_targets(write(tmp_path, EXAMPLE), ReadOptions()) is None
    assert svmlight.find_targets(write(tmp_path, "1 2:1\n"), ReadOptions()) is None


def exhaust(path: Path) -> int:
    return sum(len(block) for block in svmlight.read_inputs(path, ReadOptions()))


def peak_of(read: Callable[[], object]) -> int:
    tracemalloc.start()
    read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("text", ["2 2147483648 1048576\n1 0:1\n2 2147483647:1\n", "1048575 2000000000:1\n"])
def test_memory_is_that_of_the_rows(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    assert peak_of(lambda: read(path)) < 2**23
    assert read(path).num_labels == 2**20


GAPS = {
    "1 9 2147483648\n1,3 0:1\n": "2147483648 labels by its header",
    "1,99999999 0:1\n": "100000000 labels by the",
}


@pytest.mark.parametrize(("text", "by"), GAPS.items())
def test_labels_of_which_hardly_any_occurs_are_refused(tmp_path: Path, text: str, by: str) -> None:
    with pytest.raises(UserError, match=f"{by}.* but the rows have 2 different ones; .* number them without gaps"):
        read(write(tmp_path, text))
    with pytest.raises(UserError, match="2147483648 labels by its header, but the rows have 1 different ones"):
        svmlight.read_targets(write(tmp_path, "1 2147483648\n5:1\n"))


def test_blocks_are_read_in_constant_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svmlight, "_BLOCK", 2**11)
    peaks = []
    for rows in (1000, 10_000):
        path = write(tmp_path, "3 1:1 2:0.5 70:1\n" * rows)
        peaks.append(peak_of(partial(exhaust, path)))
    assert peaks[1] < peaks[0] + 100_000, "the rows of the second file have 500 KB in memory"


def test_bibtex_is_what_its_table_says(shared: Path) -> None:
    folder = shared / "data/xmc_bibtex"
    train, test = (read(folder / f"bibtex_{part}.txt") for part in ("train", "test"))
    rows = train.inputs
    assert isinstance(rows, SparseFeatures)
    assert (len(train), len(test), rows.num_features, train.num_labels) == (4880, 2515, 1836, 159)
    counts = train.label_counts() + test.label_counts()
    assert (int(counts.min()), int(counts.median()), int(counts.max())) == (51, 82, 1042)
    matrix = [line.split() for line in (folder / "trainX.txt").read_text().splitlines()[1:]]
    assert len(rows.indices) == sum(map(len, matrix))
    assert [f"{index}:1.000000" for index in rows.take(torch.tensor([4879])).indices.tolist()] == matrix[4879]


@pytest.mark.slow
def test_bibtex_is_the_same_in_one_file_and_in_two(shared: Path) -> None:
    folder = shared / "data/xmc_bibtex"
    for part in ("train", "test"):
        data = read(folder / f"bibtex_{part}.txt")
        targets = svmlight.read_targets(folder / f"{part}Y.txt")
        rows = svmlight.read_all_inputs(folder / f"{part}X.txt", ReadOptions())
        assert isinstance(data.inputs, SparseFeatures)
        for name in ("indptr", "indices", "values", "num_features"):
            torch.testing.assert_close(getattr(data.inputs, name), getattr(rows, name), rtol=0, atol=0)
        for name in ("crow", "col", "num_labels"):
            torch.testing.assert_close(getattr(data.targets, name), getattr(targets, name), rtol=0, atol=0)
        assert targets.values is None


def test_labels_that_are_numbers_are_aligned_without_their_names(tmp_path: Path) -> None:
    first = readers.read(write(tmp_path, "1 2147483648 1048576\n1 0:1\n"))
    second = readers.read(write(tmp_path, "3 1:1\n", "valid.txt"))
    assert [part.num_labels for part in readers.aligned([first, second])] == [2**20, 2**20]
    assert [part.targets.num_labels for part in readers.aligned([first, second])] == [2**20, 2**20]
