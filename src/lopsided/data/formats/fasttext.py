"""Reads fastText's lines: words, of which those that begin with __label__ are labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lopsided.data.formats.base import BLOCK_ROWS, Block, Format
from lopsided.data.opening import OnBytes, Say, read_lines
from lopsided.data.options import ReadOptions

PREFIX = "__label__"


def read_blocks(path: Path, options: ReadOptions, say: Say, on_bytes: OnBytes) -> Iterator[Block]:
    """Yields the lines of a file in blocks of the columns text and labels."""
    lines = enumerate(read_lines(path, options, say, on_bytes), 1)
    while part := list(islice(lines, BLOCK_ROWS)):
        rows = [(number, *_split(line)) for number, line in part if not line.isspace()]
        numbers, texts, labels = zip(*rows, strict=True) if rows else ((), (), ())
        columns: dict[str, Sequence[Any]] = {"text": texts, "labels": labels}
        yield Block(list(columns), columns.__getitem__, numbers)


def _split(line: str) -> tuple[str, list[str]]:
    """Returns the text of a line and its labels, which usually begin it.

    >>> _split("__label__crime __label__drama an old case\\n")
    ('an old case', ['crime', 'drama'])
    """
    if PREFIX not in line:
        return line.rstrip("\r\n"), []
    words = line.split()
    labels = [word.removeprefix(PREFIX) for word in words if word.startswith(PREFIX)]
    return " ".join(word for word in words if not word.startswith(PREFIX)), labels


def _recognizes(path: Path, start: bytes) -> bool:
    return PREFIX.encode() in start


FORMAT = Format("fasttext", (".txt", ".ft", ".train", ".valid", ".test", ""), _recognizes, read_blocks)
