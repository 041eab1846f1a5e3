"""The losses as functions: check, evaluate, reduce.

All share the arguments documented at `multilabel_loss`.
"""

from __future__ import annotations

from torch import Tensor

from lopsided.checks import check_inputs, check_reduction
from lopsided.compute import row_loss
from lopsided.losses import Loss, catalog
from lopsided.targets import Dense

__all__ = [
    "asymmetric_loss",
    "asymmetric_polynomial_loss",
    "binary_cross_entropy",
    "focal_loss",
    "multilabel_loss",
    "zlpr_loss",
]


def multilabel_loss(
    logits: Tensor, targets: Tensor, loss: Loss, *, mask: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Any `Loss` of logits and targets.

    Args:
        logits: (..., L), any float dtype; raw scores, not probabilities.
        targets: (..., L), bool, integer or float in [0, 1]; soft targets mix the two terms, y f+ + (1 - y) f-.
        loss: what to evaluate, as made by `lopsided.losses.catalog` or `lopsided.loss`.
        mask: (..., L) bool, True where the label is known; unknown labels cost nothing and are not counted.
        reduction: "none": one value per row, shape (...). "sum": their sum. "batchmean": the sum divided by the
            rows. "mean": label-wise losses divide by the known entries, as torch's BCEWithLogitsLoss does;
            losses that couple the labels of a row (ZLPR) divide by the rows. Rows without a known label are not
            counted, and with nothing known at all the result is 0, with zero gradient.

    Returns:
        float32 for 16-bit logits, else the dtype of the logits. The gradient has the dtype of the logits.

    Raises:
        TypeError, ValueError: on wrong shapes, dtypes, devices, or (on the CPU only) targets outside [0, 1].

    >>> import torch
    >>> logits, targets = torch.tensor([[2.0, -1.0], [0.5, 3.0]]), torch.tensor([[1, 0], [0, 1]])
    >>> multilabel_loss(logits, targets, catalog.zlpr(), reduction="none")
    tensor([0.4402, 1.0227])
    """
    check_inputs(logits, targets, mask)
    check_reduction(reduction)
    dense = Dense(targets, mask)
    rows = row_loss(logits, dense, loss)
    if reduction == "none":
        return rows
    total = rows.sum()
    if reduction == "sum":
        return total
    count = dense.count(per_label=loss.pool.per_label and reduction == "mean")
    return total / (max(count, 1) if isinstance(count, int) else count.clamp_min(1))


def binary_cross_entropy(
    logits: Tensor, targets: Tensor, *, mask: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """-y log p - (1-y) log(1-p), p = sigmoid(logit). Arguments as in `multilabel_loss`.

    With reduction="mean" this is torch's `binary_cross_entropy_with_logits`.
    """
    return multilabel_loss(logits, targets, catalog.binary_cross_entropy(), mask=mask, reduction=reduction)


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float = 2.0,
    detach_focus: bool = False,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Focal loss without alpha, eq. 4 of arXiv 1708.02002. gamma >= 0; other arguments as in `multilabel_loss`."""
    return multilabel_loss(logits, targets, catalog.focal(gamma, detach_focus), mask=mask, reduction=reduction)


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_neg: float = 4.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    detach_focus: bool = True,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """ASL, arXiv 2009.14119; see `lopsided.AsymmetricLoss`. Other arguments as in `multilabel_loss`."""
    loss = catalog.asymmetric(gamma_neg, gamma_pos, clip, detach_focus)
    return multilabel_loss(logits, targets, loss, mask=mask, reduction=reduction)


def asymmetric_polynomial_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_neg: float = 4.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    epsilon_pos: float = 1.0,
    epsilon_neg: float = 0.0,
    epsilon_pos_pow: float = -2.5,
    detach_focus: bool = True,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """APL, arXiv 2304.05361; see `lopsided.AsymmetricPolynomialLoss`. Other arguments as in `multilabel_loss`."""
    loss = catalog.asymmetric_polynomial(
        gamma_neg, gamma_pos, clip, epsilon_pos, epsilon_neg, epsilon_pos_pow, detach_focus
    )
    return multilabel_loss(logits, targets, loss, mask=mask, reduction=reduction)


def zlpr_loss(logits: Tensor, targets: Tensor, *, mask: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """ZLPR, arXiv 2208.02955; see `lopsided.ZLPRLoss`. Arguments as in `multilabel_loss`."""
    return multilabel_loss(logits, targets, catalog.zlpr(), mask=mask, reduction=reduction)
