"""Defines what a module of this folder gives: a `Format`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lopsided.data.dataset import Dataset
from lopsided.data.inputs import Inputs
from lopsided.data.opening import OnBytes, Say
from lopsided.data.options import ReadOptions

BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Block:
    """Holds some rows of a file of records.

    names: of the columns. column: from a name to the cells of all rows, None where a row has none.
    lines: where each row begins in the file, counted from 1; `unit` is what is counted.
    """

    names: Sequence[str]
    column: Callable[[str], Sequence[Any]]
    lines: Sequence[int]
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.lines)


@dataclass(frozen=True)
class Format:
    """Reads one kind of file: in blocks of records, or at once.

    endings: of file names, without those of compression. recognizes: from the path and its first bytes (none of a
    folder) to whether it is of this format, where its ending does not tell.
    blocks: for files of records. read: for others; read_inputs yields their rows in blocks, without labels, and
    read_all_inputs reads them at once. find_targets: returns the file with the labels of the rows, None if they stand
    in the data file.
    """

    name: str
    endings: tuple[str, ...] = ()
    recognizes: Callable[[Path, bytes], bool] | None = None
    blocks: Callable[[Path, ReadOptions, Say, OnBytes], Iterator[Block]] | None = None
    read: Callable[[Path, ReadOptions, OnBytes], Dataset] | None = None
    read_inputs: Callable[[Path, ReadOptions, OnBytes], Iterator[Inputs]] | None = None
    read_all_inputs: Callable[[Path, ReadOptions, OnBytes], Inputs] | None = None
    find_targets: Callable[[Path, ReadOptions], Path | None] | None = None
