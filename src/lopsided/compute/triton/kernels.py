"""Row loops over tiles for Triton. They know pools, and no curve. All arithmetic is float32."""

import triton
import triton.language as tl

from lopsided.compute.triton.curves import evaluate
from lopsided.compute.triton.math import exp, log, maximum, minimum, sigmoid, softplus
from lopsided.compute.triton.memory import Batch as Batch
from lopsided.compute.triton.memory import How as How
from lopsided.compute.triton.memory import own_rows, own_span, row_scale, store, tile

_EMPTY = tl.constexpr(-1e30)  # log 0, but finite: exp gives exactly 0 and no inf - inf arises
_MOST = tl.constexpr(3.4028234663852886e38)  # the largest number
_SCALED = tl.constexpr(2.0**-32)  # in sums of values, which then do not overflow


# ---- sum: one pass


@triton.jit
def _sum(batch, gradient, factor, row, start, HOW: tl.constexpr, EVEN: tl.constexpr):
    """Returns (R, C) what the labels of a tile cost; stores their gradient."""
    z, up, down, known, some, col, inside = tile(batch, row, start, HOW, EVEN)
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
        store(gradient, row, col, slope * factor, inside, EVEN)
    return cost


@triton.jit
def sum_rows(batch, gradient, values, upstream, scale, HOW: tl.constexpr):
    """Stores the values of each row and span, (rows, spans), and the gradient."""
    row = own_rows(HOW)
    here = row < batch.rows
    factor = row_scale(upstream, row, here, scale)
    first, even, last = own_span(batch, HOW)
    total = tl.full([HOW.rows, HOW.labels], 0.0, tl.float32)
    for start in range(first, even, HOW.labels):
        total += _sum(batch, gradient, factor, row, start, HOW, True)
    for start in range(even, last, HOW.labels):
        total += _sum(batch, gradient, factor, row, start, HOW, False)
    at = values + row * tl.num_programs(1) + tl.program_id(1)
    tl.store(at, tl.sum(total, 1)[:, None], mask=here)


# ---- pools that are no sums: a pass for the state of the rows, or two, and one for the gradient


@triton.jit
def _confined(x):
    """Puts the largest numbers in the place of infinities, of which a difference is 0."""
    return minimum(maximum(x, -_MOST), _MOST)


@triton.jit
def _sides(batch, row, start, HOW: tl.constexpr, EVEN: tl.constexpr):
    """Returns weight, value and slope of both sides of a tile; its logits and columns, and what of it there is."""
    z, up, down, known, some, col, inside = tile(batch, row, start, HOW, EVEN)
    if HOW.pool == "Softmax":
        down = tl.where(up + down > 0, 1.0, 0.0)  # one distribution over all that is known
    below, fall = evaluate(z, HOW.negative, HOW.down)
    above, rise = evaluate(z, HOW.positive, HOW.up)
    if HOW.pool == "ThresholdSoftmax":  # its positives are folded with the opposite sign
        above, rise, below = _confined(-above), -rise, _confined(below)
    return up, above, rise, down, below, fall, z, col, inside


@triton.jit
def _join(value, weight, peak, total):
    """Joins a tile to one side of its rows: the peak, and the sum of weight exp(value - peak)."""
    top = tl.maximum(peak, tl.max(tl.where(weight > 0, value, _EMPTY), 1)[:, None])
    share = tl.where(weight > 0, weight * exp(value - top), 0.0)
    return top, total * exp(peak - top) + tl.sum(share, 1)[:, None]


@triton.jit
def _reach(value, HOW: tl.constexpr):
    """Returns how far a label reaches beyond the margin, 1 where there is none: what it weighs more in a mean."""
    reach = tl.full(value.shape, 1.0, tl.float32)
    if HOW.up_factor < _MOST:
        reach = minimum(maximum(value + HOW.up_factor, 0.0), _MOST)
    return reach


