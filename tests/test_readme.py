"""What the README claims is what the code does; tests/test_pages.py runs its commands and code."""

import re
from pathlib import Path

import pytest
import torch

import lopsided
from lopsided.losses import CATALOG

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMPARING = (ROOT / "docs/comparing.md").read_text()


def test_the_number_of_losses() -> None:
    words = ("Twenty losses, by name or as modules", "Twenty losses for rows with several labels")
    pages = (README, (ROOT / "docs/losses/README.md").read_text())
    assert [word in page for word, page in zip(words, pages, strict=True)] == [True, True]
    assert len(CATALOG) == 20


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
