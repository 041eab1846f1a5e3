"""The names of Alibaba-MIIL/ASL, src/loss_functions/losses.py of January 2023."""

from __future__ import annotations

from torch import Tensor, nn

from lopsided.losses.catalog import asymmetric
from lopsided.nn.modules import MultiLabelLoss
from lopsided.nn.single_label import official_single_label_loss


class AsymmetricLoss(MultiLabelLoss):
    """ASL, summed over the batch: `forward(x, y)` with (N, L) logits and targets in [0, 1].

    >>> import torch
    >>> AsymmetricLoss()(torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1, 0, 0]]))
    tensor(0.1070)

    Source: Ben-Baruch, Ridnik et al. 2020, arXiv 2009.14119. Deviations: no clamp by eps, and grad mode is left alone.
    """

    def __init__(
        self,
        gamma_neg: float = 4,
        gamma_pos: float = 1,
        clip: float | None = 0.05,
        eps: float = 1e-8,
        disable_torch_grad_focal_loss: bool = True,
    ) -> None:
        formula = asymmetric(gamma_neg, gamma_pos, clip or 0.0, disable_torch_grad_focal_loss)
        super().__init__(formula, soft_targets="product", reduction="sum")


class AsymmetricLossOptimized(AsymmetricLoss):
    """The same, whose focusing weights are not detached by default. It keeps no state of a batch.

    >>> print(AsymmetricLossOptimized().formula)
    asl(gamma_neg=4, gamma_pos=1, clip=0.05, detach_focus=False)
    """

    def __init__(
        self,
        gamma_neg: float = 4,
        gamma_pos: float = 1,
        clip: float | None = 0.05,
        eps: float = 1e-8,
        disable_torch_grad_focal_loss: bool = False,
    ) -> None:
        super().__init__(gamma_neg, gamma_pos, clip, eps, disable_torch_grad_focal_loss)


class ASLSingleLabel(nn.Module):
    """ASL of softmax probabilities as the official code computes it: `forward(inputs, target)`, (N, C) and (N,).

    eps is the label smoothing here, on which alone gamma_neg acts; see `lopsided.official_single_label_loss`.

    >>> import torch
    >>> ASLSingleLabel()(torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.3, -2]]), torch.tensor([0, 2]))
    tensor(1.4914)
    """

    def __init__(self, gamma_pos: float = 0, gamma_neg: float = 4, eps: float = 0.1, reduction: str = "mean") -> None:
        super().__init__()
        self.gamma_pos, self.gamma_neg, self.eps, self.reduction = gamma_pos, gamma_neg, eps, reduction

    def forward(self, inputs: Tensor, target: Tensor) -> Tensor:
        settings = self.gamma_pos, self.gamma_neg, self.eps
        reduction = "mean" if self.reduction == "mean" else "none"  # as there: anything else is a value for each row
        return official_single_label_loss(inputs, target, *settings, reduction=reduction)
