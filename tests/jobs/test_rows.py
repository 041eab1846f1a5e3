"""The rows that a command reads: splits, and errors of files, each in one line."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from lopsided.__main__ import main
from lopsided.data.dataset import Splits
from lopsided.data.inputs import Texts
from lopsided.data.storage import UserError
from lopsided.jobs.compare_config import CompareConfig
from lopsided.jobs.config import checked
from lopsided.jobs.folder import ComparisonFolder
from lopsided.jobs.progress import bars
from lopsided.jobs.rows import load, prepare
from lopsided.models.bag import BagRows
from lopsided.models.ngrams import NGrams
from tests.tools import read_results


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


def write_labelled(path: Path, rows: int) -> Path:
    """Texts of two words, and of 150 labels in all, a label for each word."""
    lines = [{"text": f"word{n % 150} word{n % 7}", "labels": [f"l{n % 150}", f"l{n % 7}"]} for n in range(rows)]
    return write(path, "".join(json.dumps(line) + "\n" for line in lines))


def test_rows_that_are_trained_and_tuned_on_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"text": f"word{n % 9} only{n}", "labels": [f"l{n % 9}"]} for n in range(300)]
    file = write(tmp_path / "a.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    config, encode, seen = checked(CompareConfig, {"data": str(file)}), NGrams.encode, [0]

    def counted(encoder: NGrams, inputs: Texts) -> BagRows:
        seen[0] += len(inputs)
        return encode(encoder, inputs)

    monkeypatch.setattr(NGrams, "encode", counted)
    with bars(Console(quiet=True)) as live:
        prepared = prepare(config, load(config, live))
    assert prepared.folds
    assert seen[0] == 300
    assert prepared.valid is not None
    for rows in (prepared.train, prepared.valid):
        alone = encode(prepared.encoder, rows.data.inputs)  # type: ignore[arg-type]
        every = torch.arange(len(rows))
        assert all(torch.equal(*pair) for pair in zip(rows.encoded.batch(every), alone.batch(every), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("valid", [20, 2])
def test_of_very_many_labels_a_comparison_is_of_p_at_1(
    tmp_path: Path, valid: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lopsided.training.rows._SCORES", 149 * valid)
    files = [write_labelled(tmp_path / f"{name}.jsonl", rows) for name, rows in (("a", 300), ("v", valid), ("t", 90))]
    line = ["compare", str(files[0]), "--valid", str(files[1]), "--test", str(files[2]), "--losses", "bce,asl"]
    line += ["--keep-overlap"]
    assert main([*line, "--seeds", "1", "--epochs", "2", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "too many labels to hold the scores of all: the verdict is of P@1, not of mAP" in said
    assert "P@1 against" in said
    assert ComparisonFolder.open(tmp_path / "run").config.metric == "p@1"
    assert read_results(tmp_path / "run")["losses"]["bce"]["metrics"]["p@1"]["mean"] > 0.5
    assert main(["compare", str(tmp_path / "run")]) == 0


def test_a_metric_that_needs_more_scores_than_are_held_is_refused_before_rows_are_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lopsided.training.rows._SCORES", 149)
    monkeypatch.setattr("lopsided.jobs.begin.prepare", None)
    file = str(write_labelled(tmp_path / "a.jsonl", 300))
    for command, metric in (("compare", "map"), ("fit", "map"), ("compare", "auroc")):
        assert main([command, file, "--metric", metric]) == 2
        assert f"--metric {metric}: needs the scores of all labels, which are too many here" in capsys.readouterr().err
