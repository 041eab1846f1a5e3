"""The example of a loop of one's own, and the page on verdicts, print what they show."""

import re
import subprocess
import sys
from pathlib import Path

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
