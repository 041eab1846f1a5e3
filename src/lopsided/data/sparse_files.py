"""Reads sparse features and label numbers from the extreme-classification repository's format and from svmlight.

4880 1836 159                   rows, features, labels; this line tells the first format from svmlight, which has none
18,87,135 44:1 55:0.5 84:1      a row: its labels, then its features, all numbered from 0
 7:1 12:0.25                    a row without labels begins with a space
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import torch
from torch import Tensor

from lopsided.data.storage import UserError
from lopsided.targets import SparseTargets

_NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_ROW = re.compile(rb"(\d+(?:,\d+)*)?((?:[ \t]+\d+:" + _NUMBER + rb")*)\s*")
_HEADER = re.compile(rb"\s*(\d{1,18})[ \t]+(\d{1,18})[ \t]+(\d{1,18})\s*")
_BLOCK = 2**24  # bytes parsed at once
_MOST = 2**31  # rows, features or labels: more would not fit into any memory


@dataclass(frozen=True)
class SparseRows:
    """Holds rows of sparse features with their labels, both as compressed sparse rows.

    indptr: (rows + 1,) int64; row i owns the entries indptr[i] to indptr[i + 1] of indices and values.
    indices: (entries,) int64 feature numbers, each once a row. values: (entries,) float32, finite.
    labels: crow (rows + 1,) and col int64, each label once a row.

    >>> rows = SparseRows(
    ...     torch.tensor([0, 2, 3]), torch.tensor([4, 1, 3]), torch.tensor([3.0, 4.0, 1.0]), num_features=5,
    ...     labels=SparseTargets(torch.tensor([0, 1, 1]), torch.tensor([2]), num_labels=3),
    ... )  # fmt: skip
    >>> (indices, offsets, weights), labels = rows.unit_length().batch(torch.tensor([1, 0]))
    >>> indices, offsets, weights
    (tensor([3, 4, 1]), tensor([0, 1]), tensor([1.0000, 0.6000, 0.8000]))
    >>> labels.crow
    tensor([0, 0, 1])
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    num_features: int
    labels: SparseTargets
    declared: bool = False  # do the numbers of features and labels come from a header?

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_labels(self) -> int:
        assert self.labels.num_labels is not None
        return self.labels.num_labels

    def label_counts(self) -> Tensor:
        """Counts, (num_labels,) int64, the rows with each label."""
        return torch.bincount(self.labels.col, minlength=self.num_labels)

    def unit_length(self) -> SparseRows:
        """Returns the same with every row scaled to unit Euclidean length; a row of zeros stays as it is."""
        row = torch.repeat_interleave(self.indptr.diff())
        squares = torch.zeros(len(self), dtype=torch.float64).index_add_(0, row, self.values.double().square())
        scale = torch.where(squares > 0, squares.rsqrt(), 1.0)
        return replace(self, values=(self.values * scale[row]).float())

    def batch(self, rows: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], SparseTargets]:
        """Returns (indices, offsets, per_sample_weights) of an `nn.EmbeddingBag`, and labels, of (n,) row numbers."""
        indptr, entries = _entries(self.indptr, rows)
        crow, listed = _entries(self.labels.crow, rows)
        labels = SparseTargets(crow, self.labels.col[listed], num_labels=self.num_labels)
        return (self.indices[entries], indptr[:-1], self.values[entries]), labels

    def take(self, rows: Tensor) -> SparseRows:
        """Returns some of the rows, by (n,) number."""
        (indices, offsets, values), labels = self.batch(rows)
        indptr = torch.cat([offsets, torch.tensor([len(indices)])])
        return SparseRows(indptr, indices, values, self.num_features, labels)

    def fitted_to(self, num_features: int, num_labels: int) -> SparseRows:
        """Returns the same for a model with that many features and labels.

        Without a header, rows of validation or test may have features that no training row had: they are left out,
        and labels that none had stay, which no model can find. A header must say what that of the training rows said.
        """
        if self.declared:
            sizes = (self.num_features, self.num_labels)
            if sizes != (num_features, num_labels):
                raise ValueError(
                    f"its header says {sizes[0]} features and {sizes[1]} labels, but the training rows have "
                    f"{num_features} and {num_labels}"
                )
            return self
        known = self.indices < num_features
        indptr = torch.nn.functional.pad(known.cumsum(0), (1, 0))[self.indptr]
        labels = replace(self.labels, num_labels=max(num_labels, self.num_labels))
        return SparseRows(indptr, self.indices[known], self.values[known], num_features, labels)


