"""Reads sparse features with label numbers: svmlight, and the extreme-classification repository's two formats.

    4880 1836 159                   rows, features, labels; this line tells the repository's format from svmlight
    18,87,135 44:1 55:0.5 84:1      a row: its labels, then its features, all numbered from 0
     7:1 12:0.25                    a row without labels begins with a space

The format in two files keeps features and labels apart; both begin with the numbers of rows and of columns:

    4880 1836
    44:1 55:0.5 84:1
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import torch

from lopsided.data.dataset import Dataset
from lopsided.data.formats.base import Format
from lopsided.data.inputs import Numbered, SparseFeatures
from lopsided.data.matrices import refuse_gaps
from lopsided.data.opening import STANDARD_INPUT, OnBytes, ignore, limited_lines, open_bytes, shown, without_gaps
from lopsided.data.options import DEFAULT, ReadOptions
from lopsided.data.storage import UserError
from lopsided.targets import SparseTargets

_LABEL = rb"\d+(?:\.0*)?"  # 3.0 is what scikit-learn's reader gives for 3
_PAIR = rb"\d+:[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_LABELLED = re.compile(rb"(%b(?:[ \t]*,[ \t]*%b)*)?((?:[ \t]+%b)*)" % (_LABEL, _LABEL, _PAIR))
_UNLABELLED = re.compile(rb"()((?:(?:^|[ \t]+)%b)*)" % _PAIR)
_MORE = re.compile(rb"(?:[ \t]+%b)*" % _PAIR)
_PART = re.compile(rb"[^ \t]*")
_BLANK = re.compile(rb"[^ \t,](?=[ \t]+[^ \t,])")  # after a label or a pair; none stands beside a comma
_LONGEST_LIST = 2**20  # bytes of the labels of a row
_AT_ONCE = 2**16  # bytes of a row that are matched; a match takes 200 times their memory
_HEADER = re.compile(rb"\s*(\d{1,18})[ \t]+(\d{1,18})(?:[ \t]+(\d{1,18}))?\s*")
_ROW_START = re.compile(rb"[\d., \t]*(?:^|[ \t])\d+:[-+.\d]\S*(?:\s*$|[ \t]+\d+:|[ \t]*#)")
_ENDINGS = (".svm", ".svmlight", ".libsvm")
_LONGEST_HEADER = 100
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLOCK = 2**22  # bytes parsed at once
_MOST = 2**31  # rows, features or labels: more would not fit into any memory
_HALF = "the half of the format in two files"


class Header(NamedTuple):
    """Holds what the first line of the repository's formats says; labels is None in the format in two files."""

    rows: int
    columns: int
    labels: int | None


class Rows(NamedTuple):
    """Holds parsed rows. lengths: (rows, 2), how many labels and features each has; then those of all rows."""

    lengths: np.ndarray
    label: np.ndarray
    feature: np.ndarray
    value: np.ndarray


def read(path: Path, options: ReadOptions, on_bytes: OnBytes = ignore) -> Dataset:
    """Reads a file with labels; without a header, the largest numbers tell how many features and labels there are.

    A label that stands twice in a row counts once. Raises UserError, with the line, for anything malformed: bad or
    infinite numbers, a feature twice in a row, counts that are not those of the header; and if hardly any label below
    the largest occurs. scikit-learn's svmlight reader is as fast, but does not tell the line.
    """
    file = _File(path, options, on_bytes, with_labels=True)
    rows = _joined(file.blocks())
    num_labels = file.header.labels if file.header else _one_more(rows.label)
    if num_labels is None:
        raise UserError(f"{path}: only features, {_HALF}; name that of the labels with --targets-file")
    refuse_gaps(path, num_labels, rows.label, "its header" if file.header else "the largest")
    targets = SparseTargets(_starts(rows.lengths[:, 0]), torch.from_numpy(rows.label), num_labels=num_labels)
    return Dataset(_features(rows, file.header), targets, Numbered(num_labels))


def read_inputs(path: Path, options: ReadOptions, on_bytes: OnBytes = ignore) -> Iterator[SparseFeatures]:
    """Yields the features of some thousand rows at a time. Labels may be there or not, and are not looked at."""
    file = _File(path, options, on_bytes)
    for rows in file.blocks():
        yield _features(rows, file.header)


