"""A few trials of each campaign find nothing, and what a campaign is there to see it does see."""

import json
import os
import socket
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from lopsided.data.readers import read
from tests.campaigns import lines, readers, record
from tests.campaigns.__main__ import CAMPAIGNS
from tests.campaigns.campaign import Tally
from tests.campaigns.children import Ended, in_child
from tests.campaigns.kills import half_written
from tests.campaigns.requests import fault_of

TRIALS = {"readers": 60, "folders": 3, "kills": 2, "limits": 2, "lines": 3, "requests": 15}
ONE_LINE = "lopsided: texts.jsonl: no such file\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")
@pytest.mark.parametrize(("name", "trials"), TRIALS.items())
def test_a_few_trials_find_nothing(name: str, trials: int, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    line = [sys.executable, "-m", "tests.campaigns", name, "--trials", str(trials), "--state", str(state)]
    ended = subprocess.run(line, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    tally = Tally.stored(state, 0)
    assert (tally.done, tally.faults) == (trials, {})
    assert ended.stdout.endswith(f"| all | {trials} | 0 |\n")


def test_the_page_has_the_table_of_the_file() -> None:
    assert record.table() in record.PAGE.read_text()
    assert "| readers | all | " in record.table()


def test_what_is_recorded_counts_what_was_found_and_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path / "campaigns.csv")
    monkeypatch.setattr(record, "PAGE", tmp_path / "page.md")
    record.PAGE.write_text("before\n<!-- campaigns -->\nold\n<!-- end of campaigns -->\nafter\n")
    campaign = readers.Readers()
    for seed in (1, 2, 2):
        tally = Tally(seed)
        for number in range(26):
            tally.add(campaign, number, "wrong" if number in (1, 14) else None)
        record.record(campaign, tally, {14})
    text = record.PAGE.read_text()
    assert "| readers | csv, tsv | 8 | 0 | 0 |\n| readers | json | 6 | 4 | 2 |" in text
    assert "| readers | all | 52 | 4 | 2 |\n<!-- end of campaigns -->\nafter\n" in text


def test_each_campaign_is_tried() -> None:
    assert set(TRIALS) == set(CAMPAIGNS)


def test_files_of_each_format_are_read_or_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        faults = [readers.trial(number, 1, tmp_path) for number in range(len(readers.Readers.kinds))]
    assert faults == [None] * len(faults)


@pytest.mark.slow
def test_a_line_of_each_kind_ends_soon(tmp_path: Path) -> None:
    faults = [lines.trial(kind, b"'a',", tmp_path, 10_000) for kind in lines.HEADS]
    assert faults == [None] * len(faults)


def test_rows_that_are_read_wrong_are_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shortened(*arguments: Any) -> Any:
        data = read(*arguments)
        return data.take(torch.arange(len(data) - 1))

    monkeypatch.setattr(readers, "read", shortened)
    faults = [readers.trial(number * len(readers.Readers.kinds) + 1, 1, tmp_path) for number in range(10)]
    assert any("not as written" in str(fault) for fault in faults)


@pytest.mark.parametrize(
    ("code", "out", "err", "seconds", "fault"),
    [
        (0, "result\n", "", 1, None),
        (2, "", ONE_LINE, 1, None),
        (2, "", f"note\n{ONE_LINE}", 1, None),
        (0, "result\n", "", 21, "21.0 s"),
        (1, "", "Traceback (most recent call last):\nValueError: x\n", 1, "traceback: ValueError: x"),
        (-11, "", "", 1, "ended with -11"),
        (2, "", "something\n", 1, "not one line"),
        (2, "", ONE_LINE + ONE_LINE, 1, "not one line"),
        (2, "", f"lopsided: {'x' * 500}\n", 1, "a message of"),
        (0, "a\x1b[31m", "", 1, "reaches the terminal"),
    ],
)
def test_what_is_wrong_with_a_child(code: int, out: str, err: str, seconds: float, fault: str | None) -> None:
    said = Ended(code, out, err, seconds, 100).fault()
    assert said == fault or (fault is not None and fault in str(said))


def test_a_child_is_limited_and_heard(tmp_path: Path) -> None:
    ended = in_child(lambda: print(os.getcwd()) or 2, tmp_path)
    assert (ended.code, ended.out) == (2, f"{tmp_path}\n")
    ended = in_child(lambda: json.loads("{"), tmp_path)
    assert "JSONDecodeError" in str(ended.fault())


@pytest.mark.parametrize(
    ("name", "content"), [("a.json", "{"), ("a.jsonl", "{}\n{"), ("a.csv", "a,b\n1"), ("a.safetensors", "12345678")]
)
def test_half_a_file_is_seen(name: str, content: str, tmp_path: Path) -> None:
    assert half_written(tmp_path) is None
    (tmp_path / name).write_text(content)
    assert name in str(half_written(tmp_path))


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"422 OK\r\nContent-Type: application/json\r\n\r\n" + b'{"error": "too few"}', None),
        (b"422 OK\r\nContent-Type: application/json\r\n\r\n" + b'{"error": "a\\nb"}', "error {"),
        (b"422 OK\r\nContent-Type: text/plain\r\n\r\ntoo few", "422 b'too few'"),
        (b"500 OK\r\nContent-Type: application/json\r\n\r\n" + b'{"error": "x"}', "500 {"),
        (b"", "the connection is closed"),
    ],
)
def test_what_is_wrong_with_an_answer(answer: bytes, fault: str | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as client:
        said = client.submit(fault_of, server.getsockname()[1], b"GET / HTTP/1.1\r\n\r\n")
        with server.accept()[0] as connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 " + answer if answer else b"")
    assert said.result() == fault or (fault is not None and fault in str(said.result()))