def _entries(indptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns where the chosen rows begin among their own entries, (n + 1,), and where those entries stand."""
    start, length = indptr[rows], indptr[rows + 1] - indptr[rows]
    begin = torch.nn.functional.pad(length.cumsum(0), (1, 0))
    shift = torch.repeat_interleave(start - begin[:-1], length)
    return begin, shift + torch.arange(len(shift))


def read_sparse(path: Path, on_bytes: Callable[[int], None] = lambda count: None) -> SparseRows:
    """Reads a file of either format; without a header, the largest numbers tell how many features and labels there are.

    `on_bytes` is told after every block how many bytes were read. Raises UserError, with the line, for anything
    malformed: bad or infinite numbers, a label or feature twice in a row, counts that are not those of the header.
    scikit-learn's svmlight reader is as fast, but does not tell the line.
    """
    try:
        with path.open("rb") as file:
            return _Reader(path, on_bytes).read(file)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


class _Reader:
    def __init__(self, path: Path, on_bytes: Callable[[int], None]) -> None:
        self.path = path
        self.on_bytes = on_bytes
        self.header: tuple[int, int, int] | None = None
        self.lines = 0  # before the present block
        self.rows = 0
        self.lengths: list[np.ndarray] = []  # (rows of a block, 2): labels and features of each row
        self.parts: dict[str, list[np.ndarray]] = {"label": [], "feature": [], "value": []}

    def read(self, file: BinaryIO) -> SparseRows:
        first = file.readline()
        header = _HEADER.fullmatch(first)
        if header:
            self.header = (int(header[1]), int(header[2]), int(header[3]))
            self.lines = 1
            if max(self.header) > _MOST:
                self._fail(1, f"{max(self.header)} in the header, but the most is {_MOST}")
        else:
            file.seek(0)
        while lines := file.readlines(_BLOCK):
            self._block(lines)
            self.on_bytes(sum(map(len, lines)))
        if not self.rows:
            raise UserError(f"{self.path}: no rows")
        if self.header and self.rows != self.header[0]:
            raise UserError(f"{self.path}: {self.rows} rows, but the header (line 1) says {self.header[0]}")
        return self._joined()

    def _joined(self) -> SparseRows:
        lengths = np.concatenate(self.lengths)
        crow, indptr = np.pad(lengths.cumsum(0), ((1, 0), (0, 0))).T.copy()
        label, feature, value = (torch.from_numpy(np.concatenate(self.parts.pop(name))) for name in list(self.parts))
        sizes = [int(numbers.max()) + 1 if len(numbers) else 0 for numbers in (feature, label)]
        num_features, num_labels = self.header[1:] if self.header else sizes
        labels = SparseTargets(torch.from_numpy(crow), label, num_labels=num_labels)
        return SparseRows(torch.from_numpy(indptr), feature, value, num_features, labels, self.header is not None)

    def _block(self, lines: list[bytes]) -> None:
        labels: list[bytes] = []
        features: list[bytes] = []
        place: list[int] = []  # line number of each
        for number, line in enumerate(lines, self.lines + 1):
            match = _ROW.fullmatch(line) or self._second_look(number, line)
            if not match[0].strip() and (self.header is None or self.rows + len(place) >= self.header[0]):
                continue  # with a header, a blank line before the last row is a row without anything
            labels.append(match[1] or b"")
            features.append(match[2])
            place.append(number)
        self.lines += len(lines)
        self.rows += len(place)
        counts = [[len(i) and i.count(b",") + 1, j.count(b":")] for i, j in zip(labels, features, strict=True)]
        lengths = np.array(counts, dtype=np.int64).reshape(-1, 2)
        label = _numbers(b",".join(filter(None, labels)), ",")
        feature, value = _numbers(b"".join(features).replace(b":", b" "), " ").reshape(-1, 2).T
        limits = self.header[1:] if self.header else (_MOST, _MOST)
        self._check("feature", feature, lengths[:, 1], limits[0], place)
        self._check("label", label, lengths[:, 0], limits[1], place)
        large = np.abs(value) > np.finfo(np.float32).max
        if large.any():
            entry = int(large.argmax())
            self._fail(place[_row(lengths[:, 1], entry)], f"the value {value[entry]:g} is too large for float32")
        self.lengths.append(lengths)
        self.parts["label"].append(label.astype(np.int64))
        self.parts["feature"].append(feature.astype(np.int64))
        self.parts["value"].append(value.astype(np.float32))

    def _check(self, kind: str, numbers: np.ndarray, lengths: np.ndarray, limit: int, place: list[int]) -> None:
        """Checks that numbers are below the limit, and none comes twice in a row."""
        if (numbers >= limit).any():
            entry = int((numbers >= limit).argmax())
            bound = f"the header (line 1) says {limit}, numbered from 0" if self.header else f"the most is {limit - 1}"
            self._fail(place[_row(lengths, entry)], f"{kind} {numbers[entry]:.0f}, but {bound}")
        row = np.repeat(np.arange(len(lengths)), lengths)
        order = np.lexsort((numbers, row))
        same = (np.diff(row[order]) == 0) & (np.diff(numbers[order]) == 0)
        if same.any():
            entry = order[int(same.argmax())]
            self._fail(place[row[entry]], f"{kind} {numbers[entry]:.0f} stands twice in the row")

    def _second_look(self, number: int, line: bytes) -> re.Match[bytes]:
        """Returns a row that has a svmlight comment; or the error that says which part of it is wrong."""
        match = None if self.header else _ROW.fullmatch(line.partition(b"#")[0])
        if match:
            return match
        labels, *features = re.split(rb"[ \t]+", line.rstrip())
        if not re.fullmatch(rb"(\d+(,\d+)*)?", labels):
            hint = "; a row without labels begins with a space" if b":" in labels else ""
            self._fail(number, f"expected labels such as 3,17, got {_shown(labels)}{hint}")
        for part in features:
            if not re.fullmatch(rb"\d+:" + _NUMBER, part):
                self._fail(number, f"expected a feature and its value such as 12:0.5, got {_shown(part)}")
        raise AssertionError(f"line {number} is neither right nor wrong")

    def _fail(self, line: int, problem: str) -> NoReturn:
        raise UserError(f"{self.path}, line {line}: {problem}")


def _numbers(text: bytes, separator: str) -> np.ndarray:
    """Returns (n,) float64, exact for whole numbers up to 2^53."""
    return np.fromstring(text, sep=separator) if text else np.empty(0)


def _row(lengths: np.ndarray, entry: int) -> int:
    """Returns the row that owns an entry."""
    return int(np.searchsorted(lengths.cumsum(), entry, side="right"))


def _shown(part: bytes) -> str:
    return repr(part[:40].decode(errors="replace"))
