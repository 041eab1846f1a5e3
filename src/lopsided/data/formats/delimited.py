"""Reads tables whose cells are cut by a sign: CSV, TSV and what Excel writes."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from lopsided.data.formats.base import BLOCK_ROWS, Block, Format
from lopsided.data.opening import OnBytes, Say, longest_line, read_lines, shown, too_long, typed
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

DELIMITERS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
_SAMPLE_LINES = 50
_MOST_BEHIND = 1000  # lines of a row that are remembered, but for the last

_DECLARED = re.compile("sep=(.)", re.IGNORECASE)

Line = tuple[int, str]  # its number, from 1
Row = tuple[int, list[str]]  # the number of its first line, and its cells


def read_blocks(path: Path, options: ReadOptions, say: Say, on_bytes: OnBytes) -> Iterator[Block]:
    """Yields the rows of a file in blocks; the first line names the columns, unless options.column_names do."""
    csv.field_size_limit(2**30)  # characters; its own default refuses long texts
    lines = enumerate(read_lines(path, options, say, on_bytes), 1)
    sample = list(islice(lines, _SAMPLE_LINES))
    declared = sample and _DECLARED.fullmatch(sample[0][1].strip())
    if declared:  # Excel writes this before the header
        sample.pop(0)
        say(f"columns are cut by {shown(declared[1])}, as the first line says")
    usual = declared[1] if declared else None
    delimiter = typed(options.delimiter or "") or usual or _find_delimiter(path, sample, options, say)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise UserError(f"{path}: --delimiter must be one character, got {shown(delimiter)}")
    yield from table_blocks(path, _rows(path, chain(sample, lines), delimiter, options, say), options, say)


def table_blocks(
    path: Path, rows: Iterator[Row], options: ReadOptions, say: Say, unit: str = "line"
) -> Iterator[Block]:
    """Yields rows of cells in blocks; the first row names the columns, unless options.column_names do."""
    _, header = (0, list(options.column_names)) if options.column_names else next(rows, (0, []))
    header = [name.strip() for name in header]
    where = {name: place for place, name in enumerate(header)}
    rows = _filled(rows, say)
    while part := list(islice(rows, BLOCK_ROWS)):
        yield _block(path, part, header, where, unit)


def _filled(rows: Iterator[Row], say: Say) -> Iterator[Row]:
    """Leaves out rows in which nothing stands, as spreadsheets write them below the last one."""
    empty = 0
    for number, cells in rows:
        if len(cells) == 1 or any(cells):
            yield number, cells
        else:
            empty += 1
    if empty:
        say(f"rows in which nothing stands are left out: {empty}")


def _block(path: Path, part: list[Row], header: list[str], where: dict[str, int], unit: str) -> Block:
    for line, cells in part:
        if len(cells) != len(header):
            quote = "; a cell that holds the delimiter must stand in quotation marks" * (len(cells) > len(header))
            raise UserError(f"{path}, {unit} {line}: {len(cells)} columns, but the header has {len(header)}{quote}")

    def column(name: str) -> list[str]:
        place = where[name]
        return [cells[place] for _, cells in part]

    return Block(header, column, [line for line, _ in part], unit)


def _find_delimiter(path: Path, sample: Sequence[Line], options: ReadOptions, say: Say) -> str:
    """Returns the sign that cuts the header; of several, the one that cuts all first lines alike."""
    usual = "\t" if {".tsv", ".tab"} & set(path.suffixes) else ","
    lines = [line for _, line in sample[: max(1, len(sample) - 1)]]  # the last one may be half a row
    widths = {sign: _widths(lines, sign) for sign in DELIMITERS}
    fitting = [sign for sign, width in widths.items() if width and width[0] > 1]
    if len(fitting) > 1:
        alike = [sign for sign in fitting if len(set(widths[sign])) == 1]
        fitting = alike or [usual] * (usual in fitting) or fitting
    if len(fitting) > 1:
        both = " and ".join(f"{DELIMITERS[sign]} ({widths[sign][0]} columns)" for sign in fitting)
        raise UserError(f"{path}: columns may be cut by {both}; say which with --delimiter")
    if fitting and fitting[0] != usual:
        say(f"columns are cut by {DELIMITERS[fitting[0]]} (change it with --delimiter)")
    return fitting[0] if fitting else usual


def _widths(lines: Sequence[str], delimiter: str) -> list[int]:
    """Returns into how many cells a sign cuts each of the lines."""
    try:
        return [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return []


def _rows(path: Path, lines: Iterator[Line], delimiter: str, options: ReadOptions, say: Say) -> Iterator[Row]:
    if options.quoting == "none":
        return ((number, _cut(line, delimiter)) for number, line in lines if not line.isspace() or delimiter in line)
    if options.quoting is None and delimiter == "\t":
        return _line_by_line(path, lines, delimiter, options, say)
    return _quoted(path, lines, delimiter, options, say)


def _cut(line: str, delimiter: str) -> list[str]:
    return line.rstrip("\r\n").split(delimiter)


def _quoted(path: Path, lines: Iterator[Line], delimiter: str, options: ReadOptions, say: Say) -> Iterator[Row]:
    """Yields rows whose cells may stand in quotation marks and run over line ends, as RFC 4180 has them."""
    behind: list[Line] = []  # the lines of the row that is read; of many, the first ones and the last
    reader = csv.reader(_remembered(path, lines, behind, options), delimiter=delimiter, strict=True)
    width, long_rows, first_long = 0, 0, 0
    while True:
        behind.clear()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{path}, line {behind[0][0] if behind else 1}: {_reason(error)}") from None
        if cells is None:
            break
        width = width or len(cells)
        if len(behind) > 1:
            long_rows, first_long = long_rows + 1, first_long or behind[0][0]
            if options.quoting is None and _swallowed(behind[1:-1], delimiter, width):
                raise UserError(f"{path}, line {behind[0][0]}: {_unclosed(behind[-1][0])}")
        if cells:
            yield behind[0][0], cells
    if long_rows:
        say(f"rows that run over several lines: {long_rows}, the first in line {first_long}")


def _remembered(path: Path, lines: Iterator[Line], behind: list[Line], options: ReadOptions) -> Iterator[str]:
    most, length = longest_line(options), 0
    for number, line in lines:
        length = length + len(line) if behind else 0
        if length > most:
            raise too_long(f"{path}, line {behind[0][0]}", options)
        behind[_MOST_BEHIND:] = [(number, line)]
        yield line


def _swallowed(inner: Sequence[Line], delimiter: str, width: int) -> bool:
    """Tells whether all lines inside a quoted cell look like rows."""
    enough = 2 if width > 2 else 4
    return width > 1 and len(inner) >= enough and all(line.count(delimiter) == width - 1 for _, line in inner)


def _unclosed(end: int) -> str:
    return (
        f"a quotation mark begins a cell that ends in line {end}, and the lines between look like rows; if quotation "
        "marks are letters here: --quoting none, if the cell is so long: --quoting standard"
    )


def _reason(error: csv.Error) -> str:
    reason = repr(str(error))[1:-1].replace("\\'", "'")
    return f"{reason} (if quotation marks are letters in this file: --quoting none)"


class _Ahead(Iterator[Line]):
    """Gives lines, and shows the one that follows."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.following = next(lines, None)

    def __next__(self) -> Line:
        line, self.following = self.following, next(self._lines, None)
        if line is None:
            raise StopIteration
        return line


