"""The names of kornia 0.9, kornia/losses/focal.py, for logits of independent labels."""

from __future__ import annotations

from torch import Tensor, nn

from lopsided.compat.elements import label_wise
from lopsided.losses.catalog import focal


def binary_focal_loss_with_logits(
    pred: Tensor,
    target: Tensor,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
    pos_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = -100,
) -> Tensor:
    """Computes the focal loss of (N, C, ...) logits and targets in [0, 1]; "none" keeps the shape.

    pos_weight, weight: (C,).

    >>> import torch
    >>> binary_focal_loss_with_logits(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([[0.0433, 0.1300]])

    Source: arXiv 1708.02002. Deviation: "mean" divides by the known entries, the original by those to be ignored too.
    """
    logits, targets = pred.movedim(1, -1), target.movedim(1, -1)
    formula = focal(gamma, alpha)
    value = label_wise(logits, targets, formula, reduction, weight, pos_weight, ignore_index=ignore_index)
    return value.movedim(-1, 1) if reduction == "none" else value


class BinaryFocalLossWithLogits(nn.Module):
    """The same as a module: `forward(pred, target)`.

    >>> import torch
    >>> BinaryFocalLossWithLogits(0.25, reduction="sum")(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor(0.1733)
    """

    pos_weight: Tensor | None
    weight: Tensor | None

    def __init__(
        self,
        alpha: float | None,
        gamma: float = 2.0,
        reduction: str = "none",
        pos_weight: Tensor | None = None,
        weight: Tensor | None = None,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__()
        self.alpha, self.gamma, self.reduction, self.ignore_index = alpha, gamma, reduction, ignore_index
        self.register_buffer("pos_weight", pos_weight, persistent=False)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        settings = self.alpha, self.gamma, self.reduction, self.pos_weight, self.weight, self.ignore_index
        return binary_focal_loss_with_logits(pred, target, *settings)
