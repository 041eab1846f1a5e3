"""What a trained score means: the posterior and the decision threshold that a loss implies, in closed form.

Derived here, not in the papers. A label with probability eta settles where eta w |f+'(z)| = (1 - eta) f-'(z), w
being the weight of positives in training, so eta = f-' / (f-' + w |f+'|). The slopes are the trained ones,
focusing detached or not. Label smoothing e trains towards (1 - e) eta + e/2, which is undone afterwards.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lopsided.losses.checks import check_number

if TYPE_CHECKING:
    from lopsided.losses.formulas import Formula

_FAR = 40.0  # sigmoid is 4e-18 away from 0 and 1 there: any posterior that matters lies between


def posterior(loss: Formula, logits: Tensor, pos_weight: Tensor | float = 1.0, label_smoothing: float = 0.0) -> Tensor:
    """The probability of a label whose trained logit is z: same shape as the logits, float64, in [0, 1].

    Args:
        logits: any shape, any float dtype.
        pos_weight, label_smoothing: as in training; pos_weight must broadcast with the logits.

    Raises ValueError for losses that couple the labels of a row: their scores have no label-wise meaning.

    >>> import torch, lopsided
    >>> lopsided.loss("asl").posterior(torch.tensor([0.0, 1.379]))
    tensor([0.0359, 0.5000], dtype=torch.float64)
    """
    if not loss.pool.per_label:
        raise ValueError(
            f"{loss} couples the labels of a row, so no per-label posterior exists; fit a temperature on validation "
            "data instead: lopsided.fit_temperature"
        )
    _check_training(pos_weight, label_smoothing)
    _check_one_to_one(loss)
    eta = _settled(loss, logits.double(), pos_weight)
    return ((eta - label_smoothing / 2) / (1 - label_smoothing)).clamp(0, 1)


def _settled(loss: Formula, z: Tensor, pos_weight: Tensor | float = 1.0) -> Tensor:
    """The probability at which the slopes of both sides cancel."""
    z = z.clamp(-_FAR, _FAR)  # beyond, both slopes may underflow
    rise, fall = (torch.as_tensor(curve(z)[1]).expand_as(z) for curve in (loss.negative, loss.positive))
    return rise / (rise - pos_weight * fall)


@functools.lru_cache
def _check_one_to_one(loss: Formula) -> None:
    """Refuse losses under which a more probable label may settle at a lower logit: hill with a wide margin."""
    if (_settled(loss, torch.linspace(-_FAR, _FAR, 4001, dtype=torch.float64)).diff() < -1e-9).any():
        raise ValueError(
            f"under {loss} a more probable label does not always get a higher score, so scores stand for no "
            "probability: tune a threshold on validation data, or change the settings"
        )


def posterior_limits(loss: Formula) -> tuple[float, float]:
    """The posteriors at z = -40 and z = 40, which stand for the limits."""
    low, high = posterior(loss, torch.tensor([-_FAR, _FAR])).tolist()
    return low, high


def decision_threshold(loss: Formula, eta: float = 0.5, pos_weight: float = 1.0, label_smoothing: float = 0.0) -> float:
    """The logit above which a label is predicted: there its implied posterior passes eta, 0 < eta < 1.

    ZLPR ranks labels against a threshold by construction, whatever eta; pos_weight w moves it by log(w) / 2, divided
    by its scale. Returns infinity when the loss saturates: with a clip, posteriors above `posterior_limits()[1]` all
    train towards z = infinity, and no finite logit separates them. Raises ValueError for losses that only rank labels
    among each other.

    >>> import lopsided
    >>> round(lopsided.loss("asl").decision_threshold(), 3), lopsided.loss("asl").decision_threshold(0.95)
    (1.379, inf)
    """
    weight = torch.tensor(check_number("pos_weight", pos_weight), dtype=torch.float64)
    return float(decision_thresholds(loss, weight, eta, label_smoothing))


def decision_thresholds(loss: Formula, pos_weight: Tensor, eta: float = 0.5, label_smoothing: float = 0.0) -> Tensor:
    """The same for every weight of positives, in its shape, float64."""
    check_number("eta", eta, low=0, high=1)
    _check_training(pos_weight, label_smoothing)
    if not loss.pool.thresholded:
        raise ValueError(f"{loss} only ranks the labels of a row: tune a threshold on validation data")
    pos_weight = pos_weight.double()

    def passed(z: Tensor) -> Tensor:
        if loss.pool.per_label:
            return posterior(loss, z, pos_weight, label_smoothing) >= eta
        return loss.negative(z)[0] >= loss.positive(z)[0] + pos_weight.log()

    high = torch.full_like(pos_weight, _FAR if loss.pool.per_label else 1e4)
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


def discarding_point(loss: Formula) -> float:
    """The logit above which the gradient on a negative label falls: what a loss begins to discard as mislabelled.

    Infinite where it never falls, as in cross-entropy, and where the labels of a row are coupled, so that no single
    point exists. To 0.001. The loss's other end, the clip, discards only easy negatives, never suspects.

    >>> import lopsided
    >>> round(discarding_point(lopsided.loss("asl")), 2), discarding_point(lopsided.loss("bce"))
    (2.55, inf)

    Source: the regimes of a negative in arXiv 2009.14119, section 2.5, of the slope that training really uses.
    """
    if not loss.pool.per_label:
        return math.inf
    z = torch.linspace(-40, 40, 80_001, dtype=torch.float64)
    slope = torch.as_tensor(loss.negative(z)[1]).expand_as(z)
    peak = int(slope.argmax())
    return float(z[peak]) if slope[-1] < slope[peak] * (1 - 1e-9) else math.inf


def profile(loss: Formula, z: Tensor, positive: bool) -> tuple[Tensor, Tensor]:
    """(n,) logits of one label -> value and gradient, each (n,).

    The label is alone in its row; where a loss only compares labels, beside one of the other kind at logit 0.
    """
    own = torch.ones_like(z) if positive else torch.zeros_like(z)
    row, y = (z[:, None], own[:, None])
    if not loss.pool.thresholded:
        row = torch.stack([z, torch.zeros_like(z)], 1)
        y = torch.stack([own, 1 - own], 1)
    weights = (y, 1 - y)
    state = loss.summarize(row, weights)
    return loss.value(state), loss.grad(row, weights, state)[:, 0]