@triton.jit
def _join_mean(value, weight, peak, total, dot, HOW: tl.constexpr):
    """Joins a tile to one side of its rows: the largest reach, and relative to it the sums of what labels weigh."""
    reach = _reach(value, HOW)
    top = tl.maximum(peak, tl.max(tl.where(weight > 0, reach, 0.0), 1)[:, None])
    divisor = tl.where(top == 0, 1.0, top)
    weighs = tl.where(weight > 0, weight * (reach / divisor), 0.0)
    cost = tl.where(weight > 0, softplus(value) * _SCALED, 0.0)
    older = peak / divisor
    return top, total * older + tl.sum(weighs, 1)[:, None], dot * older + tl.sum(weighs * cost, 1)[:, None]


@triton.jit
def _fold(state, batch, row, start, HOW: tl.constexpr, EVEN: tl.constexpr):
    """Returns a state, with a tile joined to it."""
    up_peak, up_sum, up_mass, up_dot, down_peak, down_sum, down_mass, down_dot = state
    up, above, rise, down, below, fall, z, col, inside = _sides(batch, row, start, HOW, EVEN)
    if HOW.pool == "NoneClass":
        y = tl.where(up > 0, up / (up + down), 0.0)
        cost = tl.where(up > 0, up * above, 0.0) + tl.where(down > 0, down * below, 0.0)
        up_peak, up_dot = tl.maximum(up_peak, tl.max(y, 1)[:, None]), up_dot + tl.sum(cost, 1)[:, None]
        down_mass += tl.sum(tl.where(up + down > 0, 1.0, 0.0), 1)[:, None]
        down_dot += tl.sum(tl.where(up + down > 0, z * _SCALED, 0.0), 1)[:, None]
    elif HOW.pool == "SideMeans":
        up_peak, up_sum, up_dot = _join_mean(above, up, up_peak, up_sum, up_dot, HOW)
        down_peak, down_sum, down_dot = _join_mean(below, down, down_peak, down_sum, down_dot, HOW)
    else:
        if HOW.pool != "DecoupledSoftmax":
            up_peak, up_sum = _join(above, up, up_peak, up_sum)
        down_peak, down_sum = _join(below, down, down_peak, down_sum)
    if HOW.pool != "LogSumExp" and HOW.pool != "SideMeans" and HOW.pool != "NoneClass":
        up_mass += tl.sum(up, 1)[:, None]
        down_mass += tl.sum(down, 1)[:, None]
    if HOW.pool == "Softmax" or HOW.pool == "ThresholdSoftmax":
        up_dot += tl.sum(tl.where(up > 0, up * (above * _SCALED), 0.0), 1)[:, None]
    return up_peak, up_sum, up_mass, up_dot, down_peak, down_sum, down_mass, down_dot


@triton.jit
def _against(value, down_peak, down_sum):
    """Returns the logits of positives of which each is in a softmax with the negatives of its row alone."""
    return (value + down_peak) + tl.where(down_sum == 0, 0.0, log(down_sum))


@triton.jit
def _fold_again(state, joined, batch, row, start, HOW: tl.constexpr, EVEN: tl.constexpr):
    """Does the same where the joined state is known: of positives the sum of weight times share, and times cost."""
    up_peak, up_sum, up_mass, up_dot, down_peak, down_sum, down_mass, down_dot = state
    up, above, rise, down, below, fall, z, col, inside = _sides(batch, row, start, HOW, EVEN)
    missed = _against(above, joined[4], joined[5])
    up_sum += tl.sum(tl.where(up > 0, up * sigmoid(missed), 0.0), 1)[:, None]
    up_dot += tl.sum(tl.where(up > 0, up * (softplus(missed) * _SCALED), 0.0), 1)[:, None]
    return up_peak, up_sum, up_mass, up_dot, down_peak, down_sum, down_mass, down_dot


