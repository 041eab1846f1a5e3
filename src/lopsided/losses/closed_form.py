"""What a trained score means: the posterior and the decision threshold that a loss implies, in closed form.

Derived here, not in the papers. A label with probability eta settles where eta w |f+'(z)| = (1 - eta) f-'(z), w
being the weight of positives in training, so eta = f-' / (f-' + w |f+'|). The slopes are the trained ones,
focusing detached or not. Label smoothing e trains towards (1 - e) eta + e/2, which is undone afterwards.
"""

from __future__ import annotations

import functools
import math
import warnings

import torch
from torch import Tensor

from lopsided.losses.checks import check_number, check_thresholded, stacklevel_of_user
from lopsided.losses.formulas import Formula

_FAR = 40.0  # sigmoid is 4e-18 away from 0 and 1 there: any posterior that matters lies between


def posterior(
    formula: Formula, logits: Tensor, pos_weight: Tensor | float = 1.0, label_smoothing: float = 0.0
) -> Tensor:
    """Computes the probability of a label whose trained logit is z.

    Args:
        logits: any shape, any float dtype.
        pos_weight, label_smoothing: as in training; pos_weight must broadcast with the logits.

    Returns:
        The shape of the logits, float64, in [0, 1].

    Raises:
        ValueError: for losses that couple the labels of a row: their scores have no label-wise meaning.

    >>> import torch, lopsided
    >>> posterior(lopsided.losses.formula("asl"), torch.tensor([0.0, 1.379]))
    tensor([0.0359, 0.5000], dtype=torch.float64)
    """
    if not formula.pool.per_label:
        raise ValueError(
            f"{formula} couples the labels of a row, so no per-label posterior exists; fit a temperature on validation "
            "data instead: lopsided.fit_temperature"
        )
    if not torch.compiler.is_compiling():  # a graph cannot branch on numbers
        _check_training(pos_weight, label_smoothing)
        _check_one_to_one(formula)
    rise, fall = _slopes(formula, logits.double())
    return (rise / (rise + pos_weight * fall) - label_smoothing / 2).div(1 - label_smoothing).clamp(0, 1)


