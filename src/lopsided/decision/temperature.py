"""Finds the temperature that fits scores to validation data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lopsided.targets import SparseTargets, Supervision
from lopsided.targets.checks import check_inputs, check_values

if TYPE_CHECKING:  # not needed to run
    from numpy.typing import NDArray


def fit_temperature(
    logits: Tensor | NDArray[Any],
    targets: Tensor | NDArray[Any] | SparseTargets,
    mask: Tensor | None = None,
    *,
    ignore_index: int | None = None,
) -> float:
    """Returns the temperature T for which sigmoid(logit / T) has the highest likelihood on validation data.

    For losses without a posterior in closed form, such as ZLPR: T is 1/2 where soft targets were learnt, since those
    are minimal at sigmoid(2 z), and lies between 1/2 and 1 for hard ones. The likelihood is concave in 1/T, so the
    answer is unique; it stays within 0.001 and 1000, and is 0.001 where scores separate the labels perfectly, for which
    no T is low enough. Targets, mask and ignore_index as in `multilabel_loss`: unknown labels do not count.
    `lopsided.decision.calibrators.Temperature(T)` is the map.

    Raises ValueError where no temperature fits: logits of known labels that are not finite, no known label, labels all
    true or all false, or logits that are not higher where labels are true, for which no T is high enough.

    >>> z = torch.linspace(-2, 2, 101)
    >>> round(fit_temperature(z, torch.sigmoid(2 * z)), 6)
    0.5
    """
    logits = torch.as_tensor(logits)
    targets = targets if isinstance(targets, SparseTargets) else torch.as_tensor(targets)
    supervision = Supervision.of(targets, ignore_index, mask=mask)
    check_inputs(logits, supervision)
    up, down = check_values(logits, supervision).weights(logits.shape, torch.float64)
    known = up + down > 0
    z = torch.where(known, logits.double(), 0.0)
    _check(z, known, up, down)
    low, high = math.log(1e-3), math.log(1e3)  # bounds of 1/T
    for _ in range(60):
        middle = (low + high) / 2
        if _slope(z, up, down, math.exp(middle)) > 0:
            high = middle
        else:
            low = middle
    return math.exp(-low)


def _slope(z: Tensor, up: Tensor, down: Tensor, steepness: float) -> Tensor:
    """Returns the derivative of minus the log-likelihood at this 1/T."""
    p = torch.sigmoid(steepness * z)
    return ((down * p - up * (1 - p)) * z).sum()


def _check(z: Tensor, known: Tensor, up: Tensor, down: Tensor) -> None:
    if not z.isfinite().all():
        raise ValueError(
            f"{int((~z.isfinite()).sum())} of {int(known.sum())} logits of known labels are NaN or infinite"
        )
    if not known.any():
        raise ValueError("no label is known: there is nothing to fit a temperature to")
    for side, weight in (("false", up), ("true", down)):
        if not weight.any():
            raise ValueError(f"all {int(known.sum())} known labels are {side}: no temperature fits that")
    if _slope(z, up, down, 0.0) >= 0:
        raise ValueError(
            "the logits are not higher where labels are true, so no temperature fits: are logits and targets of the "
            "same rows and labels? Where only their level is off, lopsided.decision.calibrators.fit_platt fits one"
        )
