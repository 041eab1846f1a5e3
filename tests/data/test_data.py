"""The built-in data set and the readers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lopsided.data.text_files import Columns, read_splits, read_text_rows

from lopsided.data.digits_grid import CELLS, digits_grid
from lopsided.data.storage import UserError


def test_digits_grid_has_the_proportions_of_coco() -> None:
    splits = digits_grid(3000, 500, 700)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (3000, 500, 700)
    assert splits.train.inputs.shape == (3000, 1, 36, 36)  # type: ignore[union-attr]
    assert splits.train.inputs.dtype == torch.uint8  # type: ignore[union-attr]
    assert len(set(splits.train.labels)) == 90
    per_row = splits.train.targets.sum(1)
    assert 2.75 < per_row.double().mean() < 3.0
    assert per_row.min() == 0
    assert splits.train.targets.any(0).all()
    assert splits.train.targets.view(-1, 9, 10).sum(2).max() == 1, "two digits in one cell"


def test_digits_grid_labels_say_what_is_where() -> None:
    """With made-up digits, of which class d has d + 1 bright pixels, the labels can be read off the canvas."""
    from lopsided.data.digits_grid import _compose

    digits = np.zeros((10, 64))
    for digit in range(10):
        digits[digit, 3 * np.arange(digit + 1)] = 16
    data = _compose(digits.reshape(10, 8, 8), np.arange(10), 500, np.random.default_rng(0))
    assert data.labels[0] == f"0 {CELLS[0]}" == "0 top left"
    assert data.labels[-1] == "9 bottom right"
    bright = data.inputs.view(500, 3, 12, 3, 12).transpose(2, 3).flatten(3) > 0.37 * 255  # type: ignore[union-attr]
    count = bright.sum(3).view(500, 9)  # beyond 4.6 standard deviations of the noise
    expected = torch.where(data.targets.view(500, 9, 10).any(2), data.targets.view(500, 9, 10).int().argmax(2) + 1, 0)
    assert (count == expected).float().mean() > 0.95
    assert (expected > 0).float().mean() > 0.28


def test_digits_grid_is_seeded_and_its_splits_share_no_digit() -> None:
    first, again, other = digits_grid(60, 20, 20, 3), digits_grid(60, 20, 20, 3), digits_grid(60, 20, 20, 4)
    assert torch.equal(first.train.inputs, again.train.inputs)  # type: ignore[arg-type]
    assert torch.equal(first.test.targets, again.test.targets)
    assert not torch.equal(first.train.inputs, other.train.inputs)  # type: ignore[arg-type]


def test_digits_grid_composes_each_split_from_its_own_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    from lopsided.data import digits_grid as module

    pools: list[np.ndarray] = []
    compose = module._compose

    def spy(digits: np.ndarray, *rest: object) -> object:
        pools.append(digits.reshape(len(digits), -1))
        return compose(digits, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_compose", spy)
    digits_grid(5, 5, 5)
    assert sum(len(pool) for pool in pools) == 1797
    sets = [{digit.tobytes() for digit in pool} for pool in pools]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]


def test_hidden_positives_are_hidden_in_training_only() -> None:
    whole = digits_grid(2000, 50, 50)
    hidden = whole.hide_positives(0.4, seed=1)
    kept = hidden.train.targets.sum() / whole.train.targets.sum()
    assert 0.57 < kept < 0.63
    assert not (hidden.train.targets & ~whole.train.targets).any()
    assert torch.equal(hidden.valid.targets, whole.valid.targets)
    assert torch.equal(hidden.test.targets, whole.test.targets)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_json_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '\ufeff{"text": "é", "labels": ["x", 3]}\r\n\n{"labels": [], "text": ""}\n')
    assert read_text_rows(path, Columns()) == [("é", ["x", "3"]), ("", [])]


def test_csv_with_quotes_newlines_and_its_own_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,body,tags\n1,"a, ""b""\nc","x| y"\n2,d,\n')
    assert read_text_rows(path, Columns("body", "tags", "|")) == [('a, "b"\nc', ["x", "y"]), ("d", [])]
    tabs = write(tmp_path / "a.tsv", "text\tlabels\nhello, you\tx,y\n")
    assert read_text_rows(tabs, Columns()) == [("hello, you", ["x", "y"])]


BAD_FILES = {
    "empty": ("a.jsonl", "", "no rows"),
    "blank lines only": ("a.jsonl", "\n\n", "no rows"),
    "header only": ("a.csv", "text,labels\n", "no rows"),
    "malformed": ("a.jsonl", '{"text": "a", "labels": ["x"]}\n{"text": \n', r"a\.jsonl, line 2: not JSON"),
    "not an object": ("a.jsonl", "[1, 2]\n", "line 1: expected an object"),
    "too deep": ("a.jsonl", "[" * 100_000 + "\n", "line 1: not a row"),
    "missing field": ("a.jsonl", '{"txt": "a", "labels": ["x"]}\n', "no column 'text' among 'txt', 'labels'; did you"),
    "text not a string": (
        "a.jsonl",
        '{"text": 1, "labels": ["x"]}\n',
        "'text' must be valid text, got 1",
    ),
    "half a character": ("a.jsonl", '{"text": "\\ud800", "labels": ["x"]}\n', "must be valid text"),
    "number too long": ("a.jsonl", '{"text": "a", "labels": [' + "1" * 5000 + "]}\n", "line 1: a number too long"),
    "column twice": ("a.csv", "text,labels,labels\na,x,y\n", "line 1: the column 'labels' stands twice"),
    "labels not a list": ("a.jsonl", '{"text": "a", "labels": "x"}\n', "'labels' must be a list of names"),
    "label not a name": ("a.jsonl", '{"text": "a", "labels": [true]}\n', r"list of names, got \[true\]"),
    "unknown column": ("a.csv", "text,label\na,x\n", "no column 'labels' among 'text', 'label'; did you mean 'label'"),
    "ragged": ("a.csv", "text,labels\na,x,y\n", "line 2: 3 columns, but the header has 2"),
    "open quote": ("a.csv", 'text,labels\n"a,x\n', "line 2: unexpected end of data"),
    "no labels at all": ("a.jsonl", '{"text": "a", "labels": []}\n', "no labels at all"),
    "one label": ("a.jsonl", '{"text": "a", "labels": ["x"]}\n', "only the label 'x'"),
    "too few rows": ("a.jsonl", '{"text": "a", "labels": ["x", "y"]}\n', "1 rows are too few"),
    "unknown format": ("a.xlsx", "x", r"name it \.jsonl, \.csv, \.tsv"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named_in_one_line(tmp_path: Path, name: str) -> None:
    file, text, message = BAD_FILES[name]
    with pytest.raises(UserError, match=message) as caught:
        read_splits(write(tmp_path / file, text))
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "\xff"}\n')
    with pytest.raises(UserError, match="not UTF-8 text"):
        read_splits(path)


def test_missing_splits_are_split_off_and_given_ones_are_kept(tmp_path: Path) -> None:
    def rows(name: str, number: int, labels: str = "xyz") -> Path:
        lines = [json.dumps({"text": f"{name} {i}", "labels": [labels[i % 3]]}) for i in range(number)]
        return write(tmp_path / f"{name}.jsonl", "\n".join(lines))

    train = rows("train", 100)
    sizes = {
        "all": read_splits(train),
        "valid given": read_splits(train, valid=rows("valid", 7)),
        "both given": read_splits(train, rows("valid", 7), rows("test", 9, "xyw")),
    }
    expected = {"all": [60, 20, 20], "valid given": [80, 7, 20], "both given": [100, 7, 9]}
    for name, s in sizes.items():
        assert [len(s.train), len(s.valid), len(s.test)] == pytest.approx(expected[name], abs=1)
    assert sizes["both given"].train.labels == ("w", "x", "y", "z")
    texts = [text for part in (sizes["all"].train, sizes["all"].valid, sizes["all"].test) for text in part.inputs]
    assert sorted(texts) == sorted(f"train {i}" for i in range(100))
