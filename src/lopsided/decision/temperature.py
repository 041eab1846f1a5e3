"""The temperature that fits scores to validation data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lopsided.targets import SparseTargets, Supervision
from lopsided.targets.checks import check_inputs, check_values


def fit_temperature(logits: Tensor, targets: Tensor | SparseTargets, mask: Tensor | None = None) -> float:
    """The temperature T for which sigmoid(logit / T) has the highest likelihood on validation data.

    For losses without a posterior in closed form, such as ZLPR: T is 1/2 where soft targets were learnt, since those
    are minimal at sigmoid(2 z), and lies between 1/2 and 1 for hard ones. The likelihood is concave in 1/T, so the
    answer is unique; it stays within 0.001 and 1000, which scores that separate the labels perfectly would leave.
    Targets and mask as in `multilabel_loss`: unknown labels do not count.

    >>> z = torch.linspace(-2, 2, 101)
    >>> round(fit_temperature(z, torch.sigmoid(2 * z)), 6)
    0.5
    """
    labels = Supervision.of(targets, mask=mask)
    check_inputs(logits, labels)
    labels = check_values(logits, labels)
    up, down = labels.weights(logits.shape, torch.float64)
    z = torch.where(up + down > 0, logits.double(), 0.0)
    low, high = math.log(1e-3), math.log(1e3)  # of 1/T
    for _ in range(60):
        middle = (low + high) / 2
        p = torch.sigmoid(math.exp(middle) * z)
        too_steep = ((down * p - up * (1 - p)) * z).sum() > 0
        low, high = (low, middle) if too_steep else (middle, high)
    return math.exp(-low)
