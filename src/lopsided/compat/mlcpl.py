"""The names of mlcpl 0.1, mlcpl/losses, whose targets are NaN where a label is unknown."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lopsided.compat.elements import label_wise
from lopsided.losses import Formula
from lopsided.losses.catalog import asymmetric, binary_cross_entropy, focal


class PartialLoss(nn.Module):
    """A label-wise loss of the known labels: `forward(logits, targets)`, (N, L) each.

    Deviations: a batch without a known label costs 0, where the original gives NaN; normalize=True is refused.

    >>> criterion = PartialLoss(binary_cross_entropy(), alpha_pos=2, alpha_neg=1, normalize=False, reduction="sum")
    >>> criterion(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, torch.nan]]))  # 3 log 2
    tensor(2.0794)
    """

    def __init__(self, formula: Formula, alpha_pos: float, alpha_neg: float, normalize: bool, reduction: str) -> None:
        super().__init__()
        if normalize:
            raise ValueError("normalize=True is not offered: weigh rows, (row_weight) of lopsided.MultiLabelLoss")
        if not (alpha_pos > 0 and alpha_neg > 0):
            raise ValueError(f"alpha_pos and alpha_neg must be above 0, got {alpha_pos} and {alpha_neg}")
        self.formula, self.alpha_pos, self.alpha_neg, self.reduction = formula, alpha_pos, alpha_neg, reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        pos_weight = None
        if self.alpha_pos != self.alpha_neg:
            pos_weight = torch.full(logits.shape[-1:], self.alpha_pos / self.alpha_neg, device=logits.device)
        return self.alpha_neg * label_wise(logits, targets, self.formula, self.reduction, pos_weight=pos_weight)


def PartialBCEWithLogitLoss(  # noqa: N802, the name is theirs
    alpha_pos: float = 1, alpha_neg: float = 1, normalize: bool = False, reduction: str = "mean"
) -> PartialLoss:
    """Returns binary cross-entropy of the known labels.

    >>> PartialBCEWithLogitLoss()(torch.zeros(1, 2), torch.tensor([[1.0, torch.nan]]))  # log 2
    tensor(0.6931)
    """
    return PartialLoss(binary_cross_entropy(), alpha_pos, alpha_neg, normalize, reduction)


def PartialFocalWithLogitLoss(  # noqa: N802
    gamma: float = 1,
    alpha_pos: float = 1,
    alpha_neg: float = 1,
    normalize: bool = False,
    discard_focal_grad: bool = True,
    reduction: str = "mean",
) -> PartialLoss:
    """Returns the focal loss of the known labels.

    >>> PartialFocalWithLogitLoss()(torch.zeros(1, 2), torch.tensor([[1.0, torch.nan]]))  # log(2) / 2
    tensor(0.3466)
    """
    return PartialLoss(focal(gamma, detach_focus=discard_focal_grad), alpha_pos, alpha_neg, normalize, reduction)


def PartialAsymmetricWithLogitLoss(  # noqa: N802
    clip: float = 0,
    gamma_pos: float = 0,
    gamma_neg: float = 1,
    alpha_pos: float = 1,
    alpha_neg: float = 1,
    normalize: bool = False,
    discard_focal_grad: bool = True,
    reduction: str = "mean",
) -> PartialLoss:
    """Returns ASL of the known labels; its defaults are not those of the paper.

    >>> PartialAsymmetricWithLogitLoss()(torch.zeros(1, 2), torch.tensor([[0.0, torch.nan]]))  # log(2) / 2
    tensor(0.3466)
    """
    formula = asymmetric(gamma_neg, gamma_pos, clip, discard_focal_grad)
    return PartialLoss(formula, alpha_pos, alpha_neg, normalize, reduction)
