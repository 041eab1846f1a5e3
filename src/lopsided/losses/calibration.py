"""What a trained score means: the posterior and the decision threshold that a loss implies, in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lopsided.checks import check_number
from lopsided.losses.loss import Loss


def posterior(loss: Loss, z: Tensor) -> Tensor:
    """The label probability at which the logit z is the minimiser of a label-wise loss, same shape as z, float64.

    A label with probability eta settles where eta |f+'(z)| = (1 - eta) f-'(z), so eta = f-' / (f-' + |f+'|). Both
    slopes are the trained ones, focusing detached or not. Derived here, not in the papers.

    >>> from lopsided.losses.catalog import parse
    >>> posterior(parse("bce"), torch.tensor([0.0]))
    tensor([0.5000], dtype=torch.float64)
    """
    if not loss.pool.per_label:
        raise ValueError(f"{loss.pool.name} losses couple the labels of a row: no per-label posterior exists")
    z = z.double()
    rise, fall = (torch.as_tensor(curve(z)[1]).expand_as(z) for curve in (loss.negative, loss.positive))
    return rise / (rise - fall)


def decision_threshold(loss: Loss, eta: float = 0.5) -> float:
    """The logit above which a label is predicted: there its implied posterior passes eta, 0 < eta < 1.

    Losses that couple the labels (ZLPR) rank them against 0 by construction, whatever eta. Returns infinity when
    the loss saturates: with a clip, posteriors above some bound all train towards z = infinity, and no finite
    logit separates eta if it lies beyond that bound.

    >>> from lopsided.losses.catalog import parse
    >>> round(decision_threshold(parse("asl")), 3)
    1.379
    """
    check_number("eta", eta, low=0, high=1)
    if not loss.pool.per_label:
        return 0.0
    low, high = -40.0, 40.0  # sigmoid there is 4e-18 away from 0 and 1: any eta that matters lies between
    if float(posterior(loss, torch.tensor(high))) < eta:
        return math.inf
    for _ in range(64):
        middle = (low + high) / 2
        if float(posterior(loss, torch.tensor(middle))) >= eta:
            high = middle
        else:
            low = middle
    return round(high, 12) + 0.0  # the slopes' own rounding; + 0.0 turns -0.0 into 0.0
