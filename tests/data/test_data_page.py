"""The samples of docs/data.md are read as the page says."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lopsided.data.readers import ReadOptions, read, read_inputs

PAGE = Path(__file__).parents[2] / "docs/data.md"
TEXT = PAGE.read_text(encoding="utf-8")
SAMPLE = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CLAIM = re.compile(r"^`(\S+)((?: --[^`]+)?)`: (\d+) rows, (\d+) labels \((.*)\)(?:, (\d+) unknown)?$", re.MULTILINE)
TUPLES = {"column_names", "text_columns", "label_columns", "unknown", "negative"}
BESIDE = {"emotions.txt", "trainY.txt", "vectors.txt", "red.png", "blue.png"}  # belong to another sample
SHORT = {"text_column": "text_columns", "label_column": "label_columns"}


@dataclass(frozen=True)
class Claim:
    file: str
    options: ReadOptions
    rows: int
    names: list[str]
    unknown: int


def read_options(arguments: str) -> ReadOptions:
    given: dict[str, Any] = {}
    words = shlex.split(arguments.replace("=", " "))
    for option, value in zip(words[::2], words[1::2], strict=True):
        name = option.removeprefix("--").replace("-", "_")
        name = SHORT.get(name, name)
        given[name] = tuple(value.split(",")) if name in TUPLES else Path(value) if name == "labels_file" else value
    return ReadOptions(**given)


def claims() -> list[Claim]:
    result = []
    for file, arguments, rows, labels, names, unknown in CLAIM.findall(TEXT):
        claim = Claim(file, read_options(arguments), int(rows), names.split(", "), int(unknown or 0))
        assert int(labels) == len(claim.names), file
        result.append(claim)
    return result


@pytest.fixture
def samples(folder: Path) -> list[str]:
    """The samples of the page, as files in the working directory."""
    for name, text in SAMPLE.findall(TEXT):
        (folder / name).write_text(text, encoding="utf-8")
    for code in CODE.findall(TEXT):
        exec(compile(code, str(PAGE), "exec"), {})
    return sorted(path.name for path in folder.iterdir())


def test_every_sample_is_read_as_the_page_says(samples: list[str]) -> None:
    used = set(BESIDE)
    for claim in claims():
        data = read(Path(claim.file), claim.options)
        assert len(data) == claim.rows, claim.file
        assert list(data.label_names) == claim.names
        values = data.targets.values
        assert (0 if values is None else int(values.isnan().sum())) == claim.unknown
        assert sum(len(block) for block in read_inputs(Path(claim.file), claim.options)) == claim.rows
        used.add(claim.file)
    assert used == set(samples), "every sample has a claim"
