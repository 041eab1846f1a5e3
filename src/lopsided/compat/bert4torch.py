"""The names of bert4torch, bert4torch/losses.py: ZLPR, dense and from index lists."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lopsided.nn.functional import multilabel_loss


class MultilabelCategoricalCrossentropy(nn.Module):
    """ZLPR, the mean over rows: `forward(y_pred, y_true)` with (..., L) logits and targets in [0, 1].

    >>> MultilabelCategoricalCrossentropy()(torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1, 0, 0]]))
    tensor(1.2311)

    Source: Su et al. 2022, arXiv 2208.02955. Deviation: soft targets have the value of the paper, where the original
    gives 0.
    """

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        return multilabel_loss(y_pred, y_true, "zlpr", reduction="batchmean")


class SparseMultilabelCategoricalCrossentropy(nn.Module):
    """ZLPR of index lists, (...), a value for each row: `forward(y_pred, y_true)`, (..., L) logits and (..., P) int64.

    mask_zero: whether index 0 fills up lists, and stands for no label. epsilon: not used, since positives are left out
    of the sum of the negatives, not subtracted from it.

    >>> logits, positives = torch.tensor([[1.0, -2.0, 0.5, 3.0]]), torch.tensor([[0, 2]])
    >>> SparseMultilabelCategoricalCrossentropy()(logits, positives)
    tensor([3.7353])

    Source: arXiv 2208.02955. Deviations: exact where a positive logit is above 10, where the original falls below 0; an
    index that stands twice in a list counts once.
    """

    def __init__(self, mask_zero: bool = False, epsilon: float = 1e-7) -> None:
        super().__init__()
        self.mask_zero = mask_zero

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        targets = torch.zeros_like(y_pred, dtype=torch.bool).scatter(-1, y_true, True)
        mask = None
        if self.mask_zero:
            mask = torch.ones_like(targets)
            mask[..., 0] = False
        return multilabel_loss(y_pred, targets, "zlpr", mask=mask, reduction="none")
