"""What the kernels read of a batch, as tiles of logits and two weights, and where they write.

A program has some rows and a span of their labels, a tile at a time. Offsets of rows are 64-bit, those within a row
where `wide` says so.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl


class How(NamedTuple):
    """What is fixed when a kernel is compiled."""

    pool: str
    positive: str  # the curves by name, and their settings
    up: tuple[float, ...]
    negative: str
    down: tuple[float, ...]
    up_factor: float  # what the weights of a side are multiplied with; in `Pairs` its power, in `SideMeans` the margin
    down_factor: float
    smoothing: float
    rows: int  # of a tile: powers of 2
    labels: int
    span: int  # labels of a program
    wide: bool
    hard: bool  # of the two weights of a label one is 1 and the other 0
    known: bool  # every label is


class Batch(NamedTuple):
    """Tensors as (pointer, stride of rows, stride of labels); None where nothing is given."""

    logits: tuple[Any, int, int]
    targets: tuple[Any, int, int] | None
    sparse: tuple[Any, Any, Any] | None  # crow, col and values or None, of (1, L) or one row a tile
    mask: tuple[Any, int, int] | None
    weight: tuple[Any, int, int] | None
    pos_weight: tuple[Any, int, int] | None
    rows: int
    labels: int
    ignored: int | None


_ENTRIES = tl.constexpr(32)  # stored entries that are looked at together


@triton.jit
def _at(tensor, row, col):
    return tensor[0] + row * tensor[1] + col * tensor[2]


@triton.jit
def _listed(sparse, row, start, label, HOW: tl.constexpr):
    """Returns (1, C) targets of one row from its stored entries, 0 elsewhere, and whether there are any.

    Of a label that is listed twice the last counts.
    """
    listed = 0
    y = tl.full(label.shape, 0.0, tl.float32)
    end = tl.load(sparse[0] + row + 1)
    for first in range(tl.load(sparse[0] + row), end, _ENTRIES):
        entry = first + tl.arange(0, _ENTRIES)
        col = tl.load(sparse[1] + entry, mask=entry < end, other=0)
        here = (entry < end) & (col >= start) & (col < start + HOW.labels)
        count = tl.sum(here.to(tl.int32), 0)
        listed += count
        for _ in range(0, count):
            place = tl.min(tl.where(here, entry, end), 0)
            here = here & (entry > place)
            value = 1.0
            if sparse[2] is not None:
                value = tl.load(sparse[2] + place).to(tl.float32)
            y = tl.where(label == tl.load(sparse[1] + place), value, y)
    return y, listed > 0


@triton.jit
def _load(tensor, row, col, inside, EVEN: tl.constexpr):
    if EVEN:
        value = tl.load(_at(tensor, row, col))
    else:
        value = tl.load(_at(tensor, row, col), mask=inside, other=0)
    return value


@triton.jit
def _targets(batch, row, start, label, col, inside, HOW: tl.constexpr, EVEN: tl.constexpr):
    """Returns the targets of a tile, which of them are known, and whether any is positive, or may be."""
    known = inside
    if batch.sparse is not None:
        y, some = _listed(batch.sparse, tl.program_id(0), start, label, HOW)
        if batch.sparse[2] is not None:
            known = known & (y == y)
    else:
        raw = _load(batch.targets, row, col, inside, EVEN)
        if batch.ignored is not None:
            known = known & (raw != batch.ignored)
        if batch.targets[0].dtype.element_ty.is_floating():
            y = raw.to(tl.float32)
            known = known & (y == y)
        else:
            y = tl.where(raw != 0, 1.0, 0.0)
        some = True  # to find out would cost more than the curve of the positives, which shares most with the other
    if batch.mask is not None:
        known = known & (_load(batch.mask, row, col, inside, EVEN) != 0)
    return y, known, some


@triton.jit
def tile(batch, row, start, HOW: tl.constexpr, EVEN: tl.constexpr):
    """Returns logits and both weights of a tile, 0 where the label is unknown; and more about its labels.

    That is: what is known, whether any is positive, the columns, and what of the tile there is: all of it if EVEN.
    """
    label = start + tl.arange(0, HOW.labels)[None, :]
    inside = (row < batch.rows) & (label < batch.labels)
    col = label
    if HOW.wide:
        col = label.to(tl.int64)
    y, known, some = _targets(batch, row, start, label, col, inside, HOW, EVEN)
    z = _load(batch.logits, row, col, inside, EVEN).to(tl.float32)
    if not (EVEN and HOW.known):
        z = tl.where(known, z, 0.0)
    up = y
    if HOW.smoothing > 0:
        up = y * (1 - HOW.smoothing) + HOW.smoothing / 2
        some = True
    down = 1.0 - up
    if batch.pos_weight is not None:
        up = up * _load(batch.pos_weight, row, col, inside, EVEN)
    if batch.weight is not None:
        both = _load(batch.weight, row, col, inside, EVEN)
        up = up * both
        down = down * both
    if not (EVEN and HOW.known):
        up = tl.where(known, up, 0.0)
        down = tl.where(known, down, 0.0)
    return z, up, down, known, some, col, inside


@triton.jit
def own_rows(HOW: tl.constexpr):
    """Returns the (R, 1) numbers of the rows of this program."""
    return (tl.program_id(0).to(tl.int64) * HOW.rows + tl.arange(0, HOW.rows))[:, None]


@triton.jit
def own_span(batch, HOW: tl.constexpr):
    """Returns the labels of this program: where they start, up to where tiles are even, and where they end."""
    first = tl.program_id(1) * HOW.span
    last = tl.minimum(first + HOW.span, batch.labels)
    even = first
    if HOW.rows == 1:
        even = first + (last - first) // HOW.labels * HOW.labels
    return first, even, last


@triton.jit
def row_scale(upstream, row, here, scale):
    """Returns (R, 1) what the gradient of a row is multiplied with: `scale`, and what comes from above."""
    factor = tl.where(here, scale, 0.0)
    if upstream is not None:
        factor = factor * tl.load(upstream[0] + row * upstream[1], mask=here, other=0).to(tl.float32)
    return factor


@triton.jit
def store(gradient, row, col, slope, inside, EVEN: tl.constexpr):
    slope = slope.to(gradient[0].dtype.element_ty)
    if EVEN:
        tl.store(_at(gradient, row, col), slope)
    else:
        tl.store(_at(gradient, row, col), slope, mask=inside)
