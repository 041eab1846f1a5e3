"""Reads JSON: one object a line, or one list of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, TextIO

from lopsided.data.formats import exports
from lopsided.data.formats.base import BLOCK_ROWS, Block, Format
from lopsided.data.opening import OnBytes, Say, check_line, limited_lines, longest_line, open_text, shown, too_long
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

Record = dict[str, Any]

_CHUNK = 1 << 20  # characters
_SIGN = re.compile("[^ \\t\\r\\n]")
_DECODER = json.JSONDecoder()


def read_blocks(path: Path, options: ReadOptions, say: Say, on_bytes: OnBytes) -> Iterator[Block]:
    """Yields the objects of a file in blocks."""
    with open_text(path, options, say, on_bytes) as file:
        number, start = 1, file.readline(_CHUNK)
        while start.isspace():
            number, start = number + 1, file.readline(_CHUNK)
        if start.lstrip().startswith("[") and not _is_complete(start):
            unit, records = "record", _listed(path, _Text(file, start, options))
        else:
            rest = "" if start.endswith(("\r", "\n")) else next(limited_lines(path, file, options, number), "")
            lines = chain([start + rest], limited_lines(path, file, options, number + 1))
            unit, records = "line", _one_a_line(path, number, lines)
        objects = ((place, _object(f"{path}, {unit} {place}", record)) for place, record in exports.adapt(records, say))
        while rows := list(islice(objects, BLOCK_ROWS)):
            yield _block([record for _, record in rows], [place for place, _ in rows], unit)


def _block(records: list[Record], places: list[int], unit: str) -> Block:
    names = list(dict.fromkeys(name for record in records for name in record))
    return Block(names, lambda name: [record.get(name) for record in records], places, unit)


def _one_a_line(path: Path, first: int, lines: Iterable[str]) -> Iterator[exports.Placed]:
    for number, line in enumerate(lines, first):
        check_line(path, number, line)
        if line and not line.isspace():
            yield number, parse(f"{path}, line {number}", line)


def _is_complete(line: str) -> bool:
    """Tells whether a line that begins a list is one row, as spaCy has it, rather than the list of all rows."""
    try:
        return len(row := json.loads(line)) == 2 and isinstance(row[0], str)
    except (ValueError, RecursionError):
        return False


def _listed(path: Path, text: _Text) -> Iterator[exports.Placed]:
    """Yields the items of a list, of which no more than a part is in memory."""
    text.next_sign(path, 1)
    for number in count(1):
        sign = text.next_sign(path, number)
        if sign == "]":
            if rest := text.rest().strip():
                raise UserError(f"{path}: not JSON: {shown(rest)} behind the list")
            break
        if number == 1:
            text.place -= 1
        elif sign != ",":
            raise UserError(
                f"{path}, record {number}: not JSON: expected a comma or the end of the list, got {shown(sign)}"
            )
        yield number, text.next_value(path, number)


class _Text:
    """Holds the part of a file from which JSON is read. What is read at once grows with a value that needs more."""

    def __init__(self, file: TextIO, text: str, options: ReadOptions) -> None:
        self._file, self._text, self._options, self.place = file, text, options, 0

    def _more(self) -> bool:
        left = self._text[self.place :]
        text = self._file.read(max(_CHUNK, len(left)))
        self._text, self.place = left + text, 0
        return bool(text)

    def rest(self) -> str:
        """Reads all that is left."""
        return self._text[self.place :] + self._file.read()

    def next_sign(self, path: Path, number: int) -> str:
        """Returns the next character that is no blank, and goes behind it."""
        while True:
            match = _SIGN.search(self._text, self.place)
            if match:
                self.place = match.end()
                return match[0]
            self.place = len(self._text)
            if not self._more():
                raise UserError(f"{path}, record {number}: not JSON: the list does not end")

    def next_value(self, path: Path, number: int) -> Any:
        """Returns the next value, and goes behind it."""
        where = f"{path}, record {number}"
        self.next_sign(path, number)
        self.place -= 1
        while True:
            try:
                value, self.place = _DECODER.raw_decode(self._text, self.place)
                return value
            except json.JSONDecodeError as error:
                if len(self._text) - self.place > longest_line(self._options):
                    raise too_long(f"{where}: not JSON: {error.msg}", self._options) from None
                if not self._more():
                    raise UserError(f"{where}: not JSON: {error.msg}") from None
            except ValueError:
                raise UserError(f"{where}: a number too long to read") from None
            except RecursionError:
                raise UserError(f"{where}: not a row: nested too deeply") from None


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
