"""The losses as modules: each stores a `Loss` and a reduction, and calls `lopsided.functional`."""

from __future__ import annotations

from torch import Tensor, nn

from lopsided.checks import check_reduction
from lopsided.functional import multilabel_loss
from lopsided.losses import Loss, catalog


class MultiLabelLoss(nn.Module):
    """A module around any `Loss`. Call it with logits, targets and optionally a mask: `multilabel_loss`.

    >>> import torch, lopsided
    >>> criterion = MultiLabelLoss(lopsided.loss("asl(gamma_neg=2)"), reduction="batchmean")
    >>> criterion(torch.zeros(4, 3), torch.tensor([[1, 0, 0]] * 4))
    tensor(0.9353)
    """

    def __init__(self, loss: Loss, reduction: str = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.loss = loss
        self.reduction = reduction

    def forward(self, logits: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        return multilabel_loss(logits, targets, self.loss, mask=mask, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"{self.loss}, reduction={self.reduction!r}"


class BinaryCrossEntropyLoss(MultiLabelLoss):
    """-y log p - (1-y) log(1-p), p = sigmoid(logit): `torch.nn.BCEWithLogitsLoss`, with a mask.

    >>> import torch
    >>> float(BinaryCrossEntropyLoss()(torch.zeros(2, 3), torch.ones(2, 3)))  # log 2
    0.6931471824645996
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(catalog.binary_cross_entropy(), reduction)


class FocalLoss(MultiLabelLoss):
    """-y (1-p)^g log p - (1-y) p^g log(1-p).

    Args:
        gamma: focusing g >= 0; 0 is binary cross-entropy.
        detach_focus: stop the gradient at the focusing weights; the published loss does not.
        reduction: see `lopsided.functional.multilabel_loss`.

    >>> import torch
    >>> FocalLoss(gamma=2)(torch.zeros(1, 2), torch.tensor([[1, 0]]))  # log(2) / 4
    tensor(0.1733)

    Source: Lin et al. 2017, arXiv 1708.02002, eq. 4, without alpha.
    """

    def __init__(self, gamma: float = 2.0, detach_focus: bool = False, reduction: str = "mean") -> None:
        super().__init__(catalog.focal(gamma, detach_focus), reduction)


class AsymmetricLoss(MultiLabelLoss):
    """ASL: -y (1-p)^g+ log p - (1-y) p_m^g- log(1-p_m), p_m = max(p - clip, 0).

    Args:
        gamma_neg: focusing of the negatives, >= 0.
        gamma_pos: focusing of the positives, >= 0; the official class defaults to 1, the paper uses 0.
        clip: probability margin in [0, 1) below which a negative costs nothing.
        detach_focus: stop the gradient at the focusing weights, as the published training does.
        reduction: see `lopsided.functional.multilabel_loss`; the official code always sums.

    Raises ValueError for settings out of range. Predict where logit > `lopsided.decision_threshold(criterion.loss)`:
    1.379 with these defaults, not 0.

    >>> import torch
    >>> AsymmetricLoss()(torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1, 0, 0]]))
    tensor(0.0729)

    Source: Ben-Baruch, Ridnik et al. 2020, arXiv 2009.14119. Deviations: no eps clamp (a positive at logit -50
    keeps its gradient), soft targets mix the two terms, the caller's grad mode is left alone.
    """

    def __init__(
        self,
        gamma_neg: float = 4.0,
        gamma_pos: float = 0.0,
        clip: float = 0.05,
        detach_focus: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__(catalog.asymmetric(gamma_neg, gamma_pos, clip, detach_focus), reduction)


class AsymmetricPolynomialLoss(MultiLabelLoss):
    """APL: ASL whose leading Taylor coefficients are re-weighted.

    Positives cost (1-p)^g+ (-log p - epsilon_pos (1-p) - epsilon_pos_pow/2 (1-p)^2), negatives
    p_m^g- (-log(1-p_m) - epsilon_neg (1-p_m)), p_m = max(p - clip, 0).

    Args:
        gamma_neg, gamma_pos, clip, detach_focus: as in `AsymmetricLoss`.
        epsilon_pos, epsilon_pos_pow: finite; the first two coefficients of -log p in powers of 1 - p become
            1 - epsilon_pos and (1 - epsilon_pos_pow)/2: 0 and 1.75 by default.
        epsilon_neg: finite; the first coefficient of -log(1-p_m) becomes 1 + epsilon_neg, and a constant
            -epsilon_neg is added, as in the official code.
        reduction: see `lopsided.functional.multilabel_loss`; the official code always sums.

    >>> import torch
    >>> AsymmetricPolynomialLoss()(torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1, 0, 0]]))
    tensor(0.0391)

    Source: Huang et al. 2023, arXiv 2304.05361, with the signs of its official code. Deviations as in
    `AsymmetricLoss`; in the official code the epsilons are fixed.
    """

    def __init__(
        self,
        gamma_neg: float = 4.0,
        gamma_pos: float = 0.0,
        clip: float = 0.05,
        epsilon_pos: float = 1.0,
        epsilon_neg: float = 0.0,
        epsilon_pos_pow: float = -2.5,
        detach_focus: bool = True,
        reduction: str = "mean",
    ) -> None:
        loss = catalog.asymmetric_polynomial(
            gamma_neg, gamma_pos, clip, epsilon_pos, epsilon_neg, epsilon_pos_pow, detach_focus
        )
        super().__init__(loss, reduction)


class ZLPRLoss(MultiLabelLoss):
    """ZLPR: log(1 + sum_neg e^z) + log(1 + sum_pos e^-z); a label is predicted where z > 0.

    Soft targets t: log(1 + sum t e^-z) + log(1 + sum (1-t) e^z), minimal at t = sigmoid(2z). Each half's gradient
    sums to less than 1 per row, whatever the number of labels. `reduction="mean"` divides by rows.

    >>> import torch
    >>> ZLPRLoss()(torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1, 0, 0]]))
    tensor(1.2311)

    Source: Su et al. 2022, arXiv 2208.02955. Deviation: unknown labels are given by a mask, not by logits of
    -infinity.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(catalog.zlpr(), reduction)
