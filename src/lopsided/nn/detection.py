"""Object detection: a loss per anchor and class, in the place of the focal loss of the detectors."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.losses import catalog
from lopsided.nn.functional import multilabel_loss

REDUCTIONS = ("none", "mean", "sum", "positives")


def sigmoid_asymmetric_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
    *,
    gamma_pos: float | None = None,
    clip: float = 0.0,
    detach_focus: bool = False,
    ignore_index: int | None = None,
    num_positives: Tensor | float | None = None,
) -> Tensor:
    """Computes ASL, with the arguments of `torchvision.ops.sigmoid_focal_loss` in their order; by default its value.

    Reproduce a detector with its focal loss first, then add asymmetry (Alibaba-MIIL/ASL, issue 70).

    Args:
        inputs: logits of any shape, any float dtype.
        targets: the same shape, in [0, 1]. Soft ones mix the two terms, which torchvision does differently.
        alpha: weight of positives, 1 - alpha of negatives, in (0, 1); negative for none.
        gamma: focusing of the negatives, and of the positives unless `gamma_pos` says otherwise.
        reduction: "none": the shape of the inputs, float32 for 16-bit inputs. "mean" and "sum" over all known
            entries. "positives": the sum divided by the number of positives, as detectors do.
        gamma_pos, clip, detach_focus: as in `lopsided.AsymmetricLoss`.
        ignore_index: targets of this value, and NaN, cost nothing.
        num_positives: what "positives" divides by, for instance an average over ranks; counted here if None. Less
            than 1 counts as 1.

    >>> sigmoid_asymmetric_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))  # .25 and .75 times log(2) / 4
    tensor([[0.0433, 0.1300]])
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}; got {reduction!r}")
    if num_positives is not None and reduction != "positives":
        raise ValueError(f"num_positives is for reduction='positives', got reduction={reduction!r}")
    gamma_pos = gamma if gamma_pos is None else gamma_pos
    formula = catalog.asymmetric(gamma, gamma_pos, clip, detach_focus, alpha=None if alpha < 0 else alpha)
    single = "sum" if reduction == "positives" else reduction
    value = multilabel_loss(
        inputs.unsqueeze(-1), targets.unsqueeze(-1), formula, ignore_index=ignore_index, reduction=single
    )
    if reduction != "positives":
        return value
    if num_positives is None:
        positive = targets > 0
        num_positives = (positive if ignore_index is None else positive & (targets != ignore_index)).sum()
    return value / torch.as_tensor(num_positives, device=value.device).clamp_min(1)
