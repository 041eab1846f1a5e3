"""One label per row: the same losses on softmax probabilities."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lopsided.losses import Curve, Formula, Sum
from lopsided.losses.checks import check_number
from lopsided.losses.curves import confidence_negative, polynomial_positive
from lopsided.nn.functional import multilabel_loss
from lopsided.targets.checks import has_values

ACTIVATIONS = ("softmax", "sigmoid")


def single_label_loss(
    logits: Tensor,
    targets: Tensor,
    loss: Formula | str = "asl",
    *,
    activation: str = "softmax",
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Computes a label-wise loss where exactly one class of a row is right.

    Args:
        logits: (..., C), C >= 2.
        targets: (...), class indices in [0, C).
        loss: any label-wise loss, or its name; "asl" gives -(1-p_t)^g+ log p_t - sum_k p_mk^g- log(1-p_mk), over the
            other classes k.
        activation: "softmax": p = softmax(logits), classes compete. "sigmoid": every class on its own, targets
            one-hot, which is how the ASL paper's own single-label numbers were made (Alibaba-MIIL/ASL, issue 68).
        weight: (C,), multiplies what a class costs.
        ignore_index: rows with this target cost nothing and are not counted.
        reduction: "none" (...), "sum", or "mean" over the rows that are known.

    A loss of p = sigmoid(u) becomes one of softmax probabilities by u = log p_k - log(1 - p_k): `log_odds`.

    >>> logits = torch.tensor([[2.0, -1.0, 0.5]])
    >>> single_label_loss(logits, torch.tensor([0]))
    tensor(0.2413)
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be 'softmax' or 'sigmoid', got {activation!r}")
    right, mask = _one_hot(logits, targets, ignore_index)
    logits = torch.where(mask, logits, 0.0)  # an ignored row may hold NaN
    z = log_odds(logits) if activation == "softmax" else logits
    reduction = "batchmean" if reduction == "mean" else reduction
    return multilabel_loss(z, right, loss, weight=weight, mask=mask, reduction=reduction)


def official_single_label_loss(
    logits: Tensor,
    targets: Tensor,
    gamma_pos: float = 0.0,
    gamma_neg: float = 4.0,
    eps: float = 0.1,
    reduction: str = "mean",
    ignore_index: int = -100,
) -> Tensor:
    """Computes the official ASLSingleLabel, exactly: -sum_k q_k w_k log p_k with p = softmax(logits).

    q is the target smoothed by eps, w_t = (1-p_t)^gamma_pos at the target, w_k = p_k^gamma_neg beside it. Note log
    p_k, not log(1 - p_k): gamma_neg acts on the smoothing alone, and does nothing with eps = 0. Use
    `single_label_loss` for what the paper says. Shapes as there; the focusing weights are not detached.

    >>> logits = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.3, -2]])
    >>> official_single_label_loss(logits, torch.tensor([0, 2]))
    tensor(1.4914)
    """
    gamma_pos = check_number("gamma_pos", gamma_pos, low=0)
    gamma_neg = check_number("gamma_neg", gamma_neg, low=0)
    smoothing = check_number("eps", eps, low=0, high=1) / logits.shape[-1]
    right, mask = _one_hot(logits, targets, ignore_index)
    formula = Formula(
        Curve(polynomial_positive, (("gamma", gamma_pos),)),
        Curve(confidence_negative, (("gamma", gamma_neg),)),
        Sum(),
    )
    z = log_odds(torch.where(mask, logits, 0.0))
    mass = torch.full_like(z, smoothing).masked_fill(right, 1 - eps + smoothing)
    reduction = "batchmean" if reduction == "mean" else reduction
    return multilabel_loss(z, right, formula, weight=mass, mask=mask, reduction=reduction)


def log_odds(logits: Tensor) -> Tensor:
    """Computes log p_k - log(1 - p_k), exact for every logit: p = softmax(logits), (..., C), C >= 2; at least float32.

    >>> torch.sigmoid(log_odds(torch.tensor([2.0, -1.0, 0.5])))  # softmax again
    tensor([0.7856, 0.0391, 0.1753])
    """
    if logits.shape[-1] < 2:
        raise ValueError(f"single-label losses need at least 2 classes, got logits {tuple(logits.shape)}")
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    top = torch.zeros_like(z, dtype=torch.bool).scatter(-1, z.argmax(-1, keepdim=True), True)
    total = z.logsumexp(-1, keepdim=True)
    # 1 - p_k cancels only for the largest p, which the others' sum gives without subtracting
    rest = total + torch.log1p(-torch.where(top, 0.0, torch.exp(z - total)))
    beside_top = z.masked_fill(top, -torch.inf).logsumexp(-1, keepdim=True)
    return z - torch.where(top, beside_top, rest)


def _one_hot(logits: Tensor, targets: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    if targets.is_floating_point() or targets.dtype == torch.bool or targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"targets must be class indices of shape {tuple(logits.shape[:-1])}, got {targets.dtype} "
            f"{tuple(targets.shape)}; several labels per row are for multilabel_loss"
        )
    known = targets != ignore_index
    indices = torch.where(known, targets, 0).long()
    classes = logits.shape[-1]
    if has_values(indices) and indices.numel() and not 0 <= indices.min() <= indices.max() < classes:
        raise ValueError(
            f"class indices must lie in [0, {classes}) or be ignore_index={ignore_index}, got values from "
            f"{indices.min()} to {indices.max()}"
        )
    return one_hot(indices, classes).bool(), known.unsqueeze(-1).expand(logits.shape)