def read_all_inputs(path: Path, options: ReadOptions, on_bytes: OnBytes = ignore) -> SparseFeatures:
    """Reads the same of all rows."""
    file = _File(path, options, on_bytes)
    return _features(_joined(file.blocks()), file.header)


def find_targets(path: Path, options: ReadOptions) -> Path | None:
    """Returns the file with the labels of the rows of this one; None where they stand in this one.

    In the format in two files its name has a Y for the X or Xf, as trainY.txt for trainX.txt, or lbl for ft.
    """
    header = None if path == STANDARD_INPUT else read_header(path)
    if header is None or header.labels is not None:
        return None
    for half in (*_renamed(path, "Y", "Xf"), *_renamed(path, "Y", "X"), *_renamed(path, "lbl", "ft")):
        if half.is_file():
            raise UserError(f"{path}: only labels, {_HALF}; give that of the features, {half}")
    targets = [*_renamed(path, "Xf?", "Y"), *_renamed(path, "ft", "lbl")]
    if not targets or not targets[0].is_file():
        searched = f"; there is no {targets[0]}" if targets else ""
        raise UserError(f"{path}: only features, {_HALF}; name that of the labels with --targets-file{searched}")
    return targets[0]


def _renamed(path: Path, old: str, new: str) -> list[Path]:
    """Returns the path with the last `old` of its name replaced that no letter follows; empty if there is none."""
    stem, dot, endings = path.name.partition(".")
    places = list(re.finditer(f"{old}(?![A-Za-z])", stem))
    return [path.with_name(stem[: i.start()] + new + stem[i.end() :] + dot + endings) for i in places[-1:]]


def read_targets(path: Path, options: ReadOptions = DEFAULT) -> SparseTargets:
    """Reads the file of labels of the format in two files."""
    file = _File(path, options, kind="label")
    rows = _joined(file.blocks())
    if file.header is None or file.header.labels is not None:
        raise UserError(f"{path}: expected a first line such as '4880 159', the numbers of rows and of labels")
    outside = (rows.value < 0) | (rows.value > 1)
    if outside.any():
        entry = int(outside.argmax())
        raise UserError(
            f"{path}, row {_row(rows.lengths[:, 1], entry) + 1}: the value of a label must be in 0 to 1, "
            f"got {rows.feature[entry]}:{rows.value[entry]:g}"
        )
    refuse_gaps(path, file.header.columns, rows.feature, "its header")
    values = None if (rows.value == 1).all() else torch.from_numpy(rows.value)
    return SparseTargets(_starts(rows.lengths[:, 1]), torch.from_numpy(rows.feature), values, file.header.columns)


def read_header(path: Path) -> Header | None:
    """Returns what the first line says; None for svmlight, which has no header."""
    with open_bytes(path) as file:
        return _header(file.readline(_LONGEST_HEADER))


def _header(line: bytes) -> Header | None:
    match = _HEADER.fullmatch(line)
    return Header(int(match[1]), int(match[2]), int(match[3]) if match[3] else None) if match else None


