"""What was read is what a run remembers: data that change are told, pipes are read once, names may repeat."""

import hashlib
import json
import os
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from lopsided.__main__ import main
from lopsided.jobs.rows import load
from tests.tools import needs_pipes, write_texts

pytestmark = pytest.mark.slow


def errors_of(line: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(line) == 2
    return capsys.readouterr().err


def test_a_file_that_changes_while_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_texts(folder / "texts.jsonl")

    def loading(*arguments: object) -> object:
        splits = load(*arguments)  # type: ignore[arg-type]
        write_texts(folder / "texts.jsonl", 130)
        return splits

    monkeypatch.setattr("lopsided.jobs.begin.load", loading)
    assert "texts.jsonl: changed while it was read; run the same command again" in errors_of(
        ["fit", "texts.jsonl", "--out", "run"], capsys
    )
    assert not (folder / "run").exists()


def test_data_of_a_run_that_change_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = write_texts(folder / "train.jsonl"), write_texts(folder / "test.jsonl", 30, 1000)
    (folder / "names.txt").write_text("food\nmusic\nsport\n")
    line = ["fit", "train.jsonl", "--test", "test.jsonl", "--labels-file", "names.txt", "--out", "run"]
    assert main(line) == 0
    assert "changed since" not in capsys.readouterr().out
    assert main(["fit", "train.jsonl", "--test", "0.2", "--out", "split"]) == 0
    write_texts(test, 40, 1000)
    assert main(["evaluate", "run"]) == 0
    assert "this file has changed since the run began" in capsys.readouterr().out
    assert json.loads((folder / "run/results.json").read_text())["changed"] is True
    write_texts(train, 130)
    assert "train.jsonl: changed since the run in split began" in errors_of(["evaluate", "split"], capsys)
    write_texts(train)
    (folder / "names.txt").write_text("food\nmusic\nsport\nx\n")
    assert "names.txt" in errors_of(["fit", "run"], capsys)


def test_labels_beside_the_data_are_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{number % 3}:1 3:{1 + number % 5}\n" for number in range(40)]
    (folder / "trainX.txt").write_text("40 4\n" + "".join(lines))
    (folder / "trainY.txt").write_text("40 3\n" + "".join(f"{number % 3}:1\n" for number in range(40)))
    assert main(["fit", "trainX.txt", "--out", "run"]) == 0
    stored = json.loads((folder / "run/config.json").read_text())["data_sha256"]
    labels = (folder / "trainY.txt").read_bytes()
    assert stored["labels of data"] == hashlib.sha256(labels).hexdigest()
    (folder / "run/training.json").unlink()
    assert main(["fit", "run"]) == 0
    (folder / "run/training.json").unlink()
    (folder / "trainY.txt").write_bytes(labels.replace(b"0:1", b"1:1", 1))
    assert "lopsided: trainY.txt: changed since the run in run began" in errors_of(["fit", "run"], capsys)


def test_two_files_of_one_name_have_results_of_their_own(folder: Path) -> None:
    write_texts(folder / "train.jsonl")
    for number, place in enumerate(("", "a", "b")):
        (folder / place).mkdir(exist_ok=True)
        write_texts(folder / place / "more.jsonl", 20 + number, 1000)
    assert main(["fit", "train.jsonl", "--out", "run"]) == 0
    for place in ("", "a/", "b/"):
        assert main(["evaluate", "run", f"{place}more.jsonl"]) == 0
    written = sorted((folder / "run").glob("results*.json"))
    assert [json.loads(path.read_text())["rows"] for path in written if "more.json" in path.name] == [20]
    assert sorted(json.loads(path.read_text())["rows"] for path in written) == [20, 21, 22]


@needs_pipes
def test_a_pipe_is_read_once(folder: Path) -> None:
    content = write_texts(folder / "texts.jsonl").read_bytes()
    os.mkfifo(folder / "pipe")
    thread = threading.Thread(target=lambda: (folder / "pipe").write_bytes(content))
    thread.start()
    assert main(["fit", "pipe", "--format", "json", "--out", "run"]) == 0
    thread.join()
    assert json.loads((folder / "run/config.json").read_text())["data_sha256"] == {"data": ""}


def test_two_processes_do_not_train_one_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_texts(folder / "texts.jsonl")
    (folder / "run").mkdir()
    assert main(["fit", "texts.jsonl", "--out", "run", "--epochs", "2"]) == 0
    (folder / "run/training.json").unlink()
    with FileLock(folder / "run/lock"):
        assert "run: another process trains this run" in errors_of(["fit", "run"], capsys)
    (folder / "run/lock").touch()  # of a process that was killed
    assert main(["fit", "run"]) == 0
    assert not (folder / "run/lock").exists()
