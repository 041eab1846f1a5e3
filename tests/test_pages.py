"""Every block of code and every command of every page is run: here, or by what is named here. Links lead somewhere.

What cannot be run says so in its first line, as in ```bash no test: a GPU, and stands in MARKED.
"""

import functools
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from lopsided.__main__ import main
from lopsided.cli import app
from tests.ranks import leave
from tests.readers_of_pages import PAGES, READERS, ROOT, Block, Reader, blocks, read

MARKED = {("docs/gpu.md", "a GPU")}
ELSEWHERE = {  # code that needs more than files
    "docs/trainers.md": "tests/integrations/test_trainers_page.py",
    "docs/extreme.md": "tests/compute/test_sharding.py",
}
RUNNERS = {  # in this order, by what stands in a command
    "examples/sharded_head.py": "tests/compute/test_sharding.py",
    "examples/": "tests/test_examples.py",
    "studies/": "tests/test_study.py",
    "": ".ci/run",
}
TORCHRUN = "torchrun --nproc-per-node 2"
RUN, SHOWN = ("python", "bash"), ("text", "json", "csv", "tsv", "toml")
GOES_ON = "goes on"  # with what the block before has made
ALL = [block for page in PAGES for block in blocks(page)]
LINES = [(block, line) for block in ALL if block.language == "bash" and not block.marked for line in block.commands()]


def runner(line: str) -> str:
    """Who runs a command: nobody else, or the file that does."""
    if "&&" not in line and re.match(rf"([A-Z_]+=\S+ |/usr/bin/time -v )?lopsided |{TORCHRUN} -m lopsided ", line):
        return ""
    return next(file for part, file in RUNNERS.items() if part in line)


def is_run_here(block: Block) -> bool:
    if block.marked or block.language not in RUN:
        return False
    if block.language == "python":
        return block.page not in ELSEWHERE
    return any(not runner(line) for line in block.commands())


def test_every_block_is_run_or_marked() -> None:
    assert {(block.page, block.marked) for block in ALL if block.marked} == MARKED
    for page in PAGES:
        assert len(re.findall(r"^ *```", read(page), re.MULTILINE)) == 2 * len(blocks(page)), page
    assert {block.language for block in ALL if block.language[0] != "{"} <= {*RUN, *SHOWN}
    assert {block.words for block in ALL if not (block.marked or block.file)} <= {"", GOES_ON}
    assert [page for page, file in ELSEWHERE.items() if page not in read(file)] == []


@pytest.mark.parametrize(("block", "line"), [(block, line) for block, line in LINES if runner(line)])
def test_what_is_run_elsewhere_stands_there(block: Block, line: str) -> None:
    script = re.search(r"(?:examples|studies)/([\w.]+)", line)
    assert (f"run '{line}'" if script is None else script[1]) in read(runner(line))
    if "examples/" in line and "torchrun" not in line:
        assert unknown_words(line.replace("python", "lopsided compare")) == set(), (
            "examples hand their words to compare"
        )


@pytest.mark.slow
@pytest.mark.parametrize("page", dict.fromkeys(block.page for block in ALL if is_run_here(block)))
def test_what_a_page_says_to_do_can_be_done(
    page: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    reader, found = READERS.get(page, Reader()), blocks(page)
    names: dict[str, Any] = {}
    monkeypatch.setattr(sys, "path", [*sys.path])
    for block in found:
        if block.file:
            (folder / block.file).write_text(block.code, encoding="utf-8")
            monkeypatch.setitem(sys.modules, Path(block.file).stem, None)
            monkeypatch.delitem(sys.modules, Path(block.file).stem)
    for run in reader.runs:
        shutil.copytree(request.getfixturevalue("texts" if run.endswith("B") else "finished"), run)
    try:
        reader.files(folder)
        capsys.readouterr()
        for block in found:
            names = follow(block, names, reader, capsys.readouterr().out, monkeypatch)
    finally:
        if torch.distributed.is_initialized():
            leave()


def follow(
    block: Block, names: dict[str, Any], reader: Reader, printed: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Does what a block says, among the names that code before it made; printed is what the block before it did."""
    if block.language == "bash" and is_run_here(block):
        for line in block.commands():
            if not runner(line):
                run_command(line, reader, monkeypatch)
    elif is_run_here(block):
        names = names if block.words == GOES_ON else {"__name__": "page"}
        exec(compile("\n" * (block.line - 1) + block.code, block.page, "exec"), names)
    elif block.language == "json" and not block.file:
        json.loads(block.code)
    elif block.language == "text" and not block.file and printed:
        assert rows_that_are_not_printed(block, printed) == set()
    return names


def rows_that_are_not_printed(block: Block, printed: str) -> set[str]:
    """The digits are those of a machine, and of other sizes; what stands before them is not."""
    rows = set(re.findall(r"^ *(\S.*?)  .*\d.*$", block.code, re.MULTILINE))
    assert rows
    return {row for row in rows if not re.search(rf"^ *{re.escape(row)}  ", printed, re.MULTILINE)}


def test_the_first_screen_has_the_rows_that_are_printed(
    finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = next(block for block in blocks("README.md") if block.language == "text")
    shutil.copytree(finished, "run")
    assert main(["compare", "run"]) == 0  # prints once more
    assert rows_that_are_not_printed(shown, capsys.readouterr().out) <= {"focal", "apl"}, (
        "losses that were left out here"
    )


def run_command(line: str, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    for old, new in reader.instead:
        line = line.replace(old, new)
    words = shlex.split(line)
    if line.startswith(TORCHRUN):
        subprocess.run([sys.executable, "-m", "torch.distributed.run", *words[1:]], check=True, capture_output=True)
        return
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    assert main(words[1:]) in ((0, 1) if words[1] == "check" else (0,)), line
    for option, value in itertools.pairwise(words):
        assert option not in ("--out", "--plot") or Path(value).exists(), line


@functools.cache
def options_of(name: str) -> set[str] | None:
    """The options of a command such as "data check"; None if there is none of that name, or of a group."""
    command: Any = typer.main.get_command(app)
    for word in name.split():
        command = getattr(command, "commands", {}).get(word)
    if command is None or hasattr(command, "commands"):
        return None
    command = command.completed() if hasattr(command, "completed") else command  # with the options of settings
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}


def unknown_words(line: str) -> set[str]:
    """The options of a command that it does not have, or its name if there is none of that name."""
    _, name, *words = shlex.split(line)
    if options_of(name) is None and words:
        name = f"{name} {words.pop(0)}"
    known = options_of(name)
    return {name} if known is None else {word.partition("=")[0] for word in words if word.startswith("--")} - known


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])  # which tells what was
def test_commands_in_the_text_exist_with_their_options(page: str) -> None:
    outside = re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", outside)]
    wrong = {line: unknown_words(line) for line in spans if re.match(r"lopsided [a-z-]", line)}
    assert {line: words for line, words in wrong.items() if words} == {}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Those inside of the project: files, and headings in them. `nox -s links` asks for the others."""
    assert (
        re.findall(r"\]\(http:|<https?:|^\[.*\]: ", re.sub(r"^```.*?^```$", "", read(page), flags=re.M | re.S), re.M)
        == []
    ), "write [words](https://...), which is looked at"
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", read(page)):
        if target.startswith("https://"):
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        assert path.resolve().is_relative_to(ROOT), target
        headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not anchor or anchor in slugs, f"{target}#{anchor}"
