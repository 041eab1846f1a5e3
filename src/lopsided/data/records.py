"""Makes inputs and targets of files of records: rows with named columns."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lopsided.data.dataset import Dataset
from lopsided.data.formats.base import Block
from lopsided.data.inputs import Inputs, Texts
from lopsided.data.labels import read_labels
from lopsided.data.labels.cells import Values
from lopsided.data.labels.forms import is_missing
from lopsided.data.labels.names import is_text
from lopsided.data.labels.targets import join_rows
from lopsided.data.opening import Say, shown
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

TEXT_NAMES = ("text",)
LABEL_NAMES = ("labels", "label", "cats")
_SHOWN_NAMES = 12


@dataclass(frozen=True)
class Chosen:
    """Says which columns of a file are read, and as what."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    group: str | None = None
    join: str | None = None

    def names(self) -> list[str]:
        others = [name for name in (self.group, self.join) if name]
        return list(dict.fromkeys([*self.texts, *self.labels, *others]))


def read_records(path: Path, blocks: Iterator[Block], options: ReadOptions, notes: list[str]) -> Dataset:
    """Reads all rows with their labels. Raises UserError for anything a user got wrong."""
    first = next(blocks, None)
    if first is None:
        raise UserError(f"{path}: no rows")
    chosen = choose(path, first, options, notes.append)
    columns: dict[str, list[Any]] = {name: [] for name in chosen.names()}
    lines: list[int] = []
    for block in chain([first], blocks):
        lines.extend(block.lines)
        for name, cells in columns.items():
            cells.extend(block.column(name) if name in block.names else [None] * len(block))

    where = partial(_where, path, first.unit, lines)
    inputs = make_inputs(where, columns, chosen)
    labels = read_labels({name: columns[name] for name in chosen.labels}, where, options, notes.append)
    data = Dataset(inputs, labels.targets, labels.names, notes=tuple(notes), unlisted_unknown=labels.unlisted_unknown)
    if chosen.group:
        data = replace(data, groups=_numbers(columns[chosen.group]))
    return _join(data, columns, chosen, where) if chosen.join else data


def input_blocks(path: Path, blocks: Iterator[Block], options: ReadOptions, say: Say) -> Iterator[Inputs]:
    """Yields the inputs of a file block by block; its labels are not looked at and may be absent."""
    first = next(blocks, None)
    if first is None:
        return
    chosen = choose(path, first, replace(options, group_column=None), say, with_labels=False)
    for block in chain([first], blocks):
        columns = {name: block.column(name) if name in block.names else [None] * len(block) for name in chosen.texts}
        yield make_inputs(partial(_where, path, block.unit, block.lines), columns, chosen)


def _where(path: Path, unit: str, lines: Sequence[int], row: int) -> str:
    return f"{path}, {unit} {lines[row]}"


def make_inputs(where: Callable[[int], str], columns: Mapping[str, Sequence[Any]], chosen: Chosen) -> Inputs:
    """Makes the inputs of rows from the cells of the chosen columns. Raises UserError for a cell that is no text."""
    several = len(chosen.texts) > 1
    parts = [_texts(where, name, columns[name], several) for name in chosen.texts]
    return Texts(tuple(map("\n".join, zip(*parts, strict=True))) if several else tuple(parts[0]))


def _texts(where: Callable[[int], str], column: str, cells: Sequence[Any], may_miss: bool) -> list[str]:
    texts = ["" if may_miss and is_missing(cell) else cell for cell in cells]
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not is_text(text):
            got = "nothing" if text is None else shown(text)
            raise UserError(f"{where(row)}: {shown(column)} must be valid text, got {got}")
    return texts


def _numbers(cells: Sequence[Any]) -> Tensor:
    """Numbers the different cells of a column, (rows,) int64."""
    number: dict[str, int] = {}
    return torch.tensor([number.setdefault(str(cell), len(number)) for cell in cells], dtype=torch.long)


