"""The name of LUMIA-Group/APL, APLloss.py of April 2023."""

from __future__ import annotations

from lopsided.losses.catalog import asymmetric_polynomial
from lopsided.nn.modules import MultiLabelLoss


class APLLoss(MultiLabelLoss):
    """APL, summed over the batch: `forward(x, y)` with (N, L) logits and targets in [0, 1].

    Its coefficients are those that the original fixes: epsilon_pos 1, epsilon_neg 0, epsilon_pos_pow -2.5.

    >>> import torch
    >>> APLLoss()(torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1, 0, 0]]))
    tensor(0.1173)

    Source: Huang et al. 2023, arXiv 2304.05361. Deviations: no clamp by eps, and grad mode is left alone.
    """

    def __init__(
        self,
        gamma_neg: float = 4,
        gamma_pos: float = 0,
        clip: float | None = 0.05,
        eps: float = 1e-8,
        disable_torch_grad_focal_loss: bool = True,
    ) -> None:
        formula = asymmetric_polynomial(
            gamma_neg, gamma_pos, clip or 0.0, detach_focus=disable_torch_grad_focal_loss, monotone=False
        )
        super().__init__(formula, soft_targets="product", reduction="sum")
