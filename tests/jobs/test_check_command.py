"""`lopsided check`, and its page."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from lopsided.__main__ import main
from lopsided.testing.candidates import candidates

PAGE = (Path(__file__).parents[2] / "docs/check.md").read_text()
SAMPLE = """
import beside
from torch.nn import functional

class Weighted:
    def __init__(self, weight):
        self.weight = weight
    def __call__(self, logits, targets):
        return self.weight * functional.binary_cross_entropy_with_logits(logits, targets)

class NotCalled:
    pass

def power(logits, targets, gamma=0.0):
    loss = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return ((-loss).exp().neg().add(1) ** gamma * loss).sum()

def number(logits, targets):
    return 1.0

def talking(logits, targets):
    print("hello")
    return functional.binary_cross_entropy_with_logits(logits, targets)

def leaving(logits, targets):
    raise SystemExit(0)

class Leaving:
    def __init__(self):
        raise SystemExit(0)

constant = 3
"""


@pytest.fixture(autouse=True)
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the loss of the page, some others, and the path that the command changes."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    ((name, code),) = re.findall(r"^```python (\w+\.py)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (folder / name).write_text(code)
    (folder / "own").mkdir()
    (folder / "own/losses.py").write_text(SAMPLE)
    (folder / "own/beside.py").write_text("")
    return folder


@pytest.mark.slow
def test_the_output_of_the_page_is_what_is_printed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert main(["check", "my_loss.py:MyLoss", "--plot", "my_loss.png"]) == 1
    printed = capsys.readouterr().out
    until = " time "  # which is another each time
    assert until in shown
    assert [line.rstrip() for line in printed.partition(until)[0].splitlines()] == shown.partition(until)[
        0
    ].splitlines()
    assert printed.endswith("picture: my_loss.png\n")
    assert (place / "my_loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("code", re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
def test_the_code_of_the_page_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "docs/check.md", "exec"), {})
    assert capsys.readouterr().out.strip() == re.findall(r"print\(.*\)  # (.*)", code)[0]


def test_the_page_has_every_known_mistake() -> None:
    known = {
        words for each in candidates() for words in re.split(r"^with | and (?=p |the )", each.change.words) if words
    }
    told = PAGE.partition("## Known mistakes")[2]
    assert len(known) > 6
    for words in known:
        assert re.sub(r" of [\d.]+(e-05)? inside", " of 1e-5 or more inside", words) in told


@pytest.mark.slow
def test_json_is_all_that_is_printed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "own/losses.py:Weighted(weight=3)", "--json", "--plot", "own.svg"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["nearest"]["loss"] == "bce"
    assert {each["status"] for each in found["findings"]} == {"ok", "note"}
    assert [each["text"] for each in found["findings"] if each["subject"] == "reduction"] == [
        "a mean over rows and labels; 3 times the nearest loss"
    ]
    assert printed.err == "picture: own.svg\n"
    assert (place / "own.svg").exists()
    assert main(["check", "own/losses.py:talking", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nearest"]["loss"] == "bce", "what the loss prints stands elsewhere"


@pytest.mark.slow
def test_a_function_may_have_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "own/losses.py:power(gamma=2)"]) == 0
    assert capsys.readouterr().out.startswith("power is focal(gamma=2, detach_focus=False); no fault was found")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("MyLoss", "name a loss as file.py:MyLoss or package.module:MyLoss"),
        ("my_loss.py:MyLoss(", "cannot read the loss 'MyLoss('"),
        ("my_loss.py:MyLoss(gamma=open('x'))", "cannot read the loss"),
        ("my_loss.py:MyLoss(delta=2)", "MyLoss cannot be built: TypeError"),
        ("nothing.py:MyLoss", "nothing.py: there is no such file"),
        ("own/losses.py:Missing", "own/losses.py has no callable 'Missing'; it has Leaving, NotCalled, Weighted"),
        ("torch.nn:BCEWithLogitLoss", "torch.nn has no callable 'BCEWithLogitLoss'; did you mean BCEWithLogitsLoss"),
        ("own/losses.py:constant", "has no callable 'constant'"),
        ("own/losses.py:Weighted", "'weight'; name it with settings, as in 'own/losses.py:Weighted(gamma=2)'"),
        ("own/losses.py:NotCalled", "what the class NotCalled builds cannot be called"),
        ("own/losses.py:number", "it returns a float, not a tensor"),
        ("own/losses.py:leaving", "it ends the program when it is called, by sys.exit(0)"),
        ("own/losses.py:Leaving", "Leaving cannot be built: SystemExit: 0"),
        ("no_package.at_all:Loss", "no_package.at_all cannot be imported: ModuleNotFoundError"),
        ("broken.py:Loss", "broken.py cannot be imported: SyntaxError"),
        ("leaving.py:Loss", "leaving.py cannot be imported: SystemExit: 3"),
    ],
)
def test_wrong_uses_are_one_line(asked: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "broken.py").write_text("def")
    (place / "leaving.py").write_text("raise SystemExit(3)")
    assert main(["check", asked]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_picture_that_cannot_be_drawn_is_said_before_anything_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "own/losses.py:Weighted", "--plot", "own.jpg"]) == 2
    assert "own.jpg: a plot must end in .png, .svg, .pdf" in capsys.readouterr().err
