"""Losses for JAX, and for Keras on JAX: pure functions, printed from the same curves as the C library is.

The curves are printed as Python on `jax.numpy`, with the settings of a loss as numbers; value and slope are theirs, so
that a detached focus stays detached. What joins the labels of a row is written here, since pools are not printed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lopsided.compute.expressions import Expressions
from lopsided.compute.graph import forget, is_uniform, trace
from lopsided.losses import (
    Balanced,
    Curve,
    DecoupledSoftmax,
    Formula,
    LogSumExp,
    MeanPairs,
    NoneClass,
    Pairs,
    SideMeans,
    Softmax,
    Sum,
    ThresholdSoftmax,
    TwoWayPairs,
    any_loss,
    curves,
    unknown,
)
from lopsided.losses.checks import check_number
from lopsided.losses.names import with_settings
from lopsided.nn.balanced import LabelCounts

Array = Any  # of jax
_REDUCTIONS = ("mean", "sum", "none")
_EMPTY = -1e30  # the logarithm of an empty sum, finite so that no inf - inf arises
_JAX = {
    "z": "z",
    "negate": "-{}",
    "negative abs": "-jnp.abs({})",
    "reciprocal": "1.0 / ({})",
    "reciprocal1p": "1.0 / (1.0 + {})",
    "exp": "jnp.exp({})",
    "log1p": "jnp.log1p({})",
    "log1p_unit": "jnp.log1p({})",
    "power": "jnp.maximum({}, jnp.finfo(z.dtype).tiny) ** {}",  # finite at 0 for every exponent above -1
    "select": "jnp.where({}, {}, {})",
    "maximum": "jnp.maximum({}, {})",
    "minimum": "jnp.minimum({}, {})",
    **{op: f"{{}} {op} {{}}" for op in ("+", "-", "*", ">=")},
}


def source(spec: Formula | Balanced | str) -> str:
    """Returns the code of a loss's curves, two functions of `jax.numpy` that map logits to values and slopes.

    Raises ValueError for an unknown loss, and for curves that are not those of the catalog.

    >>> print(source("zlpr(scale=2)"))
    def positive(z):
        v0 = z * -2.0
        return v0, jnp.full_like(z, -2.0)
    <BLANKLINE>
    def negative(z):
        v0 = z * 2.0
        return v0, jnp.full_like(z, 2.0)
    """
    loss = any_loss(spec) if isinstance(spec, str) else spec
    made = loss.formula if isinstance(loss, Balanced) else loss
    forget()
    return "\n\n".join(
        _printed(name, curve) for name, curve in (("positive", made.positive), ("negative", made.negative))
    )


def _printed(name: str, curve: Curve) -> str:
    module = next((each for each in (curves, unknown) if getattr(each, curve.name, None) is curve.function), None)
    if module is None:
        raise ValueError(f"only curves of the catalog are printed, and {curve} is none of them")
    outputs = trace(curve.name, dict(curve.settings), module)
    printer = Expressions(outputs, _JAX)
    results = [f"jnp.full_like(z, {printer.name(n)})" if is_uniform(n) else printer.name(n) for n in outputs]
    return "\n    ".join([f"def {name}(z):", *printer.lines, f"return {', '.join(results)}"])


def loss(
    spec: str,
    reduction: str = "mean",
    *,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    label_smoothing: float = 0.0,
    counts: Any = None,
    rows: int | None = None,
    **settings: Any,
) -> Callable[..., Array]:
    """Returns a loss by name as a pure function of (logits, targets, mask=None), for `jax.grad`, `jit` and `vmap`.

    Args:
        spec: a name such as "asl", or a name with settings such as "asl(gamma_neg=2)".
        reduction: "mean", "sum" or "none", (...) values of rows, as in `lopsided.loss`.
        weight, pos_weight: (L,) arrays, or of the shape of the logits; as there.
        label_smoothing: as there.
        counts, rows: for losses that are made from them, as in `lopsided.BalancedLoss`: (L,) positives of the labels in
            so many training rows. ldam is without its deferred weights.
        settings: more hyperparameters of that loss.

    Returns a function that takes logits (..., L), targets of that shape in [0, 1], NaN where unknown, and a mask, True
    where known; values out of range are not noticed, as inside of `jit` they cannot be. Logits of 16 bits are computed
    in float32. A second derivative is the derivative of the slope.

    Keras on JAX: `model.compile(loss=lambda y_true, y_pred: function(y_pred, y_true))`, with reduction "none".

    Raises ValueError for an unknown loss, for one whose curves are not those of the catalog, without the counts of
    which one is made, and for "none" of one that compares the rows of a batch; ModuleNotFoundError without jax: `pip
    install 'lopsided[jax]'`.
    """
    wanted = any_loss(with_settings(spec, settings))
    made = wanted.formula if isinstance(wanted, Balanced) else wanted
    seen = _seen(wanted, counts, rows, weight)
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(_REDUCTIONS)}; got {reduction!r}")
    if type(made.pool) not in _POOLS:
        raise ValueError(f"{made} has no form for JAX: its pool is not lopsided's")
    if made.pool.transposed and reduction == "none":
        raise ValueError(f"{made} compares rows with each other: no reduction='none'")
    check_number("label_smoothing", label_smoothing, low=0, high=1)
    try:
        import jax
        import jax.numpy as jnp
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error.name} is missing: pip install 'lopsided[jax]'", name=error.name) from None
    sides, pool, over = _sides(jax, jnp, made), _POOLS[type(made.pool)], made.pool.counts

    def function(logits: Array, targets: Array, mask: Array | None = None) -> Array:
        z = jnp.asarray(logits)
        z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
        y = jnp.asarray(targets).astype(z.dtype)
        known = ~jnp.isnan(y) if mask is None else ~jnp.isnan(y) & mask
        z = jnp.where(known, z, 0.0)  # no NaN of an unknown label's logit
        z, each = (z, weight) if seen is None else _turned(jnp, seen, z, jnp.where(known, y, 0.0))
        positive, negative = _weights(jnp, y * (1 - label_smoothing) + label_smoothing / 2, known, each, pos_weight)
        value = reduced(z, positive, negative, known)
        if not made.pool.transposed:
            return value
        return value + reduced(*(each.reshape(-1, z.shape[-1]).T for each in (z, positive, negative, known)))

    def reduced(z: Array, positive: Array, negative: Array, known: Array) -> Array:
        rows = pool(jnp, made.pool, [side(z) for side in sides], (positive, negative))
        if reduction == "none":
            return rows
        counted = known if over == "labels" else (known if over == "rows" else positive > 0).any(-1)
        return rows.sum() / (jnp.maximum(counted.sum(), 1) if reduction == "mean" else 1)

    return function


def _seen(loss: Formula | Balanced, counts: Any, rows: int | None, weight: Array | None) -> LabelCounts | None:
    """Returns what a loss makes of the counts; None for others. Raises ValueError for what does not belong together."""
    if not isinstance(loss, Balanced):
        if counts is not None or rows is not None:
            raise ValueError(f"{loss} is not made from label counts: leave out counts and rows")
        return None
    if counts is None or rows is None:
        raise ValueError(f"{loss} is made from label counts: pass counts, (L,) positives, and rows, of training")
    if weight is not None:
        raise ValueError("weight is made from the counts here: pass pos_weight, or a mask")
    return LabelCounts(loss, torch.as_tensor(counts), rows)


def _turned(jnp: Any, seen: LabelCounts, z: Array, y: Array) -> tuple[Array, Array | None]:
    """Returns logits as the formula takes them, and the weight of labels or entries, as `compute.counted` does."""
    balance, how = seen.balance, seen.balance.rebalancing
    offset, margins, rarity, weight = (
        each.numpy().astype(z.dtype) for each in (seen.offset, seen.margins, seen.rarity, seen.weight)
    )
    turned = balance.scale * (z - y * margins + offset)
    if how is None:
        return turned, weight if seen.reweights else None
    ratio = rarity / (y * rarity).sum(-1, keepdims=True)  # infinite in a row without a label
    return turned, how.alpha + 1.0 / (1.0 + jnp.exp(-how.steepness * (ratio - how.middle)))


def _weights(jnp: Any, y: Array, known: Array, weight: Array | None, pos_weight: Array | None) -> tuple[Array, Array]:
    """Returns what the labels weigh as positives, and as negatives."""
    each, positive = (1.0 if given is None else jnp.asarray(given, y.dtype) for given in (weight, pos_weight))
    return jnp.where(known, y * positive * each, 0.0), jnp.where(known, (1.0 - y) * each, 0.0)


def _sides(jax: Any, jnp: Any, loss: Formula) -> list[Callable[[Array], Array]]:
    """Returns the functions of both sides."""
    space: dict[str, Any] = {"jnp": jnp}
    exec(source(loss), space)
    return [_differentiable(jax, space[name]) for name in ("positive", "negative")]


def _differentiable(jax: Any, curve: Callable[[Array], tuple[Array, Array]]) -> Callable[[Array], Array]:
    """Returns a function of the values, whose derivative is the slope."""

    @jax.custom_jvp  # type: ignore[untyped-decorator]
    def values(z: Array) -> Array:
        return curve(z)[0]

    @values.defjvp  # type: ignore[untyped-decorator]
    def jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        value, slope = curve(*primals)
        return value, slope * tangents[0]

    return values  # type: ignore[no-any-return]


def _sum(jnp: Any, pool: Any, values: Any, weights: Any) -> Array:
    return sum(jnp.where(a > 0, a * v, 0.0).sum(-1) for v, a in zip(values, weights, strict=True))


def _log_sums(jnp: Any, values: Any, weights: Any) -> list[Array]:
    """Computes log sum a exp(v) of each side, -1e30 of an empty one."""
    sums = []
    for v, a in zip(values, weights, strict=True):
        present = jnp.where(a > 0, v, _EMPTY)
        peak = present.max(-1, keepdims=True)
        total = (a * jnp.exp(present - peak)).sum(-1)
        sums.append(peak[..., 0] + jnp.log(jnp.where(total > 0, total, 1.0)))
    return sums


def _softplus(jnp: Any, x: Array) -> Array:
    return jnp.logaddexp(x, 0.0)


def _log_sum_exp(jnp: Any, pool: Any, values: Any, weights: Any) -> Array:
    return sum(_softplus(jnp, side) for side in _log_sums(jnp, values, weights))


def _pairs(jnp: Any, pool: Any, values: Any, weights: Any) -> Array:
    positive, negative = _log_sums(jnp, values, weights)
    return _softplus(jnp, pool.power_pos * positive + pool.power_neg * negative)


def _mean_pairs(jnp: Any, pool: Any, values: Any, weights: Any) -> Array:
    value = 1.0
    for v, a in zip(values, weights, strict=True):
        mass = a.sum(-1)
        value = value * jnp.where(a > 0, a * jnp.exp(v), 0.0).sum(-1) / jnp.where(mass > 0, mass, 1.0)
    return value


def _softmax(jnp: Any, pool: Any, values: Any, weights: Any) -> Array:
    mass, known = weights[0].sum(-1), (weights[0] + weights[1] > 0).astype(values[0].dtype)
    mean = (weights[0] * values[0]).sum(-1) / jnp.where(mass > 0, mass, 1.0)
    return jnp.where(mass > 0, _log_sums(jnp, values[:1], [known])[0] - mean, 0.0)


def _threshold_softmax(jnp: Any, pool: Any, values: Any, weights: Any) -> Array:
    up, down = _log_sums(jnp, (-values[0], values[1]), weights)
    return (weights[0] * (_softplus(jnp, up)[..., None] + values[0])).sum(-1) + _softplus(jnp, down)


def _side_means(jnp: Any, pool: Any, values: Any, weights: Any) -> Array:
    total = 0.0
    for v, a in zip(values, weights, strict=True):
        weight = a
        if pool.margin is not None:
            reach = jnp.where(a > 0, jnp.maximum(pool.margin + v, 0.0), 0.0)
            peak = reach.max(-1, keepdims=True)  # a square of the largest would overflow
            weight = a * (reach / jnp.where(peak > 0, peak, 1.0))
        mass = weight.sum(-1)
        total = total + (weight * _softplus(jnp, v)).sum(-1) / jnp.where(mass > 0, mass, 1.0)
    return total


def _none_class(jnp: Any, pool: Any, values: Any, weights: Any) -> Array:
    def down(x: Array) -> Array:
        if not pool.clip:
            return _softplus(jnp, x)
        return -jnp.log1p(-jnp.maximum(0.5 * (1.0 + jnp.tanh(0.5 * x)) - pool.clip, 0.0))

    both = weights[0] + weights[1]
    known = (both > 0).astype(both.dtype)
    mean = (known * values[1]).sum(-1) / jnp.maximum(known.sum(-1), 1.0)
    largest = (weights[0] / jnp.where(both > 0, both, 1.0)).max(-1)
    none = (1.0 - largest) * _softplus(jnp, mean) + largest * down(-mean)
    labels = weights[0] * _softplus(jnp, values[0]) + weights[1] * down(values[1])
    return labels.sum(-1) + jnp.where(known.any(-1), none, 0.0)


def _decoupled_softmax(jnp: Any, pool: Any, values: Any, weights: Any) -> Array:
    side, mass = _log_sums(jnp, values[1:], weights[1:])[0], weights[0].sum(-1)
    return (weights[0] * _softplus(jnp, values[0] + side[..., None])).sum(-1) / jnp.where(mass > 0, mass, 1.0)


_POOLS: dict[type, Callable[..., Array]] = {
    Sum: _sum,
    LogSumExp: _log_sum_exp,
    Pairs: _pairs,
    TwoWayPairs: _pairs,
    MeanPairs: _mean_pairs,
    Softmax: _softmax,
    ThresholdSoftmax: _threshold_softmax,
    DecoupledSoftmax: _decoupled_softmax,
    SideMeans: _side_means,
    NoneClass: _none_class,
}
