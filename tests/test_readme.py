"""The README is true to the letter: its commands and its code run, its numbers are those of the code."""

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
from lopsided.jobs.numbers import share
from lopsided.losses import CATALOG, PRESETS, formula
from lopsided.losses.closed_form import decision_threshold
from tests.tools import write_texts

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]
INSTALLING = [line for line in COMMANDS if line.startswith("pip install")]
PLAIN = [line for line in COMMANDS if line.startswith("lopsided ")]


def test_every_command_is_run_somewhere() -> None:
    """Those that install are run by .ci/run, to the letter; the others below."""
    assert len(INSTALLING) == 2
    assert len(PLAIN) >= 4
    assert len(INSTALLING) + len(PLAIN) == len(COMMANDS)
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


def test_table_of_losses() -> None:
    rows = re.findall(r"^\| \[`(\w+)`\]\((.*)\.md\) \| (.*)\| ([\w. ]+) \|", README, flags=re.MULTILINE)
    assert [row[0] for row in rows] == list(CATALOG)
    for name, page, modules, threshold in rows:
        loss = formula(name)
        assert page == f"docs/losses/{name}"
        assert threshold == (share(float(decision_threshold(loss))) if loss.pool.thresholded else "only ranks")
        for module in re.findall(r"`(\w+)`", modules):
            assert getattr(lopsided, module)().formula == loss


def test_names_in_the_text_exist() -> None:
    text = README.partition("All take the same things")[2].partition("### Speed")[0]
    names = {name for name in re.findall(r"`(\w+)`", text) if not hasattr(lopsided, name)}
    assert names == {"weight", "pos_weight", "row_weight", "label_smoothing", "False", "two_way", "vmap"} | set(PRESETS)


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
