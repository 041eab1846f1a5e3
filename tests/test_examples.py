"""The examples, and the page on verdicts, print what they show."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE, PAGE = ROOT / "examples/own_loop", ROOT / "docs/comparing.md"


def block(page: Path, language: str) -> str:
    """The first block of code in that language."""
    found = re.search(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


@pytest.mark.slow
def test_the_page_of_verdicts_shows_what_its_code_prints(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block(PAGE, "python"), PAGE.name, "exec"), {})
    assert lines(capsys.readouterr().out) == lines(block(PAGE, "text"))


@pytest.mark.slow
def test_the_example_prints_what_its_page_shows_but_for_numbers(folder: Path) -> None:
    line = [sys.executable, str(EXAMPLE / "main.py")]
    printed = subprocess.run(line, check=True, capture_output=True, text=True, timeout=300).stdout
    assert (folder / "runs/own_loop/report.html").exists()
    shapes = []
    for text in (printed, block(EXAMPLE / "README.md", "text")):
        rows = (line.split() for line in lines(text) if re.search(r"\.\d{3}", line))
        shapes.append([row[0] for row in rows if len(row) > 3 and not row[0].startswith("•")])
    assert shapes[0] == shapes[1], "the digits are those of a machine"
    assert {"mAP", "asl", "zlpr"} <= set(shapes[0])


def small(name: str, capsys: pytest.CaptureFixture[str], *words: str, **sizes: Any) -> str:
    """What an example prints when it is run in small, in the working directory."""
    found = importlib.util.spec_from_file_location(name, ROOT / f"examples/{name}/main.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.main(*words, out=Path("out"), **sizes)
    return capsys.readouterr().out


def first_words(text: str) -> list[str]:
    """How the lines of the tables begin: what stands before the first number with three decimals."""
    rows = [line for line in lines(text) if re.search(r" [+-]?\d?\.\d{2,3}\b", line) and "•" not in line]
    return [re.split(r" {2,}|\d?\.\d", row.strip())[0] for row in rows]


def shown(name: str) -> str:
    """What the page of an example shows as printed."""
    return block(ROOT / f"examples/{name}/README.md", "text")


@pytest.mark.slow
def test_single_label_losses_are_compared(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    printed = small("single_label", capsys, epochs=20, seeds=2)
    names = first_words(printed)
    assert names == first_words(shown("single_label"))
    frequent, rare = (
        {
            name: float(line.split()[column])
            for name, line in zip(names, printed.splitlines()[-len(names) :], strict=True)
        }
        for column in (-2, -1)
    )
    assert all(frequent[name] > max(rare[name], 0.8) for name in ("cross entropy", "asl, softmax"))
    assert rare["logit adjustment"] > rare["cross entropy"]
    assert (folder / "out/recall.png").stat().st_size > 10_000
