"""Reads texts with labels from JSON lines and from CSV."""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lopsided.data.dataset import MultiLabelData, Splits
from lopsided.data.split import stratified_split
from lopsided.data.storage import UserError

_LONGEST_FIELD = 2**30  # characters; the csv module's own default refuses long texts
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SMALLEST_SPLIT = 10  # rows in a file that is to be split

Row = tuple[str, list[str]]


@dataclass(frozen=True)
class Columns:
    """Names where a row keeps its text and its labels."""

    text: str = "text"
    labels: str = "labels"
    separator: str = ","  # between the labels of a CSV cell


def read_splits(
    train: Path, valid: Path | None = None, test: Path | None = None, columns: Columns | None = None, seed: int = 0
) -> Splits:
    """Reads the files and splits off what is missing: 20 % each of the training file, by iterative stratification.

    The labels are those of all files together, sorted. Raises UserError for anything a user got wrong.
    """
    columns = columns or Columns()
    files = {name: path for name, path in (("train", train), ("valid", valid), ("test", test)) if path is not None}
    rows = {name: read_text_rows(path, columns) for name, path in files.items()}
    labels = _labels(train, [row for part in rows.values() for row in part])
    parts = {name: _encode(part, labels) for name, part in rows.items()}
    missing = [name for name in ("valid", "test") if name not in parts]
    if missing:
        rows_to_split = parts["train"]
        if len(rows_to_split) < _SMALLEST_SPLIT:
            raise UserError(
                f"{train}: {len(rows_to_split)} rows are too few to split; give at least {_SMALLEST_SPLIT}, "
                "or separate files with --valid and --test"
            )
        fractions = (1 - 0.2 * len(missing), *[0.2] * len(missing))
        chosen = stratified_split(rows_to_split.targets, fractions, seed)
        parts |= {name: rows_to_split[part.tolist()] for name, part in zip(("train", *missing), chosen, strict=True)}
    if not parts["train"].targets.any():
        raise UserError(f"{train}: no labels at all in the training rows")
    return Splits(**parts)


def read_data(path: Path, columns: Columns) -> MultiLabelData:
    """Reads all rows of one file. Raises UserError for anything a user got wrong."""
    rows = read_text_rows(path, columns)
    return _encode(rows, _labels(path, rows))


def _labels(path: Path, rows: list[Row]) -> tuple[str, ...]:
    """Returns all labels of the rows, sorted."""
    labels = tuple(sorted({label for _, names in rows for label in names}))
    if len(labels) < 2:
        labels_text = f"only the label {labels[0]!r}" if labels else "no labels at all"
        raise UserError(f"{path}: found {labels_text}; a multi-label problem needs at least two different labels")
    return labels


def read_text_rows(path: Path, columns: Columns) -> list[Row]:
    """Reads all rows of a file as (text, labels)."""
    if path.is_dir():
        raise UserError(f"{path}: a folder, but neither a data file nor a run folder (which has a config.json)")
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.suffix.lower() not in READERS:
        raise UserError(f"{path}: cannot tell its format; name it {', '.join(READERS)}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(READERS[path.suffix.lower()](file, columns))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except _RowError as error:
        raise UserError(f"{path}{error}") from None
    if not rows:
        raise UserError(f"{path}: no rows")
    return rows


class _RowError(Exception):
    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f", line {line}: {problem}")


def _json_rows(lines: Iterator[str], columns: Columns) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise _RowError(number, f"not JSON: {error.msg} at column {error.colno}") from None
        except ValueError:
            raise _RowError(number, "a number too long to read") from None
        except RecursionError:
            raise _RowError(number, "not a row: nested too deeply") from None
        if not isinstance(record, dict):
            raise _RowError(number, f"expected an object such as {_example(columns)}, got {line.strip()[:40]}")
        for column in (columns.text, columns.labels):
            if column not in record:
                raise _RowError(number, _unknown_column(column, list(record)))
        text, labels = record[columns.text], record[columns.labels]
        if not isinstance(text, str) or _LONE_SURROGATE.search(text):
            raise _RowError(number, f"{columns.text!r} must be valid text, got {json.dumps(text)[:40]}")
        if not isinstance(labels, list) or not all(_is_label(label) for label in labels):
            raise _RowError(number, f"{columns.labels!r} must be a list of names, got {json.dumps(labels)[:40]}")
        yield text, [str(label) for label in labels]


def _is_label(label: Any) -> bool:
    if isinstance(label, str):
        return label != "" and not _LONE_SURROGATE.search(label)
    return isinstance(label, int) and not isinstance(label, bool)


def _csv_rows(lines: Iterator[str], columns: Columns, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        for column in (columns.text, columns.labels):
            if header.count(column) != 1:
                twice = f"the column {column!r} stands twice in the header"
                raise _RowError(1, twice if column in header else _unknown_column(column, header))
        text, labels = header.index(columns.text), header.index(columns.labels)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise _RowError(reader.line_num, f"{len(row)} columns, but the header has {len(header)}")
            names = [name.strip() for name in row[labels].split(columns.separator)]
            yield row[text], [name for name in names if name]
    except csv.Error as error:
        raise _RowError(reader.line_num, str(error)) from None


# by file ending; lines and the names of columns to rows
READERS: dict[str, Callable[[Iterator[str], Columns], Iterator[Row]]] = {
    ".jsonl": _json_rows,
    ".csv": partial(_csv_rows, delimiter=","),
    ".tsv": partial(_csv_rows, delimiter="\t"),
}


def _unknown_column(column: str, present: list[str]) -> str:
    near = difflib.get_close_matches(column, present, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no column {column!r} among {', '.join(map(repr, present))}{hint} (see --text-column, --label-column)"


def _example(columns: Columns) -> str:
    return json.dumps({columns.text: "...", columns.labels: ["..."]})


def _encode(rows: list[Row], labels: tuple[str, ...]) -> MultiLabelData:
    number = {label: index for index, label in enumerate(labels)}
    targets = torch.zeros(len(rows), len(labels), dtype=torch.bool)
    for row, (_, names) in enumerate(rows):
        targets[row, [number[name] for name in names]] = True
    return MultiLabelData(tuple(text for text, _ in rows), targets, labels)
