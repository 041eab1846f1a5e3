"""The README is true to the letter: its commands and its code run, its numbers are those of the code."""

import re
import shlex
from pathlib import Path

import pytest
import torch

import lopsided
from lopsided.__main__ import main
from lopsided.losses import CATALOG
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


@pytest.mark.parametrize("line", PLAIN)
def test_command(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train", "valid", "test"):
        write_texts(tmp_path / f"{name}.jsonl", 60)
    (tmp_path / "train.csv").write_text("body,tags\n" + "".join(f"text {i},a;b{i % 2}\n" for i in range(40)))
    assert main(shlex.split(line)[1:]) == 0
    written = {path.suffix for path in tmp_path.rglob("*")}
    assert (".png" if "preview" in line else ".html") in written


@pytest.mark.parametrize("code", blocks("python"))
def test_code(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


def test_table_of_losses() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `(\w+)` \| ([\d.]+) \|", README, flags=re.MULTILINE)
    assert [row[0] for row in rows] == list(CATALOG)
    logits, targets = torch.randn(4, 5), torch.rand(4, 5) < 0.3
    for name, module, function, threshold in rows:
        loss = lopsided.loss(name)
        assert f"{loss.decision_threshold():.3f}" == threshold
        value = lopsided.MultiLabelLoss(loss)(logits, targets)
        assert getattr(lopsided, module)()(logits, targets) == value
        assert getattr(lopsided.functional, function)(logits, targets) == value


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://arxiv.org/abs/") or (ROOT / target).exists(), target
