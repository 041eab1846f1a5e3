"""The maker of rows with many labels, whose file is of the format in one file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lopsided.__main__ import main
from lopsided.data.dataset import Dataset
from lopsided.data.formats import svmlight
from lopsided.data.inputs import SparseFeatures
from lopsided.data.make_xmc import XmcMaker, make_xmc
from lopsided.data.options import ReadOptions


def read(path: Path) -> tuple[Dataset, SparseFeatures]:
    data = svmlight.read(path, ReadOptions())
    assert isinstance(data.inputs, SparseFeatures)
    return data, data.inputs


def test_made_data_are_seeded_and_have_a_long_tail(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_xmc(tmp_path / name, XmcMaker(2000, 300, seed), rows=5000, test_rows=50)
    texts = {name: (tmp_path / name / "train.txt").read_bytes() for name in "abc"}
    assert texts["a"] == texts["b"] != texts["c"]
    (train, features), (test, test_features) = (read(tmp_path / "a" / f"{part}.txt") for part in ("train", "test"))
    assert (len(train), len(test), test_features.num_features, test.num_labels) == (5000, 50, 300, 2000)
    counts = train.label_counts().sort(descending=True).values
    assert 2.8 < counts.sum() / 5000 < 3.1
    assert counts[:200].sum() > 0.45 * counts.sum()
    assert counts[0] < 0.06 * 5000
    first = features.take(torch.arange(50))
    assert not torch.equal(first.indices, test_features.indices), "test rows are those of training"


def test_made_rows_have_the_features_of_their_labels(tmp_path: Path) -> None:
    make_xmc(tmp_path / "made", XmcMaker(40, 60), 100, 1)
    data, features = read(tmp_path / "made/train.txt")
    owned = np.random.default_rng((0, 0)).integers(60, size=(40, 5))
    shares = [
        np.isin(owned[label], features.take(torch.tensor([row])).indices.numpy()).mean()
        for row in range(len(data))
        for label in data.targets_of(torch.tensor([row])).col.tolist()
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
    assert [len(read(folder / f"xmc-100/{part}.txt")[0]) for part in ("train", "test")] == [20, 5]
