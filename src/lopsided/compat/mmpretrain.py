"""The names of mmpretrain, mmpretrain/models/losses of November 2024."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import one_hot

from lopsided.compat.elements import label_wise
from lopsided.losses import Formula
from lopsided.losses.catalog import asymmetric, focal
from lopsided.nn.single_label import log_odds


def asymmetric_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma_pos: float = 1.0,
    gamma_neg: float = 4.0,
    clip: float | None = 0.05,
    reduction: str = "mean",
    avg_factor: float | None = None,
    use_sigmoid: bool = True,
    eps: float = 1e-8,
) -> Tensor:
    """Computes ASL of (N, L) logits and targets in {0, 1}. weight: (N,), of rows. avg_factor: what "mean" divides by.

    >>> import torch
    >>> asymmetric_loss(torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1, 0, 0]]))
    tensor(0.0357)

    Source: arXiv 2009.14119. Deviations: no clamp by eps; soft targets mix the two terms, not the probabilities.
    """
    logits = pred if use_sigmoid else log_odds(pred)
    return _reduced(logits, target, asymmetric(gamma_neg, gamma_pos, clip or 0.0, False), weight, reduction, avg_factor)


def sigmoid_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    reduction: str = "mean",
    avg_factor: float | None = None,
) -> Tensor:
    """Computes the focal loss of (N, L) logits and targets in {0, 1}. weight: (N,), of rows.

    >>> import torch
    >>> sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([[1, 0]]))
    tensor(0.0866)

    Source: arXiv 1708.02002. Deviation: soft targets mix the two terms, not the probabilities.
    """
    return _reduced(pred, target, focal(gamma, alpha), weight, reduction, avg_factor)


class _Loss(nn.Module):
    def __init__(self, formula: Formula, reduction: str, loss_weight: float, use_sigmoid: bool = True) -> None:
        super().__init__()
        self.formula, self.reduction, self.loss_weight, self.use_sigmoid = formula, reduction, loss_weight, use_sigmoid

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Computes the loss of (N, L) logits; target: (N, L) in {0, 1}, or (N,) or (N, 1) class numbers."""
        if target.ndim == 1 or target.shape[1:] == (1,):
            target = one_hot(target.reshape(-1).long(), pred.shape[-1])
        logits = pred if self.use_sigmoid else log_odds(pred)
        reduction = reduction_override or self.reduction
        return self.loss_weight * _reduced(logits, target, self.formula, weight, reduction, avg_factor)

    def extra_repr(self) -> str:
        return f"{self.formula}, reduction={self.reduction!r}, loss_weight={self.loss_weight:g}"


class AsymmetricLoss(_Loss):
    """ASL, whose gamma_pos is 0 by default where that of the function is 1.

    >>> import torch
    >>> AsymmetricLoss()(torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([0]))
    tensor(0.0729)
    """

    def __init__(
        self,
        gamma_pos: float = 0.0,
        gamma_neg: float = 4.0,
        clip: float | None = 0.05,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        use_sigmoid: bool = True,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(asymmetric(gamma_neg, gamma_pos, clip or 0.0, False), reduction, loss_weight, use_sigmoid)


class FocalLoss(_Loss):
    """Focal loss with sigmoids.

    >>> import torch
    >>> FocalLoss()(torch.zeros(1, 2), torch.tensor([[1, 0]]))
    tensor(0.0866)
    """

    def __init__(
        self, gamma: float = 2.0, alpha: float = 0.25, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None:
        super().__init__(focal(gamma, alpha), reduction, loss_weight)


def _reduced(
    logits: Tensor, target: Tensor, formula: Formula, weight: Tensor | None, reduction: str, avg_factor: float | None
) -> Tensor:
    """Reduces as mmpretrain does: "mean" divides by all entries, whatever rows weigh, or by avg_factor."""
    if avg_factor is not None and reduction not in ("mean", "none"):
        raise ValueError(f"avg_factor is for reduction='mean', got reduction={reduction!r}")
    of_rows = None if weight is None else weight.float()
    if reduction == "none":
        values = label_wise(logits, target, formula, "none")
        return values if of_rows is None else values * of_rows.unsqueeze(-1)
    if avg_factor is None:
        return label_wise(logits, target, formula, reduction, row_weight=of_rows)
    return label_wise(logits, target, formula, "sum", row_weight=of_rows) / avg_factor