class _File:
    """Parses a file. header: known as soon as the first block is."""

    def __init__(
        self,
        path: Path,
        options: ReadOptions,
        on_bytes: OnBytes = ignore,
        with_labels: bool = False,
        kind: str = "feature",
    ) -> None:
        """with_labels: whether labels are read; else what stands before the features of a row is passed over."""
        self.path, self.options, self.on_bytes = path, options, on_bytes
        self.with_labels, self.kind = with_labels, kind
        self.header: Header | None = None
        self.lines = 0  # before the present block
        self.rows = 0

    def blocks(self) -> Iterator[Rows]:
        with open_bytes(self.path, self.options, self.on_bytes) as packed:
            rest = limited_lines(self.path, without_gaps(self.path, packed), self.options)
            first = next(rest, b"").removeprefix(_BYTE_ORDER_MARK)
            self.header = _header(first)
            if self.header:
                self.lines = 1
                largest = max(self.header.rows, self.header.columns, self.header.labels or 0)
                if largest > _MOST:
                    self._fail(1, f"{largest} in the header, but the most is {_MOST}")
            for lines in _in_blocks(rest if self.header else chain([first], rest)):
                yield self._block(lines)
        if not self.rows:
            raise UserError(f"{self.path}: no rows")
        if self.header and self.rows != self.header.rows:
            raise UserError(f"{self.path}: {self.rows} rows, but the header (line 1) says {self.header.rows}")

    def _block(self, lines: list[bytes]) -> Rows:
        labels: list[bytes] = []
        features: list[bytes] = []
        place: list[int] = []  # line number of each
        for number, line in enumerate(lines, self.lines + 1):
            text, of_labels, of_features = self._match(number, line)
            if not text.strip() and (self.header is None or self.rows + len(place) >= self.header.rows):
                continue  # with a header, a blank line before the last row is a row without anything
            labels.append(of_labels)
            features.append(of_features)
            place.append(number)
        self.lines += len(lines)
        self.rows += len(place)
        counts = [[len(i) and i.count(b",") + 1, j.count(b":")] for i, j in zip(labels, features, strict=True)]
        lengths = np.array(counts, dtype=np.int64).reshape(-1, 2)
        label = _numbers(b",".join(filter(None, labels)), " , ")
        feature, value = _numbers(b" ".join(filter(None, features)).replace(b":", b" "), " ").reshape(-1, 2).T
        limits = (self.header.columns, self.header.labels or 0) if self.header else (_MOST, _MOST)
        self._check_range(self.kind, feature, lengths[:, 1], limits[0], place)
        self._check_range("label", label, lengths[:, 0], limits[1], place)
        again = _repeated(feature, lengths[:, 1])
        if again.any():
            entry = int(again.argmax())
            row = place[_row(lengths[:, 1], entry)]
            self._fail(row, f"{self.kind} {feature[entry]:.0f} stands twice in the row")
        large = np.abs(value) > np.finfo(np.float32).max
        if large.any():
            entry = int(large.argmax())
            self._fail(place[_row(lengths[:, 1], entry)], f"the value {value[entry]:g} is too large for float32")
        once = ~_repeated(label, lengths[:, 0])
        lengths[:, 0] = np.bincount(_rows(lengths[:, 0])[once], minlength=len(lengths))
        return Rows(lengths, label[once].astype(np.int64), feature.astype(np.int64), value.astype(np.float32))

    def _check_range(self, kind: str, numbers: np.ndarray, lengths: np.ndarray, limit: int, place: list[int]) -> None:
        if (numbers >= limit).any():
            entry = int((numbers >= limit).argmax())
            bound = f"the header (line 1) says {limit}, numbered from 0" if self.header else f"the most is {limit - 1}"
            self._fail(place[_row(lengths, entry)], f"{kind} {numbers[entry]:.0f}, but {bound}")

    def _match(self, number: int, line: bytes) -> tuple[bytes, bytes, bytes]:
        """Returns a row without its comment, which svmlight alone has, its labels and its features."""
        for text in (line,) if self.header else (line, line.partition(b"#")[0]):
            parts = _matched(_LABELLED, text) if self._labelled else _matched(_UNLABELLED, self._without_labels(text))
            if parts:
                return text, *parts
        self._explain(number, line)

    @property
    def _labelled(self) -> bool:
        """Tells whether rows have labels that are read."""
        return self.with_labels and not (self.header and self.header.labels is None)

    def _without_labels(self, line: bytes) -> bytes:
        """Leaves out whatever stands before the first feature, unless the row begins with a blank."""
        before, colon, _ = line.partition(b":")
        if b"#" in before or not line[:1].strip() or (self.header and self.header.labels is None):
            return line
        return line[1 + max(before.rfind(b" "), before.rfind(b"\t")) :] if colon else b""

    def _explain(self, number: int, line: bytes) -> NoReturn:
        """Raises the error that says which part of a row is wrong."""
        text = line.rstrip() if self._labelled else self._without_labels(line).rstrip()
        labels = _PART.match(text)[0] if self._labelled else b""  # type: ignore[index]
        if len(labels) > _LONGEST_LIST:
            self._fail(number, f"{len(labels)} bytes without a blank; is it a file of sparse rows?")
        if not re.fullmatch(rb"(%b(,%b)*)?" % (_LABEL, _LABEL), labels):
            hint = "; a row without labels begins with a space" if b":" in labels else ""
            self._fail(number, f"expected labels such as 3,17, got {_quoted(labels)}{hint}")
        for part in filter(None, (match[0] for match in _PART.finditer(text, len(labels)))):
            if not re.fullmatch(_PAIR, part):
                hint = "; labels are cut by commas" if labels and re.fullmatch(_LABEL, part) else ""
                self._fail(number, f"expected a {self.kind} and its value such as 12:0.5, got {_quoted(part)}{hint}")
        self._fail(number, f"expected a row such as 3,17 12:0.5, got {_quoted(line)}")

    def _fail(self, line: int, problem: str) -> NoReturn:
        raise UserError(f"{self.path}, line {line}: {problem}")


