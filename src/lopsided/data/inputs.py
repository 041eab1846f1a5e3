"""Defines the inputs of a model: rows of one kind. What is above the encoders never asks which kind."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from typing_extensions import Self

Excerpt = str | bytes  # what a report shows of a row: a text, or a PNG
_BLOCK = 2**14  # rows whose content is laid out at once for their keys
_EXCERPT_COLUMNS = 8


class Inputs(Protocol):
    """Holds rows of one kind, in memory or read when they are needed."""

    kind: ClassVar[str]

    def __len__(self) -> int: ...

    def take(self, rows: Tensor) -> Self:
        """Returns some of the rows, by (n,) int64 number."""
        ...

    def excerpt(self, row: int) -> Excerpt:
        """Returns what a person sees of a row; "" where there is nothing to see."""
        ...

    def keys(self) -> Iterator[bytes]:
        """Yields a key for each row; rows with the same content have the same key."""
        ...


@dataclass(frozen=True)
class Texts:
    """Holds one text a row.

    >>> Texts(("Good  day", "good day")).take(torch.tensor([1])).texts
    ('good day',)
    """

    kind: ClassVar[str] = "text"
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Tensor) -> Texts:
        return Texts(tuple(self.texts[row] for row in rows.tolist()))

    def excerpt(self, row: int) -> Excerpt:
        return self.texts[row]

    def keys(self) -> Iterator[bytes]:
        """Yields keys that do not see case, white space, or how Unicode writes an accent."""
        for text in self.texts:
            same = " ".join(unicodedata.normalize("NFC", text).casefold().split())
            yield digest(same.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class SparseFeatures:
    """Holds rows of sparse features, as compressed sparse rows (CSR).

    indptr: (rows + 1,) int64; row i owns the entries indptr[i] to indptr[i + 1] of indices and values.
    indices: (entries,) int64 feature numbers, each once a row. values: (entries,) float32, finite.
    declared: whether the file says the number of features; else it is the largest number that stands there, plus 1.
    """

    kind: ClassVar[str] = "sparse"
    indptr: Tensor
    indices: Tensor
    values: Tensor
    num_features: int
    declared: bool = False

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def take(self, rows: Tensor) -> SparseFeatures:
        indptr, entries = csr_entries(self.indptr, rows)
        return replace(self, indptr=indptr, indices=self.indices[entries], values=self.values[entries])

    def only(self, kept: Tensor) -> SparseFeatures:
        """Returns the rows with some features alone, (F,) int64, rising, which are numbered anew."""
        place = torch.searchsorted(kept, self.indices).clamp(max=len(kept) - 1)
        known = kept[place] == self.indices
        indptr = pad(known.cumsum(0), (1, 0))[self.indptr]
        return SparseFeatures(indptr, place[known], self.values[known], len(kept), declared=True)

    def excerpt(self, row: int) -> Excerpt:
        entries = slice(*self.indptr[row : row + 2].tolist())
        pairs = zip(self.indices[entries].tolist(), self.values[entries].tolist(), strict=True)
        return " ".join(f"{index}:{value:g}" for index, value in pairs)

    def keys(self) -> Iterator[bytes]:
        """Yields keys that do not see zeros, nor the order of the entries."""
        indptr, indices, values = self.indptr.numpy(), self.indices.numpy(), self.values.numpy()
        for first in range(0, len(self), _BLOCK):
            begin = indptr[first : first + _BLOCK + 1]
            part = slice(begin[0], begin[-1])
            row = np.repeat(np.arange(len(begin) - 1), np.diff(begin))
            order = np.lexsort((indices[part], row))
            order = order[values[part][order] != 0]
            entries = np.rec.fromarrays((indices[part][order], values[part][order]))
            ends = np.bincount(row[order], minlength=len(begin) - 1).cumsum() * entries.itemsize
            yield from _digests(entries.tobytes(), ends)


@dataclass(frozen=True)
class Table:
    """Holds columns of numbers and of categories; an embedding that was made elsewhere is a table of numbers.

    numbers: (rows, D) float32, NaN where a cell is empty. number_names: D names.
    categories: (rows, C) int64, -1 where a cell is empty. category_names: C names. category_values: for each, the texts
    that its codes stand for.
    """

    kind: ClassVar[str] = "table"
    numbers: Tensor
    number_names: Sequence[str]
    categories: Tensor
    category_names: tuple[str, ...] = ()
    category_values: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of_numbers(cls, numbers: Tensor, names: Sequence[str] | None = None) -> Table:
        """Makes a table of (rows, D) numbers alone."""
        names = Numbered(numbers.shape[1]) if names is None else names
        return cls(numbers, names, torch.zeros(len(numbers), 0, dtype=torch.long))

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: Tensor) -> Table:
        return replace(self, numbers=self.numbers[rows], categories=self.categories[rows])

    def excerpt(self, row: int) -> str:
        return ", ".join(islice(self._cells(row), _EXCERPT_COLUMNS))

    def _cells(self, row: int) -> Iterator[str]:
        """Yields the cells that are not empty, with the names of their columns: numbers, then categories."""
        for name, value in zip(self.number_names, self.numbers[row].tolist(), strict=True):
            if value == value:  # not NaN
                yield f"{name} {value:.4g}"
        for name, values, code in zip(
            self.category_names, self.category_values, self.categories[row].tolist(), strict=True
        ):
            if code >= 0:
                yield f"{name} {values[code]}"

    def keys(self) -> Iterator[bytes]:
        """Yields keys that see the text of a category, which has another code in another file."""
        numbers, categories = self.numbers.numpy(), self.categories.numpy()
        meanings = [
            np.frombuffer(b"".join([digest(value.encode()) for value in [*values, ""]]), "V16")
            for values in self.category_values
        ]
        for first in range(0, len(self), _BLOCK):
            rows = slice(first, first + _BLOCK)
            same = np.where(np.isnan(numbers[rows]), np.float32("nan"), numbers[rows] + np.float32(0))  # -0.0 is 0.0
            columns = [same, *(meaning[categories[rows, [c]]] for c, meaning in enumerate(meanings))]
            cells = np.concatenate([np.ascontiguousarray(column).view(np.uint8) for column in columns], axis=1)
            yield from _digests(cells.tobytes(), np.arange(1, len(cells) + 1) * cells.shape[1])


@dataclass(frozen=True)
class Images:
    """Holds images in memory: (rows, channels, height, width) uint8."""

    kind: ClassVar[str] = "image"
    pixels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: Tensor) -> Images:
        return Images(self.pixels[rows])

    def excerpt(self, row: int) -> Excerpt:
        return as_png(self.pixels[row])

    def keys(self) -> Iterator[bytes]:
        return (digest(image.numpy()) for image in self.pixels)


class Numbered(Sequence[str]):
    """Holds the names "0" to "n - 1" without storing them.

    >>> Numbered(3)[1], list(Numbered(3)[1:])
    ('1', ['1', '2'])
    """

    def __init__(self, number: int) -> None:
        self._range = range(number)

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        return list(map(str, self._range[place])) if isinstance(place, slice) else str(self._range[place])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Numbered) and self._range == other._range

    def __hash__(self) -> int:
        return hash(self._range)


def csr_entries(indptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns where the chosen rows begin among their own entries, (n + 1,), and where those entries stand."""
    start, length = indptr[rows], indptr[rows + 1] - indptr[rows]
    begin = pad(length.cumsum(0), (1, 0))
    shift = torch.repeat_interleave(start - begin[:-1], length)
    return begin, shift + torch.arange(len(shift))


def digest(*parts: object) -> bytes:
    """Returns 16 bytes that stand for the content of buffers."""
    key = hashlib.blake2b(digest_size=16)
    for part in parts:
        key.update(part)  # type: ignore[arg-type]
    return key.digest()


def _digests(content: bytes, ends: np.ndarray) -> Iterator[bytes]:
    """Yields a digest for each stretch of bytes; the first begins at 0, each other one where the last one ends."""
    view = memoryview(content)
    return (digest(view[begin:end]) for begin, end in pairwise([0, *ends.tolist()]))


def as_png(pixels: Tensor) -> bytes:
    """Encodes (channels, height, width) uint8 pixels, of one channel or three."""
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()
