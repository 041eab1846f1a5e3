"""Row loops over tiles for Triton. They know pools, and no curve.

A program has some rows and a span of their labels, a tile at a time. Offsets of rows are 64-bit, those within a row
where `wide` says so. All arithmetic is float32.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from lopsided.compute.triton.curves import evaluate
from lopsided.compute.triton.math import exp, log, sigmoid, softplus


class How(NamedTuple):
    """What is fixed when a kernel is compiled."""

    pool: str
    positive: str  # the curves by name, and their settings
    up: tuple[float, ...]
    negative: str
    down: tuple[float, ...]
    up_factor: float  # what the weights of a side are multiplied with; in `Pairs` its power
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


_EMPTY = tl.constexpr(-1e30)  # log 0, but finite: exp gives exactly 0 and no inf - inf arises
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
def _tile(batch, row, start, HOW: tl.constexpr, EVEN: tl.constexpr):
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
def _rows(HOW: tl.constexpr):
    """Returns the (R, 1) numbers of the rows of this program."""
    return (tl.program_id(0).to(tl.int64) * HOW.rows + tl.arange(0, HOW.rows))[:, None]


@triton.jit
def _span(batch, HOW: tl.constexpr):
    """Returns the labels of this program: where they start, up to where tiles are even, and where they end."""
    first = tl.program_id(1) * HOW.span
    last = tl.minimum(first + HOW.span, batch.labels)
    even = first
    if HOW.rows == 1:
        even = first + (last - first) // HOW.labels * HOW.labels
    return first, even, last


@triton.jit
def _scale(upstream, row, here, scale):
    """Returns (R, 1) what the gradient of a row is multiplied with: `scale`, and what comes from above."""
    factor = tl.where(here, scale, 0.0)
    if upstream is not None:
        factor = factor * tl.load(upstream[0] + row * upstream[1], mask=here, other=0).to(tl.float32)
    return factor


@triton.jit
def _store(gradient, row, col, slope, inside, EVEN: tl.constexpr):
    slope = slope.to(gradient[0].dtype.element_ty)
    if EVEN:
        tl.store(_at(gradient, row, col), slope)
    else:
        tl.store(_at(gradient, row, col), slope, mask=inside)


# ---- sum: one pass


@triton.jit
def _sum(batch, gradient, factor, row, start, HOW: tl.constexpr, EVEN: tl.constexpr):
    """Returns (R, C) what the labels of a tile cost; stores their gradient."""
    z, up, down, known, some, col, inside = _tile(batch, row, start, HOW, EVEN)
    cost, slope = evaluate(z, HOW.negative, HOW.down)
    if HOW.hard:
        cost, slope = cost * HOW.down_factor, slope * HOW.down_factor
        if some:
            above, rise = evaluate(z, HOW.positive, HOW.up)
            cost = tl.where(up > 0, above * HOW.up_factor, cost)
            slope = tl.where(up > 0, rise * HOW.up_factor, slope)
        if not (EVEN and HOW.known):
            cost = tl.where(known, cost, 0.0)
            slope = tl.where(known, slope, 0.0)
    else:
        down = down * HOW.down_factor
        cost = tl.where(down > 0, down * cost, 0.0)
        slope = tl.where(down > 0, down * slope, 0.0)
        if some:
            above, rise = evaluate(z, HOW.positive, HOW.up)
            up = up * HOW.up_factor
            cost += tl.where(up > 0, up * above, 0.0)
            slope += tl.where(up > 0, up * rise, 0.0)
    if gradient is not None:
        _store(gradient, row, col, slope * factor, inside, EVEN)
    return cost


@triton.jit
def sum_rows(batch, gradient, values, upstream, scale, HOW: tl.constexpr):
    """Stores the values of each row and span, (rows, spans), and the gradient."""
    row = _rows(HOW)
    here = row < batch.rows
    factor = _scale(upstream, row, here, scale)
    first, even, last = _span(batch, HOW)
    total = tl.full([HOW.rows, HOW.labels], 0.0, tl.float32)
    for start in range(first, even, HOW.labels):
        total += _sum(batch, gradient, factor, row, start, HOW, True)
    for start in range(even, last, HOW.labels):
        total += _sum(batch, gradient, factor, row, start, HOW, False)
    at = values + row * tl.num_programs(1) + tl.program_id(1)
    tl.store(at, tl.sum(total, 1)[:, None], mask=here)


# ---- pools of exponentials: a pass for the state of the rows, and one for the gradient


@triton.jit
def _sides(batch, row, start, HOW: tl.constexpr, EVEN: tl.constexpr):
    """Returns weight, value and slope of both sides of a tile; its columns, and what of it there is."""
    z, up, down, known, some, col, inside = _tile(batch, row, start, HOW, EVEN)
    if HOW.pool == "Softmax":
        down = tl.where(up + down > 0, 1.0, 0.0)  # one distribution over all that is known
    below, fall = evaluate(z, HOW.negative, HOW.down)
    above, rise = evaluate(z, HOW.positive, HOW.up)
    return up, above, rise, down, below, fall, col, inside


@triton.jit
def _join(value, weight, peak, total):
    """Joins a tile to one side of its rows: the peak, and the sum of weight exp(value - peak)."""
    top = tl.maximum(peak, tl.max(tl.where(weight > 0, value, _EMPTY), 1)[:, None])
    share = tl.where(weight > 0, weight * exp(value - top), 0.0)
    return top, total * exp(peak - top) + tl.sum(share, 1)[:, None]


@triton.jit
def _fold(state, batch, row, start, HOW: tl.constexpr, EVEN: tl.constexpr):
    """Returns a state, with a tile joined to it."""
    up_peak, up_sum, up_mass, dot, down_peak, down_sum, down_mass = state
    up, above, rise, down, below, fall, col, inside = _sides(batch, row, start, HOW, EVEN)
    up_peak, up_sum = _join(above, up, up_peak, up_sum)
    down_peak, down_sum = _join(below, down, down_peak, down_sum)
    if HOW.pool != "LogSumExp":
        up_mass += tl.sum(up, 1)[:, None]
        down_mass += tl.sum(down, 1)[:, None]
    if HOW.pool == "Softmax":
        dot += tl.sum(tl.where(up > 0, up * above, 0.0), 1)[:, None]
    return up_peak, up_sum, up_mass, dot, down_peak, down_sum, down_mass


@triton.jit
def fold_rows(batch, states, HOW: tl.constexpr):
    """Stores the state of each span, (spans, rows, 8).

    Of the positives it is the largest value v, the sum of weight exp(v - peak), of weights, and of weight v; then the
    same of the negatives. What a pool does not ask for is 0.
    """
    row = _rows(HOW)
    first, even, last = _span(batch, HOW)
    peak = tl.full([HOW.rows, 1], _EMPTY, tl.float32)
    none = tl.full([HOW.rows, 1], 0.0, tl.float32)
    state = peak, none, none, none, peak, none, none
    for start in range(first, even, HOW.labels):
        state = _fold(state, batch, row, start, HOW, True)
    for start in range(even, last, HOW.labels):
        state = _fold(state, batch, row, start, HOW, False)
    at, here = states + (tl.program_id(1).to(tl.int64) * batch.rows + row) * 8, row < batch.rows
    for place in tl.static_range(7):
        tl.store(at + place, state[place], mask=here)
    tl.store(at + 7, none, mask=here)


@triton.jit
def _finish(up_peak, up_sum, up_mass, dot, down_peak, down_sum, down_mass, HOW: tl.constexpr):
    """Computes the value of rows, and d value / d (weight exp(v - peak)) of both sides; of softmax's, d (weight v)."""
    ups = tl.where(up_sum == 0, _EMPTY, up_peak + log(up_sum))
    downs = tl.where(down_sum == 0, _EMPTY, down_peak + log(down_sum))
    if HOW.pool == "LogSumExp":
        value = softplus(ups) + softplus(downs)
        up_factor, down_factor = sigmoid(ups) / up_sum, sigmoid(downs) / down_sum
    elif HOW.pool == "Pairs":
        product = HOW.up_factor * ups + HOW.down_factor * downs
        value, slope = softplus(product), sigmoid(product)
        up_factor, down_factor = HOW.up_factor * slope / up_sum, HOW.down_factor * slope / down_sum
    elif HOW.pool == "MeanPairs":
        pairs = up_mass * down_mass
        value = tl.where(pairs > 0, exp(ups + downs) / pairs, 0.0 * (up_sum + down_sum))  # or NaN
        up_factor, down_factor = value / up_sum, value / down_sum
    else:
        value = tl.where(up_mass > 0, downs - dot / up_mass, 0.0)
        up_factor, down_factor = -1.0 / up_mass, tl.where(up_mass > 0, 1.0 / down_sum, 0.0)
        up_sum = up_mass
    return value, tl.where(up_sum == 0, 0.0, up_factor), tl.where(down_sum == 0, 0.0, down_factor)


