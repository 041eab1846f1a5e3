"""Reads a sheet of an Excel file, whose cells are taken as a CSV of that sheet would hold them."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from lopsided.data.formats.base import Block, Format
from lopsided.data.formats.delimited import Row, table_blocks
from lopsided.data.opening import OnBytes, Say, check_archive, read_unpacked, shown
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

_FIRST_ROWS = 100  # in which something stands, or the sheet counts as empty


def read_blocks(path: Path, options: ReadOptions, say: Say, on_bytes: OnBytes) -> Iterator[Block]:
    """Yields the rows of a sheet in blocks: the one that is asked for, or the only one in which something stands."""
    content = io.BytesIO(read_unpacked(path, options, on_bytes))  # its rows are unpacked one by one
    with _sheets(path, content, options) as sheets:
        yield from table_blocks(path, _rows(_sheet(path, sheets, options)), options, say, "row")


@contextmanager
def _sheets(path: Path, content: io.BytesIO, options: ReadOptions) -> Iterator[list[Any]]:
    try:
        import openpyxl
    except ImportError:
        raise UserError(f"{path}: needs the package openpyxl; install it with: pip install 'lopsided[files]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and of checks of cells, which are not looked at
            with zipfile.ZipFile(content) as archive:
                check_archive(path, archive, options)
            book = openpyxl.load_workbook(content, read_only=True, data_only=True)
        yield book.worksheets
    except UserError:
        raise
    except Exception as error:  # whatever a damaged archive, or what is none, makes openpyxl raise
        raise UserError(
            f"{path}: not an .xlsx file, or a damaged one ({type(error).__name__}); save it anew, or as CSV"
        ) from None


def _sheet(path: Path, sheets: list[Any], options: ReadOptions) -> Any:
    names = [sheet.title for sheet in sheets]
    if options.sheet is not None:
        if options.sheet not in names:
            raise UserError(f"{path}: no sheet {shown(options.sheet)} among {', '.join(map(shown, names))}")
        return sheets[names.index(options.sheet)]
    filled = [sheet for sheet in sheets if any(any(cells) for _, cells in islice(_rows(sheet), _FIRST_ROWS))]
    if len(filled) > 1:
        listed = ", ".join(shown(sheet.title) for sheet in filled[:8])
        raise UserError(f"{path}: {len(filled)} sheets, {listed}; say which with --sheet")
    return (filled or sheets)[0]


def _rows(sheet: Any) -> Iterator[Row]:
    """Yields all rows with the width of the first in which something stands: formatting alone makes rows longer."""
    width = 0
    for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
        cells = list(map(_text, row))
        while cells and not cells[-1]:
            cells.pop()
        width = width or len(cells)
        if width:
            yield number, cells + [""] * (width - len(cells))


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


FORMAT = Format("xlsx", (".xlsx", ".xlsm"), blocks=read_blocks)