def posterior_limits(
    formula: Formula, pos_weight: Tensor | float = 1.0, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Computes the smallest and the largest posterior that a logit can stand for, each float64 of pos_weight's shape.

    They are those at z = -40 and z = 40. A label whose probability lies beyond trains towards infinity.
    """
    far = torch.full_like(as_double(pos_weight), _FAR)
    low, high = (posterior(formula, z, pos_weight, label_smoothing) for z in (-far, far))
    return low, high


def decision_threshold(
    formula: Formula, eta: float = 0.5, pos_weight: Tensor | float = 1.0, label_smoothing: float = 0.0
) -> Tensor:
    """Computes the logit above which a label is predicted: there its implied posterior passes eta, 0 < eta < 1.

    ZLPR and ATL rank labels against a threshold by construction, whatever eta; a pos_weight w moves that of ZLPR by
    log(w) / 2, divided by its scale, and that of ATL to where a label alone in its row settles.

    Args:
        pos_weight, label_smoothing: as in training.

    Returns:
        float64, of the shape of pos_weight, () for a number; tensors and arrays of numpy can be compared with it.
        Infinity where the loss saturates, which a UserWarning says: with a clip and gamma_pos=0, labels more probable
        than `posterior_limits()[1]` all train towards z = infinity, and no finite logit separates them.

    Raises:
        ValueError: for losses that only rank labels among each other.

    >>> import lopsided
    >>> decision_threshold(lopsided.losses.formula("asl"))
    tensor(1.3790, dtype=torch.float64)
    """
    check_number("eta", eta, low=0, high=1)
    _check_training(pos_weight, label_smoothing)
    weight = as_double(pos_weight)
    smoothed = eta * (1 - label_smoothing) + label_smoothing / 2
    odds = smoothed / (1 - smoothed) if formula.pool.per_label else 1.0
    threshold = settled_logit(formula, odds * weight)
    if threshold.isinf().any():
        _warn_of_saturation(formula, odds, weight, threshold.isinf())
    # else numpy leaves `array > threshold` to torch, which compares with no array
    threshold.__array_priority__ = -1
    return threshold


def settled_logit(formula: Formula, odds: Tensor | float) -> Tensor:
    """Computes the logits at which labels settle that have these odds of a positive, its weight in training included.

    Args:
        odds: any shape, positive: w eta / (1 - eta) for a label of probability eta with a pos_weight of w.

    Returns:
        The shape of odds, float64; infinity where the loss saturates before. For ZLPR and ATL the logit of a label
        alone in its row.

    Raises:
        ValueError: for losses that only rank labels among each other, or under which a score stands for no probability.

    >>> import lopsided
    >>> settled_logit(lopsided.losses.formula("bce"), torch.tensor([0.25, 4.0]))
    tensor([-1.3863,  1.3863], dtype=torch.float64)
    """
    check_thresholded(formula)
    if formula.pool.per_label:
        _check_one_to_one(formula)
    each, place = as_double(odds).unique(return_inverse=True)

    def passed(z: Tensor) -> Tensor:
        if formula.pool.per_label:
            negative, positive = _slopes(formula, z)
            return negative.ge(each * positive)
        return formula.pool.has_settled((formula.positive(z)[0], formula.negative(z)[0]), each.log())

    high = torch.full_like(each, _FAR if formula.pool.per_label else 1e4)
    low, saturated = -high, ~passed(high)
    for _ in range(80):
        middle = (low + high) / 2
        above = passed(middle)
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    rounded = torch.round(high, decimals=12) + 0.0  # the slopes' own rounding; + 0.0 turns -0.0 into 0.0
    return torch.where(saturated, math.inf, rounded)[place]


def implied_log_odds(formula: Formula, logits: Tensor) -> Tensor:
    """Computes the log odds of a label that settled at z, of which `settled_logit` is the inverse.

    Args:
        formula: of a loss that judges labels alone, or ZLPR, for a label alone in its row.
        logits: any shape, any float dtype.

    Returns:
        The shape of the logits, float64; -inf and inf where a loss with a margin has no slope on one side.

    Raises:
        ValueError: as `settled_logit` does.

    >>> import torch, lopsided
    >>> implied_log_odds(lopsided.losses.formula("zlpr"), torch.tensor([0.0, 0.5]))
    tensor([0., 1.], dtype=torch.float64)
    """
    check_thresholded(formula)
    z = logits.double()
    if not formula.pool.per_label:
        return formula.negative(z)[0] - formula.positive(z)[0]
    _check_one_to_one(formula)
    rise, fall = _slopes(formula, z)
    return rise.log() - fall.log()


def _slopes(formula: Formula, z: Tensor) -> tuple[Tensor, Tensor]:
    """Computes f-' and -f+' at z, which is held within +-40: beyond, both may underflow."""
    z = z.clamp(-_FAR, _FAR)
    rise, fall = (
        torch.as_tensor(curve(z)[1], device=z.device).expand_as(z) for curve in (formula.negative, formula.positive)
    )
    return rise, -fall


@functools.lru_cache
def _check_one_to_one(formula: Formula) -> None:
    """Refuses losses under which a more probable label may settle at a lower logit, as hill with a wide margin.

    And at the same one between 0 and 1: under the hinge all labels that are more probable than not settle at 1.
    """
    z = torch.linspace(-_FAR, _FAR, 4001, dtype=torch.float64, device="cpu")
    rise, fall = _slopes(formula, z)
    share = rise / (rise + fall)  # outside of [0, 1] where a label is pushed the wrong way
    level = (share.diff() == 0) & (share[1:] > 0.01) & (share[1:] < 0.99) & (z[1:].abs() < 10)  # beyond, by rounding
    if (share.diff() < -1e-9).any() or level.any() or (share < -1e-9).any() or (share > 1 + 1e-9).any():
        raise ValueError(
            f"under {formula} a more probable label does not always get a higher score, so scores stand for no "
            "probability: tune a threshold on validation data, or change the settings"
        )


def _warn_of_saturation(formula: Formula, odds: float, weight: Tensor, saturated: Tensor) -> None:
    rise, fall = (float(slope) for slope in _slopes(formula, torch.tensor(_FAR, dtype=torch.float64, device="cpu")))
    heaviest = weight[saturated].max()
    count = f"{int(saturated.sum())} of {saturated.numel()} labels" if saturated.ndim else "every label"
    warnings.warn(
        f"{formula} saturates for {count}: with a pos_weight of {heaviest:g} no logit stands for a probability above "
        f"{rise / (rise + heaviest * fall):.3f}, so the threshold is infinite and nothing is predicted. Train with a "
        f"pos_weight below {rise / fall / odds:.3g}, or with gamma_pos above 0 or a smaller clip where the loss has "
        "them, or tune a threshold on validation data",
        stacklevel=stacklevel_of_user(),
    )


def as_double(value: Tensor | float) -> Tensor:
    """Returns value in float64: a tensor on its device, a number on the CPU, whatever the default device is."""
    return value.double() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64, device="cpu")


def _check_training(pos_weight: Tensor | float, label_smoothing: float) -> None:
    check_number("label_smoothing", label_smoothing, low=0, high=1)
    weight = as_double(pos_weight)
    if not ((weight > 0) & (weight < math.inf)).all():
        raise ValueError(f"pos_weight must be finite and positive, got {weight.min():g} to {weight.max():g}")


def discarding_point(formula: Formula) -> float:
    """Returns the logit above which the gradient on a negative falls: what a loss begins to discard as mislabelled.

    Infinite where it never falls, as in cross-entropy, and where the labels of a row are coupled, so that no single
    point exists. To 0.001. The loss's other end, the clip, discards only easy negatives, never suspects.

    >>> import lopsided
    >>> round(discarding_point(lopsided.losses.formula("asl")), 2), discarding_point(lopsided.losses.formula("bce"))
    (2.55, inf)

    Source: the regimes of a negative in arXiv 2009.14119, section 2.5, of the slope that training really uses.
    """
    if not formula.pool.per_label:
        return math.inf
    z = torch.linspace(-40, 40, 80_001, dtype=torch.float64, device="cpu")
    slope = torch.as_tensor(formula.negative(z)[1], device=z.device).expand_as(z)
    peak = int(slope.argmax())
    return float(z[peak]) if slope[-1] < slope[peak] * (1 - 1e-9) else math.inf


def profile(formula: Formula, z: Tensor, positive: bool) -> tuple[Tensor, Tensor]:
    """Maps (n,) logits of one label to value and gradient, each (n,).

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