@triton.jit
def _descend(batch, gradient, scale, row, start, up_peak, up_factor, down_peak, down_factor, HOW, EVEN: tl.constexpr):
    """Stores the gradient of a tile."""
    up, above, rise, down, below, fall, col, inside = _sides(batch, row, start, HOW, EVEN)
    rise, fall = rise * up_factor, fall * down_factor * exp(below - down_peak)
    if HOW.pool != "Softmax":
        rise = rise * exp(above - up_peak)
    slope = tl.where((up > 0) & (up_factor != 0), up * rise, 0.0)
    slope += tl.where((down > 0) & (down_factor != 0), down * fall, 0.0)
    _store(gradient, row, col, slope * scale, inside, EVEN)


@triton.jit
def finish_rows(batch, joined_states, gradient, values, upstream, scale, HOW: tl.constexpr):
    """Stores values and gradient, made from the joined states of the rows, (rows, 8)."""
    row = _rows(HOW)
    at, here = joined_states + row * 8, row < batch.rows
    up_peak, up_sum = tl.load(at, mask=here, other=0), tl.load(at + 1, mask=here, other=0)
    up_mass, dot = tl.load(at + 2, mask=here, other=0), tl.load(at + 3, mask=here, other=0)
    down_peak, down_sum = tl.load(at + 4, mask=here, other=0), tl.load(at + 5, mask=here, other=0)
    down_mass = tl.load(at + 6, mask=here, other=0)
    value, up, down = _finish(up_peak, up_sum, up_mass, dot, down_peak, down_sum, down_mass, HOW)
    tl.store(values + row, value, mask=here & (tl.program_id(1) == 0))
    if gradient is not None:
        factor = _scale(upstream, row, here, scale)
        first, even, last = _span(batch, HOW)
        for start in range(first, even, HOW.labels):
            _descend(batch, gradient, factor, row, start, up_peak, up, down_peak, down, HOW, True)
        for start in range(even, last, HOW.labels):
            _descend(batch, gradient, factor, row, start, up_peak, up, down_peak, down, HOW, False)


@triton.jit
def rescale(tensor, factor, size, BLOCK: tl.constexpr):
    """Multiplies by a factor, one number on the device. Where that is 1 nothing is read, and nobody waits for it."""
    number = tl.load(factor).to(tl.float32)
    if number != 1:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(tensor + at, mask=at < size).to(tl.float32) * number
        tl.store(tensor + at, value.to(tensor.dtype.element_ty), mask=at < size)