def _line_by_line(path: Path, lines: Iterator[Line], delimiter: str, options: ReadOptions, say: Say) -> Iterator[Row]:
    """Yields rows of which most need no quoting: a line that has all columns is a row, whatever its quotation marks.

    Programs that write TSV do not quote; Excel does. A cell is quoted if its quotation marks enclose all of it.
    """
    width, literal = 0, 0
    ahead = _Ahead(lines)
    for number, line in ahead:
        cells = _cut(line, delimiter)
        if not width:
            cells = list(map(_unquoted, cells))
        elif '"' in line:
            row_follows = ahead.following is None or len(_cut(ahead.following[1], delimiter)) == width
            if len(cells) == width and (row_follows or not _opens(cells[-1])):
                literal = literal or number * any(map(_opens, cells))
                cells = list(map(_unquoted, cells))
            else:
                cells = _joined(f"{path}, line {number}", line, ahead, delimiter, width, options)
        elif line.isspace() and delimiter not in line:
            continue
        width = width or len(cells)
        yield number, cells
    if literal:
        say(f"quotation marks are letters where they do not enclose a cell (first in line {literal})")


def _opens(cell: str) -> bool:
    """Tells whether a quotation mark begins a cell without enclosing it."""
    return cell.startswith('"') and (len(cell) < 2 or not cell.endswith('"') or '"' in cell[1:-1].replace('""', ""))


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell.startswith('"') and not _opens(cell) else cell


def _joined(where: str, line: str, lines: _Ahead, delimiter: str, width: int, options: ReadOptions) -> list[str]:
    """Returns the cells of a row of which one holds the delimiter or line ends."""
    part, opened, length = [line], line.count('"') % 2 == 1, 0
    while opened and lines.following is not None:
        end, line = next(lines)
        part.append(line)
        length += len(line)
        if length > longest_line(options):
            raise too_long(where, options)
        opened ^= line.count('"') % 2 == 1
        if opened and len(_cut(line, delimiter)) == width:
            raise UserError(f"{where}: {_unclosed(end)}")
    try:
        return next(csv.reader(part, delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise UserError(f"{where}: {_reason(error)}") from None


FORMAT = Format("csv", (".csv", ".tsv", ".tab"), blocks=read_blocks)
