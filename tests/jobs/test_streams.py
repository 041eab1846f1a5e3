"""What is said never stops what is done: streams may be closed, broken, full, or lack a letter."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytest

from lopsided.__main__ import main
from tests.campaigns.children import Ended, in_child
from tests.tools import write_texts

pytestmark = pytest.mark.slow

ODD = os.fsdecode(b"caf\xe9")  # a name that is no UTF-8


Stream = Callable[[int], Any]  # makes one of a descriptor


def _closed(number: int) -> TextIO | None:
    os.close(number)
    return None


def _broken(number: int) -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, number)
    return os.fdopen(number, "w", closefd=False)


def _full(number: int) -> TextIO:
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)
    return os.fdopen(number, "w", closefd=False)


def _in(encoding: str) -> Stream:
    return lambda number: os.fdopen(number, "w", encoding=encoding, closefd=False)


_UTF8 = _in("utf-8")
STREAMS: dict[str, Stream] = {
    "closed": _closed,
    "broken": _broken,
    "full": _full,
    "ascii": _in("ascii"),
    "latin-1": _in("latin-1"),
    "cp1252": _in("cp1252"),
}


def run(where: Path, *line: str, stream: Stream = _UTF8, only_out: bool = False) -> Ended:
    def child() -> int:
        sys.stdout = stream(1)
        sys.stderr = sys.stderr if only_out else stream(2)
        return main(line)

    return in_child(child, where)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts, also under an odd name, and a run."""
    folder = tmp_path_factory.mktemp("streams")
    write_texts(folder / "texts.jsonl")
    write_texts(folder / f"{ODD}.jsonl")
    assert run(folder, "fit", "texts.jsonl", "--out", "run").code == 0
    return folder


@pytest.mark.parametrize("name", STREAMS)
def test_results_are_written_whatever_the_streams(name: str, trained: Path) -> None:
    stream, out = STREAMS[name], f"run-{name}"
    assert run(trained, "fit", "texts.jsonl", "--out", out, stream=stream).code == 0
    assert (trained / out / "training.json").exists()
    assert run(trained, "evaluate", "run", "texts.jsonl", stream=stream).code == 0
    for line in (["losses"], ["losses", "asl"], ["--help"], ["data", "check", "texts.jsonl"]):
        assert run(trained, *line, stream=stream).code == 0
    assert run(trained, "fit", "nothing.jsonl", stream=stream).code == 2


def test_a_comparison_is_written_where_nobody_reads(trained: Path) -> None:
    assert run(trained, "compare", "texts.jsonl", "--losses", "bce,asl", "--out", "compared", stream=_broken).code == 0
    assert (trained / "compared/report.html").exists()


@pytest.mark.parametrize(("stream", "code", "err"), [(_broken, 141, ""), (_full, 2, "No space left on device\n")])
def test_predictions_that_nobody_can_read(trained: Path, stream: Stream, code: int, err: str) -> None:
    ended = run(trained, "predict", "run", "texts.jsonl", "--out", "-", stream=stream, only_out=True)
    assert ended.code == code
    assert ended.err.endswith(err)
    told = ended.err.removeprefix("texts.jsonl: inputs: the texts in column 'text'\n")
    assert told.count("\n") == bool(err)


def test_names_that_are_no_text(trained: Path) -> None:
    for line in (
        ["fit", f"{ODD}.jsonl", "--out", ODD, "--test", "0.2"],
        ["evaluate", ODD, f"{ODD}.jsonl"],
        ["predict", ODD, f"{ODD}.jsonl", "--out", f"{ODD}-out.jsonl"],
        ["inspect", ODD, "--missing", "--folds", "2"],
        ["compare", f"{ODD}.jsonl", "--losses", "bce,asl", "--out", f"{ODD}-compared"],
        ["report", f"{ODD}-compared", "--out", f"{ODD}.html"],
        ["data", "check", f"{ODD}.jsonl"],
        ["fit", ODD],
    ):
        ended = run(trained, *line)
        assert (ended.code, ended.fault()) == (0, None)
        assert all(": inputs: " in each or ": labels: " in each for each in ended.err.splitlines()), ended.err
    ended = run(trained, "fit", f"{ODD}-nothing")
    assert ended.err == "lopsided: caf\\udce9-nothing: no such file\n"


@pytest.mark.parametrize("line", [["fit", "no\x1b[31m\u202ename"], ["fit", "texts.jsonl", "--loss", "\x1b]0;a\x07"]])
def test_nothing_in_an_argument_is_obeyed(trained: Path, line: list[str]) -> None:
    ended = run(trained, *line)
    assert (ended.code, ended.fault()) == (2, None)


def test_a_long_message_keeps_its_beginning_and_its_end(trained: Path) -> None:
    ended = run(trained, "fit", "/".join(["long"] * 700))
    assert (ended.code, ended.fault()) == (2, None)
    assert ended.err.startswith("lopsided: ")
    assert ended.err.endswith("long/long: no such file\n")


@pytest.mark.parametrize("delay", [0.15, 0.5, 1.2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_libraries_are_imported_is_one_line(trained: Path, number: int, delay: float) -> None:
    # a process started in the background, as the tests themselves may be, ignores the signal unless told otherwise
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from lopsided.__main__ import main; print(flush=True); sys.exit(main(sys.argv[1:]))"
    )
    line = [sys.executable, "-u", "-c", code, "evaluate", "run", "texts.jsonl"]
    with subprocess.Popen(line, cwd=trained, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) in ((128 + number, "stopped\n"), (0, ""))
