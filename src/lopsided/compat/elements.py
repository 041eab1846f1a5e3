"""Computes label-wise losses reduced as other projects do: their "none" is a value for each label, not for each row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lopsided.losses import Formula
from lopsided.nn.functional import multilabel_loss


def label_wise(
    logits: Tensor,
    targets: Tensor,
    formula: Formula,
    reduction: str,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Returns a label-wise loss of (..., L) logits and targets; weight and pos_weight: (L,).

    reduction: as in `multilabel_loss`, but for "none": the shape of the logits. The rest as there. Raises ValueError
    for another reduction, and where a pos_weight meets soft targets without a reduction.

    >>> from lopsided.losses.catalog import binary_cross_entropy
    >>> label_wise(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), binary_cross_entropy(), "none")
    tensor([[0.6931, 0.6931]])
    """
    if reduction != "none":
        options |= {"weight": weight, "pos_weight": pos_weight}
        return multilabel_loss(logits, targets, formula, reduction=reduction, **options)
    weights_of_all = None if weight is None else weight.expand_as(logits)
    if pos_weight is not None:
        if not ((targets == 0) | (targets == 1) | (targets == options.get("ignore_index"))).all():
            raise ValueError("pos_weight with reduction='none' is for targets of 0 and 1, got others")
        of_positives = torch.where(targets == 1, pos_weight, 1.0)
        weights_of_all = of_positives if weights_of_all is None else weights_of_all * of_positives
    apart = logits.unsqueeze(-1), targets.unsqueeze(-1)
    weight = None if weights_of_all is None else weights_of_all.unsqueeze(-1)
    return multilabel_loss(*apart, formula, reduction="none", weight=weight, **options)