@triton.jit
def _load_state(states, row, here):
    at = states + row * 8
    up = tl.load(at, mask=here, other=0), tl.load(at + 1, mask=here, other=0)
    up_sums = tl.load(at + 2, mask=here, other=0), tl.load(at + 3, mask=here, other=0)
    down = tl.load(at + 4, mask=here, other=0), tl.load(at + 5, mask=here, other=0)
    down_sums = tl.load(at + 6, mask=here, other=0), tl.load(at + 7, mask=here, other=0)
    return up[0], up[1], up_sums[0], up_sums[1], down[0], down[1], down_sums[0], down_sums[1]


@triton.jit
def fold_rows(batch, joined_states, states, HOW: tl.constexpr):
    """Stores the state of each span, (spans, rows, 8); with joined states, the sums of a staged pool that need them.

    Of the positives it is the largest value v, the sum of weight exp(v - peak), of weights, and of weight v; then the
    same of the negatives. What a pool does not ask for is 0. Of means the peak is the largest reach. With a none class
    it is the largest y; the last number is the cost of all labels, that of the negatives the sum of their logits.
    """
    row = own_rows(HOW)
    here = row < batch.rows
    first, even, last = own_span(batch, HOW)
    none = tl.full([HOW.rows, 1], 0.0, tl.float32)
    peak = none
    if HOW.pool != "SideMeans":
        peak = tl.full([HOW.rows, 1], _EMPTY, tl.float32)
    state = peak, none, none, none, peak, none, none, none
    if joined_states is None:
        for start in range(first, even, HOW.labels):
            state = _fold(state, batch, row, start, HOW, True)
        for start in range(even, last, HOW.labels):
            state = _fold(state, batch, row, start, HOW, False)
    else:
        joined = _load_state(joined_states, row, here)
        for start in range(first, even, HOW.labels):
            state = _fold_again(state, joined, batch, row, start, HOW, True)
        for start in range(even, last, HOW.labels):
            state = _fold_again(state, joined, batch, row, start, HOW, False)
    at = states + (tl.program_id(1).to(tl.int64) * batch.rows + row) * 8
    for place in tl.static_range(8):
        tl.store(at + place, state[place], mask=here)


@triton.jit
def _mean(dot, mass):
    return tl.where(mass == 0, 0.0, dot / mass / _SCALED)


@triton.jit
def _finish(state, HOW: tl.constexpr):
    """Computes the value of rows, and d value / d (weight exp(v - peak)) of both sides.

    Of the positives of softmaxes it is d value / d (weight v) that does not depend on v, of means it is their divisor.
    With a none class the first is what the logit of each label has of that, and the second 1.
    """
    up_peak, up_sum, up_mass, up_dot, down_peak, down_sum, down_mass, down_dot = state
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
    elif HOW.pool == "ThresholdSoftmax":
        missed = softplus(-ups) + (ups - _mean(up_dot, up_mass))
        value = tl.where(up_mass > 0, up_mass * missed, 0.0) + softplus(downs)
        up_factor, down_factor = up_mass * sigmoid(ups) / up_sum, sigmoid(downs) / down_sum
    elif HOW.pool == "SideMeans":
        value = _mean(up_dot, up_sum) + _mean(down_dot, down_sum)
        up_factor, down_factor = up_sum, down_sum
    elif HOW.pool == "NoneClass":  # it is a label, with less the mean as its logit
        above, rise = evaluate(-_mean(down_dot, down_mass), HOW.positive, HOW.up)
        below, fall = evaluate(-_mean(down_dot, down_mass), HOW.negative, HOW.down)
        none = tl.where(up_peak < 1, (1.0 - up_peak) * above, 0.0) + tl.where(up_peak > 0, up_peak * below, 0.0)
        value = up_dot + tl.where(down_mass > 0, none, 0.0)
        up_factor, down_factor = -((1.0 - up_peak) * rise + up_peak * fall) / down_mass, 1.0
        up_sum, down_sum = down_mass, down_mass
    elif HOW.pool == "DecoupledSoftmax":
        value = tl.where(up_mass > 0, _mean(up_dot, up_mass), 0.0)
        up_factor, down_factor = 1.0 / up_mass, tl.where(up_mass > 0, up_sum / up_mass / down_sum, 0.0)
        up_sum = up_mass
    else:
        value = tl.where(up_mass > 0, downs - _mean(up_dot, up_mass), 0.0)
        up_factor, down_factor = -1.0 / up_mass, tl.where(up_mass > 0, 1.0 / down_sum, 0.0)
        up_sum = up_mass
    return value, tl.where(up_sum == 0, 0.0, up_factor), tl.where(down_sum == 0, 0.0, down_factor)


