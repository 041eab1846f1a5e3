"""Real sets of texts are what the table beside them says."""

from pathlib import Path

import pytest

from lopsided.data.dataset import Dataset
from lopsided.data.inputs import Texts
from lopsided.data.readers import ReadOptions, aligned, read

pytestmark = pytest.mark.slow


def positives(*parts: Dataset) -> int:
    return sum(len(part.targets.col) for part in parts)


def test_goemotions(shared: Path) -> None:
    folder = shared / "data/goemotions"
    options = ReadOptions(column_names=("text", "labels", "id"), labels_file=folder / "labels.txt")
    train, dev, test = aligned([read(folder / f"{part}.tsv", options) for part in ("train", "dev", "test")])
    assert (len(train), len(dev), len(test), train.num_labels) == (43_410, 5_426, 5_427, 28)
    assert round(positives(train, dev, test) / (len(train) + len(dev) + len(test)), 2) == 1.18
    assert list(train.label_names) == (folder / "labels.txt").read_text().split()
    assert isinstance(train.inputs, Texts)
    lines = (folder / "train.tsv").read_text(encoding="utf-8").split("\n")
    texts = [line.partition("\t")[0].replace('"', "") for line in lines if line]
    assert [text.replace('"', "") for text in train.inputs.texts] == texts
    assert sum(text.count('"') for text in train.inputs.texts) > 1_000


def test_reuters(shared: Path) -> None:
    train, test = aligned([read(shared / f"data/reuters21578/{part}.jsonl") for part in ("train", "test")])
    assert (len(train), len(test), train.num_labels) == (7_770, 3_019, 90)
    assert round(positives(train) / len(train), 2) == 1.23


def test_nlupp(shared: Path) -> None:
    """A list of objects; a row without intents has none."""
    options = ReadOptions(label_columns=("intents",), absent="negative")
    folds = [*range(14)], [*range(14, 20)]
    files = [[f"{domain}/fold{k}.json" for domain in ("banking", "hotels") for k in fold] for fold in folds]
    parts = [[read(shared / "data/nlupp" / file, options) for file in part] for part in files]
    assert [sum(map(len, part)) for part in parts] == [2_159, 921]
    every = aligned([*parts[0], *parts[1]])
    assert every[0].num_labels == 62
    assert round(positives(*every) / (2_159 + 921), 2) == 2.01
