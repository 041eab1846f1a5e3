"""Reads labels that stand in a file of their own, and the pairs of rows and labels that are not to be judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lopsided.data.dataset import Dataset
from lopsided.data.formats import delimited, npy, svmlight
from lopsided.data.formats.jsonl import parse
from lopsided.data.inputs import Inputs, Numbered
from lopsided.data.labels import read_labels
from lopsided.data.labels.targets import Labels, sparse_targets
from lopsided.data.opening import Say, ending_of, ignore, open_bytes, read_lines, shown
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError


def with_targets(inputs: Inputs, path: Path, targets_file: Path, options: ReadOptions, notes: list[str]) -> Dataset:
    """Joins the inputs of `path` with the labels that another file has, row by row.

    That file is an array or sparse matrix of numpy; the second half of the extreme-classification format; JSON lines,
    CSV or TSV; or a text with the labels of one row a line. Raises UserError unless both have the same number of rows.
    """
    labels = _labels(targets_file, options, notes.append)
    rows = len(labels.targets.crow) - 1
    if rows != len(inputs):
        raise UserError(f"{targets_file}: labels of {rows} rows, but {path} has {len(inputs)}")
    notes.insert(0, f"labels of the rows: from {targets_file.name}")
    return Dataset(inputs, labels.targets, labels.names, notes=tuple(notes), unlisted_unknown=labels.unlisted_unknown)


def _labels(path: Path, options: ReadOptions, say: Say) -> Labels:
    kind = ending_of(path)
    if kind in (".npy", ".npz"):
        return Labels(*npy.read_targets(path, options))
    if kind in (".csv", ".tsv"):
        columns, lines = _table_columns(path, options, say)
    elif kind in (".jsonl", ".ndjson"):
        columns, lines = _json_column(path, options, say)
    elif svmlight.read_header(path) is not None:
        targets = svmlight.read_targets(path, options)
        return Labels(targets, Numbered(targets.num_labels or 0))
    else:
        cells = [line.strip() for line in read_lines(path, options, say)]
        columns, lines = {"labels": cells}, range(1, len(cells) + 1)
    return read_labels(columns, lambda row: f"{path}, line {lines[row]}", options, say)


def _table_columns(path: Path, options: ReadOptions, say: Say) -> tuple[dict[str, list[Any]], Sequence[int]]:
    columns: dict[str, list[Any]] = {}
    lines: list[int] = []
    for block in delimited.read_blocks(path, options, say, ignore):
        names = options.label_columns or tuple(block.names)
        if missing := [name for name in names if name not in block.names]:
            raise UserError(f"{path}: no column {shown(missing[0])} among {', '.join(map(shown, block.names))}")
        for name in names:
            columns.setdefault(name, []).extend(block.column(name))
        lines.extend(block.lines)
    return columns, lines


def _json_column(path: Path, options: ReadOptions, say: Say) -> tuple[dict[str, list[Any]], Sequence[int]]:
    """Takes the labels of each line: the whole of it, or what its object has under the name of the label column."""
    name = options.label_columns[0] if options.label_columns else "labels"
    cells, lines = [], []
    for number, line in enumerate(read_lines(path, options, say), 1):
        if line.isspace():
            continue
        where = f"{path}, line {number}"
        cell = parse(where, line)
        if isinstance(cell, dict):
            if name not in cell:
                raise UserError(
                    f"{where}: no {shown(name)} among {', '.join(map(shown, cell))} (say which with --label-columns)"
                )
            cell = cell[name]
        cells.append(cell)
        lines.append(number)
    return {name: cells}, lines


def without_filtered(data: Dataset, path: Path, options: ReadOptions) -> Dataset:
    """Makes unknown what a filter file lists: lines of a row and a label, numbered from 0, that are not to be judged.

    The extreme-classification repository has such files for sets in which a row is itself one of the labels.
    """
    with open_bytes(path, options) as file:
        lines = file.read().split(b"\n")
    pairs = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    for number, pair in pairs:
        if len(pair) != 2 or not all(part.isdigit() and len(part) < 19 for part in pair):
            raise UserError(f"{path}, line {number}: expected a row and a label such as 3 17, got {shown(pair)}")
        if int(pair[0]) >= len(data) or int(pair[1]) >= data.num_labels:
            got = f"row {int(pair[0])} and label {int(pair[1])}"
            raise UserError(
                f"{path}, line {number}: {got}, but there are {len(data)} rows and {data.num_labels} labels"
            )
    filtered = torch.from_numpy(np.array([list(map(int, pair)) for _, pair in pairs], dtype=np.int64).reshape(-1, 2))
    targets = data.targets
    row, col = torch.cat([targets.row, filtered[:, 0]]), torch.cat([targets.col, filtered[:, 1]])
    values = torch.ones(len(targets.col)) if targets.values is None else targets.values
    key = row * max(1, data.num_labels) + col
    listed = len(targets.col)
    stays = ~torch.isin(key[:listed], key[listed:])
    stays = torch.cat([stays, torch.ones(len(filtered), dtype=torch.bool)])
    values = torch.cat([values, torch.full((len(filtered),), torch.nan)])
    joined = sparse_targets(row[stays], col[stays], values[stays], len(data), data.num_labels)
    note = f"{path.name}: {len(filtered)} labels of rows are not judged"
    return replace(data, targets=joined, notes=(*data.notes, note))
