"""Reads JSON: one object a line, or one list of objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lopsided.data.formats.base import BLOCK_ROWS, Block, Format
from lopsided.data.opening import OnBytes, Say, read_lines, shown
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

Record = dict[str, Any]


def read_blocks(path: Path, options: ReadOptions, say: Say, on_bytes: OnBytes) -> Iterator[Block]:
    """Yields the objects of a file in blocks. A file that is one list is held in memory, lines are not."""
    lines = read_lines(path, options.encoding, say, on_bytes)
    numbered = ((number, line) for number, line in enumerate(lines, 1) if not line.isspace())
    first = next(numbered, None)
    if first is None:
        return
    if first[1].lstrip().startswith("["):
        yield from in_blocks(_listed(path, first[1] + "".join(line for _, line in numbered)), "record")
    else:
        yield from in_blocks(_one_a_line(path, chain([first], numbered)), "line")


def in_blocks(records: Iterator[tuple[int, Record]], unit: str) -> Iterator[Block]:
    """Yields blocks of objects, each with its place in the file."""
    while rows := list(islice(records, BLOCK_ROWS)):
        yield _block([record for _, record in rows], [place for place, _ in rows], unit)


def _block(records: list[Record], places: list[int], unit: str) -> Block:
    names = list(dict.fromkeys(name for record in records for name in record))
    return Block(names, lambda name: [record.get(name) for record in records], places, unit)


def _one_a_line(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Record]]:
    for number, line in lines:
        where = f"{path}, line {number}"
        yield number, _object(where, parse(where, line))


def _listed(path: Path, text: str) -> Iterator[tuple[int, Record]]:
    content = parse(str(path), text)
    for number, record in enumerate(content, 1):
        yield number, _object(f"{path}, record {number}", record)


def parse(where: str, text: str) -> Any:
    """Reads JSON. Raises UserError, with `where`, for what is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise UserError(f"{where}: not JSON: {error.msg} at {line}column {error.colno}") from None
    except ValueError:
        raise UserError(f"{where}: a number too long to read") from None
    except RecursionError:
        raise UserError(f"{where}: not a row: nested too deeply") from None


def _object(where: str, record: Any) -> Record:
    if not isinstance(record, dict):
        raise UserError(
            f'{where}: expected an object such as {{"text": "...", "labels": ["..."]}}, got {shown(record)}'
        )
    return record


FORMAT = Format("json", (".jsonl", ".json", ".ndjson"), blocks=read_blocks)
