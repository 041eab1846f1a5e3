"""The README is true to the letter, and so are commands of other pages: they run, numbers are those of the code."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

import lopsided
from lopsided.__main__ import main
from lopsided.data.make_xmc import XmcMaker, make_xmc
from lopsided.losses import CATALOG
from tests.tools import write_texts

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMPARING, EXTREME = ((ROOT / f"docs/{page}.md").read_text() for page in ("comparing", "extreme"))
ELSEWHERE = (
    COMPARING.partition("## On your own rows")[2].partition("## What a comparison does")[0],
    EXTREME.partition("## From the command line")[2].partition("## Two ways to step")[0],
)


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    return [line for block in blocks("bash", text) for line in block.splitlines()]


COMMANDS = commands(README)
INSTALLING = [line for line in COMMANDS if line.startswith("pip install")]
OURS = [line for line in COMMANDS if line.startswith("lopsided ")]
PLAIN = [*OURS, *(line for text in ELSEWHERE for line in commands(text))]


def test_every_command_is_run_somewhere() -> None:
    """Those that install are run by .ci/run, to the letter; the others below."""
    assert len(INSTALLING) == 2
    assert len(OURS) == 4
    assert len(INSTALLING) + len(OURS) == len(COMMANDS)
    assert [len(commands(text)) for text in ELSEWHERE] == [8, 4]
    ci = (ROOT / ".ci/run").read_text()
    assert [line for line in INSTALLING if f"run '{line}'" not in ci] == []


@pytest.mark.slow
@pytest.mark.parametrize("line", PLAIN)
def test_command(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place, name in enumerate(("train", "valid", "test")):
        write_texts(tmp_path / f"{name}.jsonl", 60, first=60 * place)
    (tmp_path / "train.csv").write_text("body,tags\n" + "".join(f"text {i},a;b{i % 2}\n" for i in range(40)))
    if "runs/made" in line:  # a line of its own makes them
        make_xmc(tmp_path / "made", XmcMaker(20, 30), rows=100, test_rows=20)
    if "verdict" in line:
        for name in ("y", "b0", "b1", "a0", "a1"):
            scores = np.random.default_rng(ord(name[0])).normal(size=(60, 3)) + int(name[1:] or 0)
            np.savez(tmp_path / f"{name}.npz", scores > 0.5 if name == "y" else scores)
    if "tickets" in line:
        make_tickets(tmp_path, fitted="fit" not in line)
    elif "evaluate" in line or "predict" in line:
        assert main(["fit", "made/train.txt", "--out", "runs/made", "--epochs", "1"]) == 0
    if line.startswith(("lopsided inspect", "lopsided report")):
        assert main(["compare", "train.jsonl", "--losses", "bce,asl", "--seeds", "1", "--out", "runs/texts"]) == 0
        (tmp_path / "runs/texts/report.html").unlink()
    assert main(shlex.split(line)[1:]) == 0
    written = {path.suffix for path in tmp_path.rglob("*")}
    for job, suffix in (
        ("make-xmc", ".txt"),
        ("fit", ".safetensors"),
        ("evaluate", ".json"),
        ("predict", ".csv" if "tickets" in line else ".jsonl"),
        ("export", ".onnx"),
        ("inspect", ".csv"),
    ):
        if f" {job} " in line:
            assert suffix in written
            return
    picture = "preview" in line or "--plot" in line
    assert line == "lopsided losses" or (".png" if picture else ".html") in written


def make_tickets(folder: Path, fitted: bool) -> None:
    """A CSV whose words give the labels away, one without labels, and perhaps the model of the first."""
    words = {"billing": ("invoice", "charged"), "login": ("password", "account")}
    rows = [
        (f"number {i}: " + " and ".join(words[label][i % 2] for label in labels), ",".join(labels))
        for i in range(60)
        if (labels := [label for place, label in enumerate(words) if i % (place + 2) == 0]) or i % 3
    ]
    for name, columns in (("tickets", 2), ("new", 1)):
        lines = [("text", "labels"), *rows]
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(line[:columns] for line in lines)
    if fitted:
        assert main(["fit", "tickets.csv", "--test", "0.2", "--out", "runs/tickets"]) == 0


@pytest.mark.parametrize("code", blocks("python"))
def test_code(code: str, folder: Path) -> None:
    if "runs/tickets" in code:
        make_tickets(folder, fitted=True)
    exec(compile(code, "README.md", "exec"), {})


def test_the_number_of_losses() -> None:
    words = ("Fourteen losses, by name or as modules", "Fourteen losses for rows with several labels")
    pages = (README, (ROOT / "docs/losses/README.md").read_text())
    assert [word in page for word, page in zip(words, pages, strict=True)] == [True, True]
    assert len(CATALOG) == 14


def test_names_in_the_text_exist() -> None:
    text = (ROOT / "docs/losses/README.md").read_text().partition("## What else there is")[2].partition("\n## ")[0]
    names = re.findall(r"`(\w+)`", text)
    assert len(names) >= 9
    assert [name for name in names if not hasattr(lopsided, name)] == []


def test_how_often_the_verdict_was_right() -> None:
    tables = [COMPARING.partition(f"<!-- {name} -->")[2].partition("<!-- end")[0] for name in ("alarms", "planted")]
    alarms, seen = (re.findall(r"\| (\d+) of (\d+) \(\d+ %\) \|$", table, re.MULTILINE) for table in tables)
    (wrong, all_of_them), (found, could) = (map(sum, zip(*(map(int, row) for row in rows))) for rows in (alarms, seen))  # noqa: B905
    assert wrong == 0
    assert f"the verdict called none better in {all_of_them} comparisons" in README
    assert f"it found {found} of {could}" in " ".join(README.split())


def test_bytes_kept_in_the_feature_table() -> None:
    pattern = r"^\| bytes kept per float32 logit and target \| (\d+) \(`backend=\"eager\"`: (\d+)\) \|"
    ((native, eager),) = re.findall(pattern, README, flags=re.MULTILINE)
    for backend, told in (("auto", native), ("eager", eager)):
        z, saved = torch.zeros(10, 1000, requires_grad=True), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]  # noqa: B023
            lopsided.functional.multilabel_loss(z, torch.zeros(10, 1000), "asl", backend=backend)
        kept = sum({t.data_ptr(): t.nbytes for t in saved}.values()) / z.numel()
        assert kept == pytest.approx(int(told), abs=0.1)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://arxiv.org/abs/") or (ROOT / target).exists(), target
