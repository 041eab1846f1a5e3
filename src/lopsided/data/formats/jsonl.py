"""Reads JSON: one object a line, or one list of objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lopsided.data.formats import exports
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
    if first[1].lstrip().startswith("[") and not _is_complete(first[1]):
        unit, records = "record", _listed(path, "".join(line for _, line in chain([first], numbered)))
    else:
        unit, records = "line", _one_a_line(path, chain([first], numbered))
    objects = ((place, _object(f"{path}, {unit} {place}", record)) for place, record in exports.adapt(records, say))
    while rows := list(islice(objects, BLOCK_ROWS)):
        yield _block([record for _, record in rows], [place for place, _ in rows], unit)


def _block(records: list[Record], places: list[int], unit: str) -> Block:
    names = list(dict.fromkeys(name for record in records for name in record))
    return Block(names, lambda name: [record.get(name) for record in records], places, unit)


def _one_a_line(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Any]]:
    return ((number, parse(f"{path}, line {number}", line)) for number, line in lines)


def _is_complete(line: str) -> bool:
    """Tells whether a line that begins a list is one row, as spaCy has it, rather than the list of all rows."""
    try:
        return len(row := json.loads(line)) == 2 and isinstance(row[0], str)
    except (ValueError, RecursionError):
        return False


def _listed(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    return iter(enumerate(parse(str(path), text), 1))


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
