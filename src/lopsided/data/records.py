"""Makes inputs and targets of files of records: rows with named columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lopsided.data.columns import Chosen, Finder, choose
from lopsided.data.dataset import Dataset
from lopsided.data.formats.base import Block
from lopsided.data.image_files import ImageFiles
from lopsided.data.independence import number_groups
from lopsided.data.inputs import Inputs, Texts, digest
from lopsided.data.labels import read_labels
from lopsided.data.labels.forms import Where
from lopsided.data.labels.targets import join_rows
from lopsided.data.opening import Say, ignore, shown
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

_SCATTERED = 0.1  # of all rows, that share a text but not a label

Kept = Callable[[dict[str, list[str]]], object]


def read_records(path: Path, blocks: Iterator[Block], options: ReadOptions, notes: list[str]) -> Dataset:
    """Reads all rows with their labels. Raises UserError for anything a user got wrong."""
    first = next(blocks, None)
    if first is None:
        raise UserError(f"{path}: no rows")
    chosen = choose(partial(_where, path, first), path, first, options, notes.append)
    names = [*chosen.labels, *filter(None, (chosen.group, chosen.join))]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    parts: list[Inputs] = []
    lines: list[int] = []
    for block in chain([first], blocks):
        lines.extend(block.lines)
        parts.append(_inputs(path, block, chosen))
        for name, cells in columns.items():
            cells.extend(_cells(block, name))
    inputs = chosen.maker.join(parts)
    where = partial(_where_line, path, first.unit, lines)
    labels = read_labels({name: columns[name] for name in chosen.labels}, where, options, notes.append)
    groups = number_groups(columns[chosen.group]) if chosen.group else None
    unlisted = labels.unlisted_unknown
    data = Dataset(inputs, labels.targets, labels.names, groups, tuple(notes), unlisted_unknown=unlisted)
    if chosen.join:
        return _join(data, columns[chosen.join], chosen.join, where)
    if options.join_by is None:
        _refuse_scattered_labels(path, data)
    return data


def input_blocks(
    path: Path,
    blocks: Iterator[Block],
    options: ReadOptions,
    say: Say,
    keep: Sequence[str] = (),
    on_kept: Kept = ignore,
) -> Iterator[Inputs]:
    """Yields the inputs of a file block by block; its labels are not looked at and may be absent.

    on_kept is called before each block with the cells of the columns `keep`, by name, as texts. Of rows that
    --join-by joins the first one is taken; a digest of each key is held in memory, some 100 bytes.
    """
    first = next(blocks, None)
    if first is None:
        return
    where = partial(_where, path, first)
    chosen = choose(where, path, first, options, say, with_labels=False)
    kept = Finder(path, where, first).columns(keep, "--keep")
    seen: set[bytes] = set()  # keys may be whole texts
    for block in chain([first], blocks):
        inputs, rows = _inputs(path, block, chosen), list(range(len(block)))
        if chosen.join:
            keys = (digest(str(cell).encode("utf-8", "surrogatepass")) for cell in _cells(block, chosen.join))
            first_row: dict[bytes, int] = {}
            for row, key in enumerate(keys):
                first_row.setdefault(key, row)
            rows = [row for key, row in first_row.items() if key not in seen]
            seen.update(first_row)
            inputs = inputs.take(torch.tensor(rows, dtype=torch.long))
        if kept:
            on_kept({name: _texts(_cells(block, name), rows) for name in kept})
        yield inputs


def _texts(cells: Sequence[Any], rows: Sequence[int]) -> list[str]:
    return ["" if cells[row] is None else str(cells[row]) for row in rows]


def all_inputs(path: Path, blocks: Iterator[Block], options: ReadOptions, say: Say) -> Inputs:
    """Reads the inputs of all rows; labels are not looked at. Raises UserError if there are none."""
    first = next(blocks, None)
    if first is None:
        raise UserError(f"{path}: no rows")
    chosen = choose(partial(_where, path, first), path, first, options, say, with_labels=False)
    return chosen.maker.join([_inputs(path, block, chosen) for block in chain([first], blocks)])


def _inputs(path: Path, block: Block, chosen: Chosen) -> Inputs:
    return chosen.maker.make(partial(_where, path, block), partial(_cells, block), len(block))


def _cells(block: Block, name: str) -> Sequence[Any]:
    return block.column(name) if name in block.names else [None] * len(block)


def _where(path: Path, block: Block, row: int) -> str:
    return _where_line(path, block.unit, block.lines, row)


def _where_line(path: Path, unit: str, lines: Sequence[int], row: int) -> str:
    return f"{path}, {unit} {lines[row]}"


def _numbers(cells: Sequence[Any]) -> Tensor:
    """Numbers the different cells of a column, (rows,) int64."""
    number: dict[str, int] = {}
    return torch.tensor([number.setdefault(str(cell), len(number)) for cell in cells], dtype=torch.long)


def _refuse_scattered_labels(path: Path, data: Dataset) -> None:
    """Raises UserError if each row has one label and many rows differ from another by it alone: one row, many lines."""
    if not isinstance(data.inputs, Texts) or int(data.targets.crow.diff().max()) > 1 or data.targets.values is not None:
        return
    bounds, col = data.targets.crow.tolist(), data.targets.col.tolist()
    labels: dict[str, set[int]] = {}
    for row, text in enumerate(data.inputs.texts):
        labels.setdefault(text, set()).update(col[bounds[row] : bounds[row + 1]])
    scattered = sum(len(labels[text]) > 1 for text in data.inputs.texts)
    if scattered >= max(2, _SCATTERED * len(data)):
        raise UserError(
            f"{path}: no row has two labels, but {scattered} of {len(data)} rows have the text of another row with "
            "another label: if those are labels of one text, --join-by COLUMN; if every line is a row, --join-by ''"
        )


def _join(data: Dataset, cells: Sequence[Any], column: str, where: Where) -> Dataset:
    """Makes one row of all that agree in a column; their inputs must agree, too."""
    to = _numbers(cells)
    num_rows = int(to.max()) + 1
    first = torch.full((num_rows,), len(to)).scatter_reduce(0, to, torch.arange(len(to)), "amin")
    contents: Sequence[Any] = data.inputs.names if isinstance(data.inputs, ImageFiles) else list(data.inputs.keys())
    for row, begin in enumerate(first[to].tolist()):
        if contents[row] != contents[begin]:
            raise UserError(
                f"{where(row)}: {shown(column)} is as in {where(begin)}, but the {data.inputs.kind} is not; rows that "
                "--join-by joins must be the same but for their labels"
            )
    notes = (*data.notes, f"joined by {shown(column)}: {len(to)} lines are {num_rows} rows, with all labels of those")
    groups = None if data.groups is None else data.groups[first]
    targets = join_rows(data.targets, to, num_rows)
    return replace(data, inputs=data.inputs.take(first), targets=targets, groups=groups, notes=notes)
