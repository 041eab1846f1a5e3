"""Curves: what one label costs, as a function of its logit. The one place where a formula stands.

A curve maps a logit z to (value, slope): the partial loss and its derivative, as tensors of the shape of z or
plain numbers. Hyperparameters are floats fixed by the caller, so a curve may branch on them, never on z.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from lopsided.losses.vocabulary import log1p, logistic, maximum, power, select, softplus

if TYPE_CHECKING:
    from torch import Tensor

Values: TypeAlias = "tuple[Tensor, Tensor | float]"
_T = TypeVar("_T", "Tensor", "Tensor | float")


def polynomial_positive(
    z: Tensor,
    *,
    gamma: float = 0.0,
    terms: Sequence[float] = (),
    shift: float = 0.0,
    scale: float = 1.0,
    detach: bool = False,
) -> Values:
    """Computes scale (1-p)^gamma (-log p + sum_m terms[m-1] (1-p)^m), p = sigmoid(z - shift).

    Without terms this is the logistic loss, focused. With `detach`, the slope treats the focusing weight
    (1-p)^gamma as a constant, so it is not the derivative of the value.
    """
    z = z - shift if shift else z
    p, q = logistic(z)
    base = softplus(-z)
    slope = -q
    if terms:
        first, rest = terms[0], _derivative(terms)[1:]
        base = base + q * _horner(terms, q)
        # -q (1 + p sum_m m c_m q^(m-1)), ordered so that c_1 = -1 does not cancel as p -> 1
        slope = -q * ((1 + first) + q * (p * _horner(rest, q) - first))
    focus = _times(scale, power(q, gamma))
    if gamma and not detach:
        slope = slope - gamma * p * base
    return focus * base, focus * slope


def polynomial_negative(
    z: Tensor,
    *,
    gamma: float = 0.0,
    margin: float = 0.0,
    terms: Sequence[float] = (),
    constant: float = 0.0,
    scale: float = 1.0,
    detach: bool = False,
) -> Values:
    """Computes scale r^gamma (-log(1-r) + sum_n terms[n-1] r^n + constant), r = max(p - margin, 0).

    Value (for constant = 0 or gamma > 0) and slope are exactly 0 where p <= margin > 0. `detach` as above.
    """
    p, q = logistic(z)
    if not margin:
        base, slope = softplus(z), p
        if terms or constant:
            base = base + p * _horner(terms, p) + constant
            slope = p * (1 + q * _horner(_derivative(terms), p))
        focus = _times(scale, power(p, gamma))
        if gamma and not detach:
            slope = slope + gamma * q * base
        return focus * base, focus * slope
    r = maximum(p - margin, 0.0)
    rest = q + margin  # 1 - r, without the cancellation; where r = 0 it may be above 1, to no effect
    base = -log1p(-r)
    slope = 1 / rest
    if terms or constant:
        base = base + r * _horner(terms, r) + constant
        slope = slope + _horner(_derivative(terms), r)
    less = _times(scale, power(r, gamma - 1))
    focus = less * r if gamma else scale
    slope = focus * slope
    if gamma and not detach:
        slope = slope + gamma * less * base
    slope = p * q * slope
    vanishes = gamma and not constant  # where r = 0: there the value does, and its slope is focus or base times finite
    return focus * base, slope if vanishes else select(r <= 0, 0.0, slope)


def tolerant_negative(z: Tensor, *, scale: float, gamma: float = 0.0) -> Values:
    """Computes p^gamma -log(1-p) / scale, p = sigmoid(scale z): beyond a scale of 1, negatives below 0 cost less."""
    value, slope = polynomial_negative(scale * z, gamma=gamma)
    return value / scale, slope


def hill_negative(z: Tensor, *, peak: float) -> Values:
    """Computes p^2 (peak - p), p = sigmoid(z): its slope falls again towards p = 1."""
    p, q = logistic(z)
    square = p * p
    return square * (peak - p), square * q * ((2 * peak - 3) + 3 * q)


def robust_negative(z: Tensor, *, peak: float, gamma: float = 0.0, margin: float = 0.0, detach: bool = False) -> Values:
    """Multiplies `polynomial_negative` by (peak - p) p^2 (peak - 1 + r), p = sigmoid(z), r = max(p - margin, 0)."""
    value, slope = polynomial_negative(z, gamma=gamma, margin=margin, detach=detach)
    p, q = logistic(z)
    rise = peak - 1 + maximum(p - margin, 0.0)
    square, fall = p * p, peak - p
    factor = square * fall * rise
    # where r = 0 the value is 0 as well, so the kink of r does not matter
    bend = p * q * (p * rise * ((2 * peak - 3) + 3 * q) + fall * square)
    return value * factor, slope * factor + value * bend


def confidence_negative(z: Tensor, *, gamma: float) -> Values:
    """Computes -p^gamma log p, which the official single-label ASL puts on the classes beside the target."""
    p, q = logistic(z)
    base = softplus(-z)
    focus = power(p, gamma)
    return focus * base, focus * q * (gamma * base - 1)


def exponent(z: Tensor, *, scale: float, shift: float = 0.0) -> Values:
    """Computes scale (z - shift): the exponent of a label in a log-sum-exp."""
    return _times(scale, z - shift if shift else z), scale


def bounded_exponent(z: Tensor, *, scale: float) -> Values:
    """Computes scale tanh(z)."""
    p, q = logistic(2 * z)
    return scale * (p - q), scale * 4 * (p * q)


def hinge(z: Tensor, *, scale: float) -> Values:
    """Computes max(1 + scale z, 0), scale = 1 or -1."""
    reach = maximum(1 + scale * z, 0.0)
    return reach, select(reach >= 2.0**-60, scale, reach)  # it is 0, at least 2^-53, or NaN, which comes through


def squared_hinge(z: Tensor, *, scale: float) -> Values:
    """Computes max(1 + scale z, 0)^2, scale = 1 or -1; from 2^14 on, the square and its slope stay what they are there.

    So the value is finite for every finite logit, and the slope in float16, whose largest number is below 2^16.
    """
    reach = maximum(1 + scale * z, 0.0)
    reach = select(reach >= 2.0**14, 2.0**14, reach)
    return reach * reach, (2 * scale) * reach


def _times(factor: float, x: _T) -> _T:
    return x if factor == 1 else factor * x  # a product with 1 is a pass over memory


def _horner(coefficients: Sequence[float], x: Tensor) -> Tensor | float:
    """Computes sum_k coefficients[k] x^k."""
    total: Tensor | float = 0.0
    for coefficient in reversed(coefficients):
        total = coefficient + x * total
    return total


def _derivative(terms: Sequence[float]) -> tuple[float, ...]:
    """Returns the coefficients of sum_m terms[m-1] x^m, differentiated."""
    return tuple(order * term for order, term in enumerate(terms, start=1))
