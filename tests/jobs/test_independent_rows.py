"""Commands never judge a model by rows that it was trained on without a word."""

import json
import random
from pathlib import Path

import pytest

from lopsided.__main__ import main
from lopsided.jobs.compare_config import make_config
from tests.tools import load_quietly, read_results

QUICK = ["--losses", "bce,asl", "--seeds", "1"]


def write(path: Path, rows: list[tuple[str, list[str]]]) -> None:
    path.write_text("".join(json.dumps({"text": text, "labels": labels}) + "\n" for text, labels in rows))


def made(number: int, seed: int = 0) -> list[tuple[str, list[str]]]:
    """Rows whose labels say nothing about their texts, each of which has words of its own."""
    chance = random.Random(seed)
    texts = (" ".join(f"w{chance.randrange(10**6)}" for _ in range(8)) for _ in range(number))
    return [(text, [label for label in "abcd" if chance.random() < 0.4]) for text in texts]


@pytest.mark.slow
def test_rows_that_stand_three_times_teach_nothing(folder: Path) -> None:
    """Where copies fall on both sides of the split, mAP is .99."""
    write(folder / "rows.jsonl", made(200) * 3)
    assert main(["compare", "rows.jsonl", *QUICK, "--epochs", "20", "--out", "run"]) == 0
    results = json.loads((folder / "run/results.json").read_text())
    assert results["losses"]["bce"]["metrics"]["map"]["mean"] < 0.55
    assert results["data"]["rows"]["test"] == 120
    assert any("are 40 sets of copies" in note for note in results["notes"]), "copies are no more test rows"


@pytest.mark.parametrize("command", [["compare", *QUICK], ["fit"], ["data", "check"]], ids=lambda words: words[0])
@pytest.mark.parametrize("same", ["rows.jsonl", "copy.jsonl"])
def test_the_training_file_is_no_test_file(
    command: list[str], same: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("rows.jsonl", "copy.jsonl"):
        write(folder / name, made(30))
    before, after = (command, []) if command[0] == "data" else (command[:1], [*command[1:], "--out", "run"])
    assert main([*before, "rows.jsonl", "--test", same, *after]) == 2
    assert "holds the same rows as" in capsys.readouterr().err
    assert not (folder / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("valid", ["0", "0.2", "valid.jsonl"])
def test_rows_that_were_trained_or_tuned_on_are_counted(
    valid: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, tuned, new = (made(30, seed) for seed in range(3))
    write(folder / "rows.jsonl", rows)
    write(folder / "valid.jsonl", tuned)
    write(folder / "new.jsonl", new)
    write(folder / "mixed.jsonl", [(text.upper(), []) for text, _ in rows[:7]] + tuned[:4] + new)
    assert main(["fit", "rows.jsonl", "--valid", valid, "--out", "run"]) == 0
    of_mixed = 11 if valid == "valid.jsonl" else 7
    for name, seen in (("rows.jsonl", 30), ("mixed.jsonl", of_mixed), ("new.jsonl", 0)):
        capsys.readouterr()
        assert main(["evaluate", "run", name]) == 0
        printed, (path,) = capsys.readouterr().out, (folder / "run").glob(f"results-{name.removesuffix('.jsonl')}*")
        assert json.loads(path.read_text())["rows_seen"] == seen
        assert (f"{seen} of them also stand among those that this model was trained" in printed) == (seen > 0)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True])
def test_test_rows_that_were_trained_on_are_told_and_left_out(
    kept: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = made(60)
    write(folder / "rows.jsonl", rows)
    write(folder / "test.jsonl", [(text.upper(), labels) for text, labels in rows[:7]] + made(20, seed=1))
    line = ["compare", "rows.jsonl", "--test", "test.jsonl", *QUICK, "--epochs", "1", "--out", "run"]
    assert main([*line, "--keep-overlap"] if kept else line) == 0
    printed, results = " ".join(capsys.readouterr().out.split()), read_results(folder / "run")
    left_out = "" if kept else ", and are left out; --keep-overlap keeps them"
    note = f"7 of 27 test rows also stand in rows.jsonl{left_out}"
    assert printed.count(note) == 2, "before training, and beside the verdict"
    assert f"{note}." in results["notes"]
    assert (results["data"]["rows"]["test"], results["seen"]) == ((27, 7) if kept else (20, 0))
    answer = "7 of 27 test rows are like rows of training, or of their groups, and say little of new ones"
    assert (answer in printed) == kept


def test_a_test_file_of_nothing_else_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = made(30)
    write(folder / "rows.jsonl", rows)
    write(folder / "test.jsonl", rows[:7])
    assert main(["compare", "rows.jsonl", "--test", "test.jsonl", "--out", "run"]) == 2
    assert "test.jsonl: all 7 test rows also stand in" in capsys.readouterr().err
    assert not (folder / "run").exists()


def test_rows_of_groups_that_stand_in_both_files_are_counted(folder: Path) -> None:
    for name, first in (("a", 0), ("b", 30)):
        lines = [f"text {first + n}|{'xy'[n % 2]}|{(first + n) // 8}\n" for n in range(30)]
        (folder / f"{name}.csv").write_text("text|labels|patient\n" + "".join(lines))
    asked = {"data": "a.csv", "test": "b.csv", "group_column": "patient", "separator": "|"}
    splits = load_quietly(make_config(asked))
    assert splits.seen == 2, "30 and 31 are of patient 3"
    assert "2 of 30 test rows are of groups that also stand in a.csv" in splits.notes
