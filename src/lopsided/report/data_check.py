"""Prints the result of `lopsided data check`."""

from __future__ import annotations

import math
from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lopsided.data.excerpts import printable
from lopsided.jobs.check_data import RARE, DataCheck, Example, FileCheck
from lopsided.jobs.numbers import share

_FORMATS = {  # what is not noted, because it is usual
    "csv": "csv (UTF-8; columns are cut by commas, in .tsv by tabs; unless noted otherwise)",
    "json": "json (UTF-8 unless noted otherwise)",
    "fasttext": "fasttext (UTF-8 unless noted otherwise)",
}
_LABELS_SHOWN = 8  # of a row
_LABELS_WIDTH = 32
_LONGEST_NAME = 40  # characters


def print_data_check(check: DataCheck, console: Console) -> None:
    """Prints how the files were understood, some rows, counts, and warnings. Nothing of a file is taken as markup."""
    files = [check.data] if check.test is None else [check.data, check.test]
    for file in files:
        _say(console, f"\n{file.path}: {_FORMATS.get(file.format, file.format)}; inputs of kind {file.kind}")
        for note in file.notes:
            _say(console, f"• {note}")
        console.print(_examples(file))
    console.print(_counts(files, check.overlap))
    _say(console, f"most frequent labels: {_names(check.data.frequent())}")
    _say(console, f"rarest labels: {_names(check.data.rarest())}")
    for warning in check.warnings:
        _say(console, f"warning: {warning}")


def _say(console: Console, line: str) -> None:
    blank = "\n" if line.startswith("\n") else ""
    console.print(Text(blank + printable(line, 1000)), soft_wrap=True)


def _examples(file: FileCheck) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("row", justify="right")
    table.add_column("labels", overflow="fold", max_width=_LABELS_WIDTH)
    table.add_column(file.kind, overflow="ellipsis", no_wrap=True, ratio=1)  # what the others leave
    for example in file.examples:
        shown = printable(example.excerpt) if isinstance(example.excerpt, str) else f"{len(example.excerpt)} bytes"
        table.add_row(str(example.row + 1), Text(_labels(example)), Text(shown))
    return table


def _labels(example: Example) -> str:
    if len(example.labels) > 1 and all(math.isnan(value) for _, value in example.labels):
        return f"({len(example.labels)} unknown)"
    names = [printable(name, _LONGEST_NAME) + _value(value) for name, value in example.labels[:_LABELS_SHOWN]]
    more = len(example.labels) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "") or "(none)"


def _value(value: float) -> str:
    """Returns what is said of a label's value: nothing if it is positive."""
    return " (unknown)" if math.isnan(value) else "" if value == 1 else f" {value:g}"


def _names(labels: list[tuple[str, float]]) -> str:
    return ", ".join(f"{printable(name, _LONGEST_NAME)} ({positives:g})" for name, positives in labels) or "none"


def _counts(files: list[FileCheck], overlap: int) -> Table:
    table = Table("", box=SIMPLE_HEAD, pad_edge=False)
    for file in files:
        table.add_column(printable(file.path.name, _LONGEST_NAME), justify="right")
    lines: dict[str, Callable[[FileCheck], str]] = {
        "rows": lambda file: f"{file.rows}",
        "rows without a label": lambda file: f"{file.unlabelled}",
        "copies of other rows": lambda file: f"{file.copies}",
        "groups": lambda file: "-" if file.groups is None else f"{file.groups}",
        "labels": lambda file: f"{len(file.names)}",
        "labels a row, mean": lambda file: share(file.labels_per_row, 2),
        "labels a row, most": lambda file: f"{file.most_labels}",
        "positives of all rows x labels": lambda file: share(file.density),
        "unknown of all rows x labels": lambda file: share(file.unknown),
        f"labels with fewer than {RARE} positives": lambda file: f"{file.fewer_than(RARE)}",
        "labels without positives": lambda file: f"{file.fewer_than(1)}",
    }
    for title, value in lines.items():
        table.add_row(title, *(Text(value(file)) for file in files))
    if len(files) > 1:
        table.add_row("rows that also stand in the training file", "", str(overlap))
    return table
