"""The rows that a command reads: splits, and errors of files, each in one line."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from lopsided.data.dataset import Splits
from lopsided.data.inputs import Texts
from lopsided.data.storage import UserError
from lopsided.jobs.compare_config import CompareConfig
from lopsided.jobs.config import checked
from lopsided.jobs.progress import bars
from lopsided.jobs.rows import load


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def read(train: Path, **settings: object) -> Splits:
    files = {name: str(value) for name, value in settings.items()}
    with bars(Console(quiet=True)) as live:
        return load(checked(CompareConfig, {"data": str(train)} | files), live)


BAD_FILES = {
    "empty": ("a.jsonl", "", "no rows"),
    "blank lines only": ("a.jsonl", "\n\n", "no rows"),
    "header only": ("a.csv", "text,labels\n", "no rows"),
    "malformed": ("a.jsonl", '{"text": "a", "labels": ["x"]}\n{"text": \n', r"a\.jsonl, line 2: not JSON"),
    "not an object": ("a.jsonl", "[1, 2]\n", "record 1: expected an object"),
    "too deep": ("a.jsonl", "[" * 100_000 + "\n", "not a row: nested too deeply"),
    "missing field": ("a.jsonl", '{"txt": "a", "labels": ["x"]}\n', "no column 'text' among 'txt', 'labels'; did you"),
    "text not a string": (
        "a.jsonl",
        '{"text": 1, "labels": ["x"]}\n',
        "line 1: 'text' must be valid text, got '1'",
    ),
    "half a character": ("a.jsonl", '{"text": "\\ud800", "labels": ["x"]}\n', "must be valid text"),
    "number too long": ("a.jsonl", '{"text": "a", "labels": [' + "1" * 5000 + "]}\n", "line 1: a number too long"),
    "column twice": ("a.csv", "text,labels,labels\na,x,y\n", "the column 'labels' stands twice"),
    "labels not names": ("a.jsonl", '{"text": "a", "labels": 1.5}\n', "line 1: "),
    "label not a name": ("a.jsonl", '{"text": "a", "labels": [true]}\n', r"list of names, got '\[True\]'"),
    "unknown column": ("a.csv", "text,lables\na,x\n", "'lables'"),
    "ragged": ("a.csv", "text,labels\na,x,y\n", "line 2: 3 columns, but the header has 2"),
    "open quote": ("a.csv", 'text,labels\n"a,x\n', "line 2: unexpected end of data"),
    "no labels at all": ("a.jsonl", '{"text": "a", "labels": []}\n', "no labels at all"),
    "one label": ("a.jsonl", '{"text": "a", "labels": ["x"]}\n', "only the label 'x'"),
    "too few rows": ("a.jsonl", '{"text": "a", "labels": ["x", "y"]}\n', "1 rows are too few"),
    "unknown format": ("a.xyz", "x", "whose format cannot be told; say it with --format"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named_in_one_line(tmp_path: Path, name: str) -> None:
    file, text, message = BAD_FILES[name]
    with pytest.raises(UserError, match=message) as caught:
        read(write(tmp_path / file, text))
    assert "\n" not in str(caught.value)


def test_missing_splits_are_split_off_and_given_ones_stay(tmp_path: Path) -> None:
    def rows(name: str, number: int, labels: str = "xyz") -> Path:
        lines = [json.dumps({"text": f"{name} {i}", "labels": [labels[i % 3]]}) for i in range(number)]
        return write(tmp_path / f"{name}.jsonl", "\n".join(lines))

    train = rows("train", 100)
    sizes = {
        "all": read(train),
        "valid given": read(train, valid=rows("valid", 7)),
        "both given": read(train, valid=rows("valid", 7), test=rows("test", 9, "xyw")),
    }
    expected = {"all": [60, 20, 20], "valid given": [80, 7, 20], "both given": [100, 7, 9]}
    for name, splits in sizes.items():
        assert [len(part) for part in splits.parts().values()] == pytest.approx(expected[name], abs=1)
    assert sizes["both given"].train.label_names == ("w", "x", "y", "z")
    inputs = [part.inputs for part in sizes["all"].parts().values()]
    texts = [text for each in inputs if isinstance(each, Texts) for text in each.texts]
    assert sorted(texts) == sorted(f"train {i}" for i in range(100))
