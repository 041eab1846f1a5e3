"""What a trained score means: the posterior and the decision threshold that a loss implies, in closed form.

Derived here, not in the papers. A label with probability eta settles where eta w |f+'(z)| = (1 - eta) f-'(z), w
being the weight of positives in training, so eta = f-' / (f-' + w |f+'|). The slopes are the trained ones,
focusing detached or not. Label smoothing e trains towards (1 - e) eta + e/2, which is undone afterwards.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from lopsided.losses.checks import check_number
from lopsided.losses.formulas import Formula

_FAR = 40.0  # sigmoid is 4e-18 away from 0 and 1 there: any posterior that matters lies between


def posterior(
    formula: Formula, logits: Tensor, pos_weight: Tensor | float = 1.0, label_smoothing: float = 0.0
) -> Tensor:
    """The probability of a label whose trained logit is z: same shape as the logits, float64, in [0, 1].

    Args:
        logits: any shape, any float dtype.
        pos_weight, label_smoothing: as in training; pos_weight must broadcast with the logits.

    Raises ValueError for losses that couple the labels of a row: their scores have no label-wise meaning.

    >>> import torch, lopsided
    >>> posterior(lopsided.losses.formula("asl"), torch.tensor([0.0, 1.379]))
    tensor([0.0359, 0.5000], dtype=torch.float64)
    """
    if not formula.pool.per_label:
        raise ValueError(
            f"{formula} couples the labels of a row, so no per-label posterior exists; fit a temperature on validation "
            "data instead: lopsided.fit_temperature"
        )
    _check_training(pos_weight, label_smoothing)
    _check_one_to_one(formula)
    eta = _settled(formula, logits.double(), pos_weight)
    return ((eta - label_smoothing / 2) / (1 - label_smoothing)).clamp(0, 1)


def _settled(formula: Formula, z: Tensor, pos_weight: Tensor | float = 1.0) -> Tensor:
    """The probability at which the slopes of both sides cancel."""
    z = z.clamp(-_FAR, _FAR)  # beyond, both slopes may underflow
    rise, fall = (torch.as_tensor(curve(z)[1]).expand_as(z) for curve in (formula.negative, formula.positive))
    return rise / (rise - pos_weight * fall)


@functools.lru_cache
def _check_one_to_one(formula: Formula) -> None:
    """Refuse losses under which a more probable label may settle at a lower logit: hill with a wide margin."""
    if (_settled(formula, torch.linspace(-_FAR, _FAR, 4001, dtype=torch.float64)).diff() < -1e-9).any():
        raise ValueError(
            f"under {formula} a more probable label does not always get a higher score, so scores stand for no "
            "probability: tune a threshold on validation data, or change the settings"
        )


def posterior_limits(formula: Formula) -> tuple[float, float]:
    """The posteriors at z = -40 and z = 40, which stand for the limits."""
    low, high = posterior(formula, torch.tensor([-_FAR, _FAR])).tolist()
    return low, high


def decision_threshold(
    formula: Formula, eta: float = 0.5, pos_weight: Tensor | float = 1.0, label_smoothing: float = 0.0
) -> Tensor:
    """The logit above which a label is predicted: there its implied posterior passes eta, 0 < eta < 1.

    ZLPR ranks labels against a threshold by construction, whatever eta; pos_weight w moves it by log(w) / 2, divided
    by its scale.

    Args:
        pos_weight, label_smoothing: as in training.

    Returns:
        float64, of the shape of pos_weight, () for a number. Infinity where the loss saturates: with a clip, posteriors
        above `posterior_limits()[1]` all train towards z = infinity, and no finite logit separates them.

    Raises ValueError for losses that only rank labels among each other.

    >>> import lopsided
    >>> decision_threshold(lopsided.losses.formula("asl"))
    tensor(1.3790, dtype=torch.float64)
    """
    check_number("eta", eta, low=0, high=1)
    _check_training(pos_weight, label_smoothing)
    if not formula.pool.thresholded:
        raise ValueError(f"{formula} only ranks the labels of a row: tune a threshold on validation data")
    pos_weight = torch.as_tensor(pos_weight, dtype=torch.float64)

    def passed(z: Tensor) -> Tensor:
        if formula.pool.per_label:
            return posterior(formula, z, pos_weight, label_smoothing) >= eta
        return formula.negative(z)[0] >= formula.positive(z)[0] + pos_weight.log()

    high = torch.full_like(pos_weight, _FAR if formula.pool.per_label else 1e4)
    low, saturated = -high, ~passed(high)
    for _ in range(80):
        middle = (low + high) / 2
        above = passed(middle)
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    rounded = torch.round(high, decimals=12) + 0.0  # the slopes' own rounding; + 0.0 turns -0.0 into 0.0
    return torch.where(saturated, math.inf, rounded)


def _check_training(pos_weight: Tensor | float, label_smoothing: float) -> None:
    check_number("label_smoothing", label_smoothing, low=0, high=1)
    weight = torch.as_tensor(pos_weight)
    if not ((weight > 0) & (weight < math.inf)).all():
        raise ValueError(f"pos_weight must be finite and positive, got {weight.min():g} to {weight.max():g}")


def discarding_point(formula: Formula) -> float:
    """The logit above which the gradient on a negative label falls: what a loss begins to discard as mislabelled.

    Infinite where it never falls, as in cross-entropy, and where the labels of a row are coupled, so that no single
    point exists. To 0.001. The loss's other end, the clip, discards only easy negatives, never suspects.

    >>> import lopsided
    >>> round(discarding_point(lopsided.losses.formula("asl")), 2), discarding_point(lopsided.losses.formula("bce"))
    (2.55, inf)

    Source: the regimes of a negative in arXiv 2009.14119, section 2.5, of the slope that training really uses.
    """
    if not formula.pool.per_label:
        return math.inf
    z = torch.linspace(-40, 40, 80_001, dtype=torch.float64)
    slope = torch.as_tensor(formula.negative(z)[1]).expand_as(z)
    peak = int(slope.argmax())
    return float(z[peak]) if slope[-1] < slope[peak] * (1 - 1e-9) else math.inf


def profile(formula: Formula, z: Tensor, positive: bool) -> tuple[Tensor, Tensor]:
    """(n,) logits of one label -> value and gradient, each (n,).

    The label is alone in its row; where a loss only compares labels, beside one of the other kind at logit 0.
    """
    own = torch.ones_like(z) if positive else torch.zeros_like(z)
    row, y = (z[:, None], own[:, None])
    if not formula.pool.thresholded:
        row = torch.stack([z, torch.zeros_like(z)], 1)
        y = torch.stack([own, 1 - own], 1)
    weights = (y, 1 - y)
    state = formula.summarize(row, weights)
    return formula.value(state), formula.grad(row, weights, state)[:, 0]
