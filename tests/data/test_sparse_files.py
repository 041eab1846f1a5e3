"""The sparse rows that `fit` takes, and the maker of such data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lopsided.__main__ import main
from lopsided.data.make_xmc import XmcMaker, make_xmc
from lopsided.data.sparse_files import SparseRows, read_sparse

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
