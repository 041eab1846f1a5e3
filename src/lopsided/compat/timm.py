"""The names of timm, timm/loss/asymmetric_loss.py of 2026."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.compat import asl
from lopsided.compat.elements import label_wise
from lopsided.losses.catalog import asymmetric
from lopsided.nn.modules import MultiLabelLoss


class AsymmetricLossMultiLabel(MultiLabelLoss):
    """ASL: `forward(x, y)` with (N, L) logits and targets in [0, 1].

    Args:
        reduction: "batchmean"; "sum", what timm did before it had this argument; "mean"; or "none", a value for each
            label.
        smoothing: moves targets towards 0.5.
        weight: (L,). pos_weight: (L,), or a number.

    >>> AsymmetricLossMultiLabel()(torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1, 0, 0]]))
    tensor(0.1070)

    Source: arXiv 2009.14119. Deviations: no clamp by eps, 16-bit logits have 16-bit gradients.
    """

    def __init__(
        self,
        gamma_neg: float = 4,
        gamma_pos: float = 1,
        clip: float | None = 0.05,
        eps: float = 1e-8,
        disable_torch_grad_focal_loss: bool = False,
        smoothing: float = 0.0,
        reduction: str = "batchmean",
        weight: Tensor | None = None,
        pos_weight: Tensor | float | None = None,
    ) -> None:
        formula = asymmetric(gamma_neg, gamma_pos, clip or 0.0, disable_torch_grad_focal_loss)
        if pos_weight is not None:
            pos_weight = torch.as_tensor(pos_weight, dtype=torch.get_default_dtype())
        super().__init__(
            formula,
            weight=weight,
            pos_weight=pos_weight,
            label_smoothing=smoothing,
            soft_targets="product",
            reduction=reduction,
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]  # timm's has two arguments
        pos_weight = self.pos_weight
        if pos_weight is not None and pos_weight.ndim == 0:
            pos_weight = pos_weight.expand(x.shape[-1])
        options = {"label_smoothing": self.label_smoothing, "soft_targets": self.soft_targets}
        return label_wise(x, y, self.formula, self.reduction, self.weight, pos_weight, **options)


class AsymmetricLossSingleLabel(asl.ASLSingleLabel):
    """ASL of softmax probabilities, whose gamma_pos is 1 by default: `forward(inputs, target)`, (N, C) and (N,).

    >>> AsymmetricLossSingleLabel()(torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.3, -2]]), torch.tensor([0, 2]))
    tensor(1.3310)
    """

    def __init__(self, gamma_pos: float = 1, gamma_neg: float = 4, eps: float = 0.1, reduction: str = "mean") -> None:
        super().__init__(gamma_pos, gamma_neg, eps, reduction)

    def forward(self, inputs: Tensor, target: Tensor, reduction: str | None = None) -> Tensor:
        """Computes the loss; like timm's it takes a reduction here, which does nothing."""
        return super().forward(inputs, target)
