"""The soft-target form of the official ASL and APL codes, which is not a mixture of two losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lopsided.compute.executor import RowResult, Source
from lopsided.losses.curves import polynomial_negative, polynomial_positive
from lopsided.losses.formulas import Formula
from lopsided.losses.vocabulary import logistic
from lopsided.targets import Supervision

NAME = "product"
GRADIENT: Source = "autograd"
CHECKS_VALUES = False


def refusal(formula: Formula, logits: Tensor) -> str | None:
    """Works as `Executor.refusal`."""
    if (formula.positive.function, formula.negative.function) == (polynomial_positive, polynomial_negative):
        return None
    return f"soft_targets='product' is defined for bce, focal, asl and apl, not for {formula}"


def rows(formula: Formula, logits: Tensor, supervision: Supervision, **_: Any) -> RowResult:
    """Works as `Executor.rows`; differentiable twice."""
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets, known = supervision.dense(z.shape, z.dtype), supervision.known(z.shape)
    if known is not None:  # whatever stands there must not reach a power, nor its gradient
        z, targets = torch.where(known, z, 0.0), torch.where(known, targets, 0.0)
    smoothed = targets * (1 - supervision.label_smoothing) + supervision.label_smoothing / 2
    return RowResult(product_rows(z, smoothed, supervision.weights(z.shape, z.dtype), formula), None)


def product_rows(logits: Tensor, targets: Tensor, weights: tuple[Tensor, Tensor], formula: Formula) -> Tensor:
    """Returns (...) the sum over (..., L) of (1 - p_t)^gamma_t (a+ f+ + a- f-), f the curves without their focusing.

    p_t = y p + (1-y)(1 - p_m) and gamma_t = gamma_pos y + gamma_neg (1-y), y the targets. Equal to the mixture
    for hard targets. Plain autograd: slower than the mixture, and it saves more. For parity with published runs.
    """
    positive, negative = formula.positive, formula.negative
    p, q = logistic(logits)
    margin = negative.setting("margin")
    r = (p - margin).clamp_min(0.0) if margin else p
    miss = targets * q + (1 - targets) * r
    gamma = positive.setting("gamma") * targets + negative.setting("gamma") * (1 - targets)
    # 0^gamma is 0, and 1 where gamma is 0; the gradient of a power at 0 may be infinite, so it is taken elsewhere
    focus = torch.where(miss > 0, miss.clamp_min(torch.finfo(miss.dtype).tiny) ** gamma, (gamma == 0).to(miss.dtype))
    if positive.setting("detach") or negative.setting("detach"):
        focus = focus.detach()
    unfocused = [curve.without("gamma", "detach")(logits)[0] for curve in (positive, negative)]
    sides = (torch.where(a > 0, a * value, 0.0) for a, value in zip(weights, unfocused, strict=True))
    return (focus * sum(sides)).sum(-1)
