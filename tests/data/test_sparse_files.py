"""The reader of sparse rows, in both formats, and the maker of such data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import dump_svmlight_file, load_svmlight_file
from torch import nn

from lopsided.__main__ import main
from lopsided.data import sparse_files as xmc
from lopsided.data.make_xmc import XmcMaker, make_xmc
from lopsided.data.sparse_files import SparseRows, read_sparse
from lopsided.data.storage import UserError

EXAMPLE = "4 6 5\n4,0 1:0.5 5:-2\n 0:1e-3\n3\n\n"  # the second row has no label, the third no feature, the last neither


def write(folder: Path, text: str, name: str = "rows.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def features(rows: SparseRows) -> np.ndarray:
    """Dense, one entry at a time."""
    dense = np.zeros((len(rows), rows.num_features), dtype=np.float32)
    for row in range(len(rows)):
        for entry in range(int(rows.indptr[row]), int(rows.indptr[row + 1])):
            dense[row, rows.indices[entry]] = rows.values[entry]
    return dense


def labels(rows: SparseRows) -> list[list[int]]:
    crow = rows.labels.crow.tolist()
    return [rows.labels.col[crow[row] : crow[row + 1]].tolist() for row in range(len(rows))]


@pytest.mark.parametrize("block", [1, 20, 10**6])
@pytest.mark.parametrize("change", [("", ""), ("\n", "\r\n"), (" ", " \t"), ("\n", " \n")])
def test_the_repository_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, change: tuple[str, str]
) -> None:
    monkeypatch.setattr(xmc, "_BLOCK", block)
    head, _, body = EXAMPLE.partition("\n")
    text = head + "\n" + (body.replace(*change) if change[0] else body)
    sizes: list[int] = []
    rows = read_sparse(write(tmp_path, text + "\n\n"), sizes.append)
    assert labels(rows) == [[4, 0], [], [3], []]
    assert (
        features(rows).tolist()
        == np.array([[0, 0.5, 0, 0, 0, -2], [1e-3, 0, 0, 0, 0, 0], [0] * 6, [0] * 6], dtype=np.float32).tolist()
    )
    assert (rows.num_features, rows.num_labels, rows.declared) == (6, 5, True)
    assert [t.dtype for t in (rows.indptr, rows.indices, rows.labels.crow, rows.labels.col)] == [torch.int64] * 4
    assert rows.values.dtype == torch.float32
    assert sum(sizes) == len(text) + 2 - len(head) - 1
    assert rows.label_counts().tolist() == [1, 0, 0, 1, 1]


def test_svmlight_has_no_header_but_comments(tmp_path: Path) -> None:
    rows = read_sparse(write(tmp_path, "# made by hand\n2,7 1:0.5 # first\n\n 3:1\n", "a.svm"))
    assert labels(rows) == [[2, 7], []]
    assert (rows.num_features, rows.num_labels, rows.declared) == (4, 8, False)


def test_equal_to_scikit_learn(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    dense = random.normal(size=(50, 30)) * 10.0 ** random.integers(-9, 9, (50, 30)) * (random.random((50, 30)) < 0.3)
    truth = (random.random((50, 9)) < 0.3).astype(np.int64)
    path = tmp_path / "a.svmlight"
    dump_svmlight_file(dense, truth, str(path), zero_based=True, multilabel=True)
    expected, expected_labels = load_svmlight_file(str(path), dtype=np.float32, multilabel=True, zero_based=True)
    rows = read_sparse(path)
    assert features(rows).tolist() == expected.toarray().tolist()
    assert labels(rows) == [[int(label) for label in row] for row in expected_labels]


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
    "spaces between labels": ("1, 2 0:1\n", "line 1: expected labels such as 3,17, got '1,'"),
    "label not a number": ("1 0:1\ncat 0:1\n", "line 2: expected labels such as 3,17, got 'cat'$"),
    "no space before the features": ("1 0:1\n0:1 2:1\n", "line 2: .* got '0:1'; a row without labels begins with a sp"),
    "feature twice": ("1 0:1 3:1 0:2\n", "line 1: feature 0 stands twice in the row"),
    "label twice": ("1 0:1\n2,3,2 0:1\n", "line 2: label 2 stands twice in the row"),
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
    monkeypatch.setattr(xmc, "_BLOCK", block)
    text, message = BAD_FILES[name]
    with pytest.raises(UserError, match=message) as caught:
        read_sparse(write(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'rows.txt'}")
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_sparse(tmp_path / "none.txt")


@pytest.fixture
def rows(tmp_path: Path) -> SparseRows:
    make_xmc(tmp_path / "made", XmcMaker(40, 60), 100, 1)
    return read_sparse(tmp_path / "made/train.txt")


def test_batches_are_what_an_embedding_bag_takes(rows: SparseRows) -> None:
    chosen = torch.tensor([7, 0, 99, 7])
    (indices, offsets, weights), truth = rows.batch(chosen)
    bag = nn.EmbeddingBag.from_pretrained(torch.eye(60), mode="sum")
    expected = torch.from_numpy(features(rows))[chosen]
    torch.testing.assert_close(bag(indices, offsets, per_sample_weights=weights), expected)
    taken = rows.take(chosen)
    assert features(taken).tolist() == expected.tolist()
    assert labels(taken) == [labels(rows)[row] for row in chosen.tolist()]
    assert truth.crow.tolist() == taken.labels.crow.tolist()


def test_rows_of_unit_length_of_which_those_of_zeros_stay(tmp_path: Path) -> None:
    rows = read_sparse(write(tmp_path, "1 0:3e30 1:-4e30\n2 1:0\n3\n")).unit_length()
    assert features(rows) == pytest.approx(np.array([[0.6, -0.8], [0, 0], [0, 0]]))


def test_rows_for_a_model_of_other_sizes(tmp_path: Path) -> None:
    rows = read_sparse(write(tmp_path, "1 0:3 5:1\n6 5:2\n0 1:1 4:2\n"))
    fitted = rows.fitted_to(num_features=5, num_labels=3)
    assert features(fitted).tolist() == features(rows)[:, :5].tolist()
    assert labels(fitted) == labels(rows)
    assert (fitted.num_features, fitted.num_labels) == (5, 7)
    assert rows.fitted_to(9, 8).num_labels == 8
    with pytest.raises(ValueError, match="says 6 features and 5 labels, but the training rows have 6 and 4"):
        read_sparse(write(tmp_path, EXAMPLE)).fitted_to(6, 4)


def test_bibtex_is_what_its_table_says(shared: Path) -> None:
    folder = shared / "data/xmc_bibtex"
    train, test = (read_sparse(folder / f"bibtex_{part}.txt") for part in ("train", "test"))
    assert (len(train), len(test), train.num_features, train.num_labels) == (4880, 2515, 1836, 159)
    counts = train.label_counts() + test.label_counts()
    assert (int(counts.min()), int(counts.median()), int(counts.max())) == (51, 82, 1042)
    matrix = [line.split() for line in (folder / "trainX.txt").read_text().splitlines()[1:]]
    assert len(train.indices) == sum(map(len, matrix))
    assert [f"{index}:1.000000" for index in train.take(torch.tensor([4879])).indices.tolist()] == matrix[4879]


def test_made_data_are_seeded_and_have_a_long_tail(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_xmc(tmp_path / name, XmcMaker(2000, 300, seed), rows=5000, test_rows=50)
    texts = {name: (tmp_path / name / "train.txt").read_bytes() for name in "abc"}
    assert texts["a"] == texts["b"] != texts["c"]
    train, test = (read_sparse(tmp_path / "a" / f"{part}.txt") for part in ("train", "test"))
    assert (len(train), len(test), test.num_features, test.num_labels) == (5000, 50, 300, 2000)
    counts = train.label_counts().sort(descending=True).values
    assert 2.8 < counts.sum() / 5000 < 3.1
    assert counts[:200].sum() > 0.45 * counts.sum()
    assert counts[0] < 0.06 * 5000
    assert not torch.equal(train.take(torch.arange(50)).indices, test.indices), "test rows are those of training"


def test_made_rows_have_the_features_of_their_labels(rows: SparseRows) -> None:
    random = np.random.default_rng((0, 0))
    owned = random.integers(60, size=(40, 5))
    shares = [
        np.isin(owned[label], rows.take(torch.tensor([row])).indices.numpy()).mean()
        for row, of_row in enumerate(labels(rows))
        for label in of_row
    ]
    assert 0.78 < np.mean(shares) < 0.95  # 0.8, and what noise and other labels add


def test_a_stopped_maker_leaves_no_file(tmp_path: Path) -> None:
    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_xmc(tmp_path / "made", XmcMaker(40, 60), 10, 10, stop)
    assert list((tmp_path / "made").iterdir()) == []


def test_the_command_makes_both_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "make-xmc", "--labels", "100", "--rows", "20", "--test-rows", "5"]) == 0
    assert capsys.readouterr().out == "made: xmc-100/train.txt and xmc-100/test.txt\n"
    assert (len(read_sparse(folder / "xmc-100/train.txt")), len(read_sparse(folder / "xmc-100/test.txt"))) == (20, 5)