def _join(data: Dataset, columns: dict[str, list[Any]], chosen: Chosen, where: Callable[[int], str]) -> Dataset:
    """Makes one row of all that agree in a column; their texts must agree, too."""
    to = _numbers(columns[chosen.join or ""])
    num_rows = int(to.max()) + 1
    first = torch.full((num_rows,), len(to)).scatter_reduce(0, to, torch.arange(len(to)), "amin")
    for name in chosen.texts:
        for row, begin in enumerate(first[to].tolist()):
            if columns[name][row] != columns[name][begin]:
                raise UserError(
                    f"{where(row)}: {shown(chosen.join)} is as in {where(begin)}, but {shown(name)} is not; rows that "
                    "--join-by joins must have the same text"
                )
    notes = (*data.notes, f"joined by {shown(chosen.join)}: {len(to)} lines are {num_rows} rows")
    groups = None if data.groups is None else data.groups[first]
    targets = join_rows(data.targets, to, num_rows)
    return replace(data, inputs=data.inputs.take(first), targets=targets, groups=groups, notes=notes)


def choose(path: Path, block: Block, options: ReadOptions, say: Say, with_labels: bool = True) -> Chosen:
    """Chooses the columns by the options and, where those name none, by their usual names.

    Raises UserError for one that is not there or stands twice.
    """
    texts = _matching(path, block, options.text_columns or (_usual(block, TEXT_NAMES, say),), "--text-column")
    labels: tuple[str, ...] = ()
    if with_labels:
        asked = options.label_columns or (_usual(block, LABEL_NAMES, say),)
        labels = _matching(path, block, asked, "--label-columns")
    if both := set(texts) & set(labels):
        raise UserError(f"{path}: column {shown(both.pop())} cannot be text and label at once")
    others = {"--group-column": options.group_column, "--join-by": (with_labels and options.join_by) or None}
    for option, name in others.items():
        if name:
            _matching(path, block, (name,), option)
    return Chosen(texts, labels, *others.values())


def _usual(block: Block, names: Sequence[str], say: Say) -> str:
    """Returns the first of some names that is a column; the very first if none is."""
    present = next((name for name in names if name in block.names), names[0])
    if present != names[0]:
        say(f"no column {shown(names[0])}; {shown(present)} is taken")
    return present


def _matching(path: Path, block: Block, asked: Sequence[str], option: str) -> tuple[str, ...]:
    """Returns the columns that are named, or match a pattern, in the order in which they are asked for."""
    chosen: list[str] = []
    for name in asked:
        exact = [column for column in block.names if column == name]
        if len(exact) > 1:
            raise UserError(f"{path}, {block.unit} 1: the column {shown(name)} stands twice")
        matches = exact or [column for column in block.names if fnmatchcase(column, name)]
        if not matches:
            raise UserError(f"{path}, {block.unit} {block.lines[0]}: {_no_column(block, name, option)}")
        chosen += matches
    return tuple(dict.fromkeys(chosen))


def _no_column(block: Block, name: str, option: str) -> str:
    names = list(block.names[:_SHOWN_NAMES])
    more = f" and {len(block.names) - len(names)} more" if len(block.names) > len(names) else ""
    if option == "--label-columns":
        hint = _label_hint(block)
    else:
        near = difflib.get_close_matches(name[:40], [column for column in names if len(column) <= 40], n=1)
        hint = f"; did you mean {shown(near[0])}?" if near else ""
    return f"no column {shown(name)} among {', '.join(map(shown, names))}{more}{hint} (say which with {option})"


def _label_hint(block: Block) -> str:
    """Names the columns of 0 and 1, which are labels if several are; a column of names is not guessed."""
    values = Values(ReadOptions())
    flags = [name for name in block.names if {values(cell) for cell in block.column(name)[:100]} == {0.0, 1.0}]
    if len(flags) < 2:
        return ""
    return f"; {len(flags)} columns hold 0 and 1: if those are the labels, --label-columns {shown(','.join(flags), 60)}"
