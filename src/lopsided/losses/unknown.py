"""Losses with a third curve: what a label costs that nobody marked, and that may be positive all the same.

The third curve stands where the negatives' would: where only positives are listed, all others are unknown. Where some
negatives are known, `lopsided.partial_loss(..., unknown_loss=...)` takes the third curve for the unknown ones alone.
Some push likely positives up, or leave them; so they are not in the catalog, whose losses push negatives down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lopsided.losses import curves
from lopsided.losses.checks import check_number
from lopsided.losses.entries import SEARCH, Range, curve_of, named
from lopsided.losses.formulas import Curve, Formula
from lopsided.losses.pools import Sum
from lopsided.losses.vocabulary import exp, logistic, select, softplus

if TYPE_CHECKING:
    from torch import Tensor

    from lopsided.losses.curves import Values

UNKNOWN: dict[str, Callable[..., Formula]] = {}
UNKNOWN_SOURCES: dict[str, str] = {}


def _entry(source: str, **search: Range) -> Callable[[Callable[..., Formula]], Callable[..., Formula]]:
    def register(make: Callable[..., Formula]) -> Callable[..., Formula]:
        UNKNOWN[make.__name__], UNKNOWN_SOURCES[make.__name__], SEARCH[make.__name__] = make, source, search
        return make

    return register


def negative_entropy(z: Tensor, *, scale: float) -> Values:
    """Computes scale (p log p + (1-p) log(1-p)), p = sigmoid(z): least where nothing is known, at 0."""
    p, q = logistic(z)
    return -scale * (p * softplus(-z) + q * softplus(z)), scale * (p * q * z)


def corrected_negative(z: Tensor, *, cut: float = 0.0, gamma: float = 0.0) -> Values:
    """Computes focal loss of a negative where sigmoid(z) <= cut, and of a positive above."""
    p, _ = logistic(z)
    (down, fall), (up, rise) = curves.polynomial_negative(z, gamma=gamma), curves.polynomial_positive(z, gamma=gamma)
    return select(p <= cut, down, up), select(p <= cut, fall, rise)


def robust_unknown(
    z: Tensor, *, steepness: float, bias: float, middle: float, width: float, power_pos: float, power_neg: float
) -> Values:
    """Computes v (k (1 - p^a) / a + (1 - k) (1 - (1-p)^b) / b), a = power_pos, b = power_neg.

    k = sigmoid(steepness p + bias) is how likely the label is positive, v = exp(-((p - middle) / width)^2 / 2) how much
    it counts; the slope takes both as constants.
    """
    p, q = logistic(z)
    k, rest = logistic(steepness * p + bias)
    far = (p - middle) / width
    v = exp(-0.5 * far * far)
    up, down = exp(-power_pos * softplus(-z)), exp(-power_neg * softplus(z))  # p^a and (1-p)^b
    value = v * (k * (1 - up) / power_pos + rest * (1 - down) / power_neg)
    return value, v * (rest * down * p - k * up * q)


@_entry("arXiv 2106.09708", weight=Range(0.001, 1, log=True))
def wan(weight: float = 0.05) -> Formula:
    """WAN: cross-entropy, the unknown weighed as negatives of this weight; 1 / (L - 1) in Cole et al. 2021."""
    weight = check_number("weight", weight, low=0.000001)
    down = curve_of(curves.polynomial_negative, scale=weight)
    return named("wan", curve_of(curves.polynomial_positive), down, Sum(), weight=weight)


@_entry("arXiv 2203.16219", alpha=Range(0.01, 1, log=True))
def em(alpha: float = 0.1) -> Formula:
    """EM: cross-entropy, the unknown cost -alpha H(p), the entropy: they are drawn to 0. Zhou et al. 2022."""
    alpha = check_number("alpha", alpha, low=0.000001)
    down = curve_of(negative_entropy, scale=alpha)
    return named("em", curve_of(curves.polynomial_positive), down, Sum(), alpha=alpha)


@_entry("arXiv 2112.07368", tau=Range(0.5, 1), margin=Range(0, 2), gamma=Range(0, 4))
def splc(tau: float = 0.6, margin: float = 1.0, gamma: float = 2.0) -> Formula:
    """SPLC: focal loss with a margin for positives; an unknown label is a negative where p <= tau, else a positive.

    Zhang et al. 2021, with which loss they release it. Its first epoch is trained with tau=1.
    """
    tau, margin = check_number("tau", tau, low=0), check_number("margin", margin)
    gamma = check_number("gamma", gamma, low=0)
    up = curve_of(curves.polynomial_positive, gamma=gamma, shift=margin)
    down = curve_of(corrected_negative, cut=tau, gamma=gamma)
    return named("splc", up, down, Sum(), tau=tau, margin=margin, gamma=gamma)


@_entry(
    "arXiv 2405.03501",
    steepness=Range(0, 4),
    bias=Range(-4, 0),
    middle=Range(0, 1),
    width=Range(0.25, 4, log=True),
)
def gr(
    steepness: float = 0.0,
    bias: float = -2.0,
    middle: float = 0.5,
    width: float = 2.0,
    power_pos: float = 0.01,
    power_neg: float = 1.0,
) -> Formula:
    """GR: cross-entropy; an unknown label costs v (k (1 - p^a) / a + (1 - k) (1 - (1-p)^b) / b).

    k = sigmoid(steepness p + bias) and v = exp(-((p - middle) / width)^2 / 2) are constants in the gradient, a is
    power_pos, b power_neg. Defaults are where the official code begins; it ends at steepness 2, middle 0.8, width 0.5.
    """
    settings = {"steepness": check_number("steepness", steepness), "bias": check_number("bias", bias)}
    settings |= {"middle": check_number("middle", middle), "width": check_number("width", width, low=0.001)}
    settings |= {
        "power_pos": check_number("power_pos", power_pos, low=0.0001),
        "power_neg": check_number("power_neg", power_neg, low=0.0001),
    }
    down = Curve(robust_unknown, tuple(settings.items()))
    return named("gr", curve_of(curves.polynomial_positive), down, Sum(), **settings)
