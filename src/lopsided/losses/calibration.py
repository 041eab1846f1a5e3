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

from lopsided.checks import check_number

if TYPE_CHECKING:
    from lopsided.losses.loss import Loss

_FAR = 40.0  # sigmoid is 4e-18 away from 0 and 1 there: any posterior that matters lies between


def posterior(loss: Loss, logits: Tensor, pos_weight: Tensor | float = 1.0, label_smoothing: float = 0.0) -> Tensor:
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
    _check_one_to_one(loss)
    eta = _settled(loss, logits.double(), pos_weight)
    return ((eta - label_smoothing / 2) / (1 - label_smoothing)).clamp(0, 1)


def _settled(loss: Loss, z: Tensor, pos_weight: Tensor | float = 1.0) -> Tensor:
    """The probability at which the slopes of both sides cancel."""
    z = z.clamp(-_FAR, _FAR)  # beyond, both slopes may underflow
    rise, fall = (torch.as_tensor(curve(z)[1]).expand_as(z) for curve in (loss.negative, loss.positive))
    return rise / (rise - pos_weight * fall)


@functools.lru_cache
def _check_one_to_one(loss: Loss) -> None:
    """Refuse losses under which a more probable label may settle at a lower logit: hill with a wide margin."""
    if (_settled(loss, torch.linspace(-_FAR, _FAR, 4001, dtype=torch.float64)).diff() < -1e-9).any():
        raise ValueError(
            f"under {loss} a more probable label does not always get a higher score, so scores stand for no "
            "probability: tune a threshold on validation data, or change the settings"
        )


def posterior_limits(loss: Loss) -> tuple[float, float]:
    """The posteriors at z = -40 and z = 40, which stand for the limits."""
    low, high = posterior(loss, torch.tensor([-_FAR, _FAR])).tolist()
    return low, high


def decision_threshold(loss: Loss, eta: float = 0.5, pos_weight: float = 1.0, label_smoothing: float = 0.0) -> float:
    """The logit above which a label is predicted: there its implied posterior passes eta, 0 < eta < 1.

    ZLPR ranks labels against a threshold by construction, whatever eta; pos_weight w moves it by log(w) / 2, divided
    by its scale. Returns infinity when the loss saturates: with a clip, posteriors above `posterior_limits()[1]` all
    train towards z = infinity, and no finite logit separates them. Raises ValueError for losses that only rank labels
    among each other.

    >>> import lopsided
    >>> round(lopsided.loss("asl").decision_threshold(), 3), lopsided.loss("asl").decision_threshold(0.95)
    (1.379, inf)
    """
    check_number("eta", eta, low=0, high=1)
    if not loss.pool.thresholded:
        raise ValueError(f"{loss} only ranks the labels of a row: tune a threshold on validation data")

    def passed(z: float) -> bool:
        at = torch.tensor(z, dtype=torch.float64)
        if loss.pool.per_label:
            return float(posterior(loss, at, pos_weight, label_smoothing)) >= eta
        return float(loss.negative(at)[0]) >= float(loss.positive(at)[0]) + math.log(pos_weight)

    low, high = (-_FAR, _FAR) if loss.pool.per_label else (-1e4, 1e4)
    if not passed(high):
        return math.inf
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if passed(middle) else (middle, high)
    return round(high, 12) + 0.0  # the slopes' own rounding; + 0.0 turns -0.0 into 0.0


def fit_temperature(logits: Tensor, targets: Tensor, mask: Tensor | None = None) -> float:
    """The temperature T for which sigmoid(logit / T) has the highest likelihood on validation data.

    For losses without a posterior in closed form, such as ZLPR: T is 1/2 where soft targets were learnt, since those
    are minimal at sigmoid(2 z), and lies between 1/2 and 1 for hard ones. The likelihood is concave in 1/T, so the
    answer is unique; it stays within 0.001 and 1000, which scores that separate the labels perfectly would leave.

    Args:
        logits: (..., L); targets: (..., L) in [0, 1]; mask: (..., L) bool, True where known.

    >>> z = torch.linspace(-2, 2, 101)
    >>> round(fit_temperature(z, torch.sigmoid(2 * z)), 6)
    0.5
    """
    z, y = logits.double(), targets.double()
    z, y = (z[mask], y[mask]) if mask is not None else (z, y)
    low, high = math.log(1e-3), math.log(1e3)  # of 1/T
    for _ in range(60):
        middle = (low + high) / 2
        too_steep = ((torch.sigmoid(math.exp(middle) * z) - y) * z).sum() > 0
        low, high = (low, middle) if too_steep else (middle, high)
    return math.exp(-low)