@triton.jit
def _mean_slope(value, peak, total, mean, HOW: tl.constexpr):
    """Returns d mean / d (weight v)."""
    reach = _reach(value, HOW)
    rises = (reach / peak) * sigmoid(value)
    if HOW.up_factor < _MOST:
        rises += tl.where(reach == 0, 0.0, (_confined(softplus(value)) - _confined(mean)) / peak)
    return rises / total


@triton.jit
def _descend(batch, gradient, scale, row, start, state, up_factor, down_factor, HOW: tl.constexpr, EVEN: tl.constexpr):
    """Stores the gradient of a tile."""
    up_peak, up_sum, up_mass, up_dot, down_peak, down_sum, down_mass, down_dot = state
    up, above, rise, down, below, fall, z, col, inside = _sides(batch, row, start, HOW, EVEN)
    moved = up_factor != 0
    if HOW.pool == "NoneClass":
        moved = up > 0
    elif HOW.pool == "SideMeans":
        rise = rise * _mean_slope(above, up_peak, up_sum, _mean(up_dot, up_sum), HOW)
        fall = fall * _mean_slope(below, down_peak, down_sum, _mean(down_dot, down_sum), HOW)
    else:
        fall = fall * down_factor * exp(below - down_peak)
        if HOW.pool == "ThresholdSoftmax":
            rise = rise * (tl.where(moved, up_factor * exp(above - up_peak), 0.0) - 1.0)
            moved = up_mass > 0
        elif HOW.pool == "DecoupledSoftmax":
            rise = rise * up_factor * sigmoid(_against(above, down_peak, down_sum))
        elif HOW.pool == "Softmax":
            rise = rise * up_factor
        else:
            rise = rise * up_factor * exp(above - up_peak)
    slope = tl.where((up > 0) & moved, up * rise, 0.0)
    slope += tl.where((down > 0) & (down_factor != 0), down * fall, 0.0)
    if HOW.pool == "NoneClass":
        slope += tl.where(up + down > 0, up_factor, 0.0)
    store(gradient, row, col, slope * scale, inside, EVEN)


@triton.jit
def finish_rows(batch, joined_states, gradient, values, upstream, scale, HOW: tl.constexpr):
    """Stores values and gradient, made from the joined states of the rows, (rows, 8)."""
    row = own_rows(HOW)
    here = row < batch.rows
    state = _load_state(joined_states, row, here)
    value, up, down = _finish(state, HOW)
    tl.store(values + row, value, mask=here & (tl.program_id(1) == 0))
    if gradient is not None:
        factor = row_scale(upstream, row, here, scale)
        first, even, last = own_span(batch, HOW)
        for start in range(first, even, HOW.labels):
            _descend(batch, gradient, factor, row, start, state, up, down, HOW, True)
        for start in range(even, last, HOW.labels):
            _descend(batch, gradient, factor, row, start, state, up, down, HOW, False)


@triton.jit
def rescale(tensor, factor, size, BLOCK: tl.constexpr):
    """Multiplies by a factor, one number on the device. Where that is 1 nothing is read, and nobody waits for it."""
    number = tl.load(factor).to(tl.float32)
    if number != 1:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(tensor + at, mask=at < size).to(tl.float32) * number
        tl.store(tensor + at, value.to(tensor.dtype.element_ty), mask=at < size)