def _in_blocks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    block, size = [], 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _matched(pattern: re.Pattern[bytes], line: bytes) -> tuple[bytes, bytes] | None:
    """Returns the labels and the features of a row, None if it is none; a long one is matched piece by piece."""
    text = line.rstrip()
    end = _end_of_piece(text, 0)
    match = pattern.fullmatch(text, 0, end) if end <= _LONGEST_LIST else None
    while match and end < len(text):
        start, end = end, _end_of_piece(text, end)
        if not _MORE.fullmatch(text, start, end):
            return None
    return (match[1] or b"", text[match.start(2) :]) if match else None


def _end_of_piece(text: bytes, start: int) -> int:
    """Returns where a blank begins, or the end."""
    if len(text) - start <= _AT_ONCE:
        return len(text)
    blank = _BLANK.search(text, start + _AT_ONCE)
    return blank.start() + 1 if blank else len(text)


def _joined(blocks: Iterator[Rows]) -> Rows:
    parts = [list(column) for column in zip(*blocks, strict=True)]
    columns = []
    while parts:  # from the last on, so that the memory of each is free before the next is joined
        columns.append(np.concatenate(parts.pop()))
    return Rows(*reversed(columns))


def _features(rows: Rows, header: Header | None) -> SparseFeatures:
    return SparseFeatures(
        _starts(rows.lengths[:, 1]),
        torch.from_numpy(rows.feature),
        torch.from_numpy(rows.value),
        header.columns if header else _one_more(rows.feature),
        declared=header is not None,
    )


def _starts(lengths: np.ndarray) -> torch.Tensor:
    """Returns where each row begins, and where the last one ends."""
    return torch.from_numpy(np.pad(lengths.cumsum(), (1, 0)))


def _one_more(numbers: np.ndarray) -> int:
    return int(numbers.max()) + 1 if len(numbers) else 0


def _rows(lengths: np.ndarray) -> np.ndarray:
    """Returns the row of each entry."""
    return np.repeat(np.arange(len(lengths)), lengths)


def _row(lengths: np.ndarray, entry: int) -> int:
    """Returns the row that owns an entry."""
    return int(np.searchsorted(lengths.cumsum(), entry, side="right"))


def _repeated(numbers: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Tells of each entry whether its number stands before it in the same row."""
    row = _rows(lengths)
    order = np.lexsort((numbers, row))
    repeated = np.zeros(len(numbers), dtype=bool)
    repeated[order[1:]] = (np.diff(row[order]) == 0) & (np.diff(numbers[order]) == 0)
    return repeated


def _numbers(text: bytes, separator: str) -> np.ndarray:
    """Returns (n,) float64, exact for whole numbers up to 2^53."""
    return np.fromstring(text, sep=separator) if text else np.empty(0)


def _quoted(part: bytes) -> str:
    return shown(part.decode(errors="replace"))


def recognizes(path: Path, start: bytes) -> bool:
    """Tells such a file by its ending, its header, or a row among the first ones."""
    first, *others = start.removeprefix(_BYTE_ORDER_MARK).split(b"\n")[:20]
    named = any(ending.lower() in _ENDINGS for ending in path.suffixes)
    return named or _header(first) is not None or any(_ROW_START.match(line) for line in (first, *others))


FORMAT = Format(
    "svmlight",
    (*_ENDINGS, ".txt"),
    recognizes,
    read=read,
    read_inputs=read_inputs,
    read_all_inputs=read_all_inputs,
    find_targets=find_targets,
)
