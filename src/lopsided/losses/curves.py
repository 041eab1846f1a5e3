"""Curves: what one label costs, as a function of its logit. The one place where a formula stands.

A curve maps a logit z to (value, slope): the partial loss and its derivative, as tensors of the shape of z or
plain numbers. Hyperparameters are floats fixed by the caller, so a curve may branch on them, never on z.
"""

from __future__ import annotations

from torch import Tensor

from lopsided.losses.vocabulary import log1p, logistic, maximum, power, select


def polynomial_positive(
    z: Tensor, *, gamma: float = 0.0, first: float = 0.0, second: float = 0.0, detach: bool = False
) -> tuple[Tensor, Tensor | float]:
    """(1-p)^gamma * (-log p - first (1-p) - second/2 (1-p)^2), p = sigmoid(z).

    first = second = 0 leaves the logistic loss. With `detach`, the slope treats the focusing weight
    (1-p)^gamma as a constant, so it is not the derivative of the value.
    """
    p, q, base, _ = logistic(z)
    slope = -q
    if first or second:
        base = base - q * (first + second / 2 * q)
        # -q (1 - p (first + second q)), ordered so that first = 1 does not cancel as p -> 1
        slope = -q * ((1 - first) + q * (first - second * p))
    focus = power(q, gamma)
    if gamma and not detach:
        slope = slope - gamma * p * base
    return focus * base, focus * slope


def polynomial_negative(
    z: Tensor, *, gamma: float = 0.0, margin: float = 0.0, first: float = 0.0, detach: bool = False
) -> tuple[Tensor, Tensor | float]:
    """r^gamma * (-log(1-r) - first (1-r)), r = max(p - margin, 0), p = sigmoid(z).

    Value (for first = 0 or gamma > 0) and slope are exactly 0 where p <= margin > 0. `detach` as above.
    """
    p, q, _, base = logistic(z)
    if not margin:
        slope = p
        if first:
            base, slope = base - first * q, p * (1 + first * q)
        focus = power(p, gamma)
        if gamma and not detach:
            slope = slope + gamma * q * base
        return focus * base, focus * slope
    r = maximum(p - margin, 0.0)
    rest = select(r <= 0, 1.0, q + margin)  # 1 - r, without the cancellation
    base = -log1p(-r)
    if first:
        base = base - first * rest
    less = power(r, gamma - 1)
    focus = less * r if gamma else 1.0
    slope = focus * (1 / rest + first)
    if gamma and not detach:
        slope = slope + gamma * less * base
    return focus * base, select(r <= 0, 0.0, p * q * slope)


def identity(z: Tensor) -> tuple[Tensor, Tensor | float]:
    """z: the exponent of a negative label in a log-sum-exp."""
    return z, 1.0


def negation(z: Tensor) -> tuple[Tensor, Tensor | float]:
    """-z: the exponent of a positive label in a log-sum-exp."""
    return -z, -1.0
