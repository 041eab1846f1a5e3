"""Partial labels: what to make of the labels that nobody looked at."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lopsided.losses import Formula, as_formula
from lopsided.losses.checks import check_number
from lopsided.nn.functional import multilabel_loss
from lopsided.nn.options import REDUCTIONS

MODES = ("ignore", "negative", "selective", "flip")


def partial_loss(
    logits: Tensor,
    targets: Tensor,
    loss: Formula | str = "asl(gamma_neg=1)",
    *,
    mode: str = "selective",
    unknown_loss: Formula | str | None = "asl",
    top: float = 5,
    priors: Tensor | None = None,
    prior_threshold: float = 0.5,
    reduction: str = "mean",
) -> Tensor:
    """Computes a loss for targets in which most labels are unknown: NaN.

    Args:
        logits: (..., L).
        targets: (..., L) float in [0, 1], NaN where unknown.
        loss: for the known labels, and for the others too if `unknown_loss` is None.
        mode: what unknown labels are. "ignore": nothing. "negative": negatives. "selective": negatives, but for
            those that look most like positives (`selected_negatives`): large-loss rejection, LL-R. "flip": negatives,
            and those positives: LL-Ct.
        unknown_loss: for the unknown labels that are taken as negatives, usually with a higher gamma_neg, or one of
            `lopsided.losses.UNKNOWN`.
        top, priors, prior_threshold: see `selected_negatives`.
        reduction: as in `multilabel_loss`; "mean" divides by the entries that count.

    >>> targets = torch.tensor([[1.0, 0.0, float("nan")]])
    >>> partial_loss(torch.tensor([[2.0, -1.0, 0.5]]), targets, mode="negative")
    tensor(0.0908)

    Source: Ben-Baruch et al. 2022 (CSL), arXiv 2110.10955: classes with high priors are ignored besides. "flip", and
    top as a share: Kim et al. 2022, arXiv 2206.03740.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode!r}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}; got {reduction!r}")
    if not targets.is_floating_point():
        raise TypeError(f"targets must be float with NaN where unknown, got {targets.dtype}")
    known = ~targets.isnan()
    if mode == "ignore":
        return multilabel_loss(logits, targets, loss, reduction=reduction)
    negatives = ~known
    if mode in ("selective", "flip"):
        negatives = selected_negatives(logits, known, top, priors, prior_threshold)
    filled = torch.where(known, targets, 0.0)
    if mode == "flip":
        if priors is not None:
            raise ValueError("mode='flip' takes no priors: a frequent label is no reason to call it positive in a row")
        filled, known = torch.where(known | negatives, filled, 1.0), ~negatives
    if unknown_loss is None:
        return multilabel_loss(logits, filled, loss, mask=known | negatives, reduction=reduction)
    first, second = as_formula(loss), as_formula(unknown_loss)
    if not (first.pool.per_label and second.pool.per_label):
        raise ValueError(f"{first} and {second} must both be label-wise: pass unknown_loss=None to use one loss")
    rows = multilabel_loss(logits, filled, first, mask=known, reduction="none")
    rows = rows + multilabel_loss(logits, filled, second, mask=negatives, reduction="none")
    if reduction in ("none", "sum"):
        return rows if reduction == "none" else rows.sum()
    counted = known | negatives
    count = (counted if reduction == "mean" else counted.any(-1)).sum()
    return rows.sum() / count.clamp_min(1)


@torch.no_grad()
def selected_negatives(
    logits: Tensor, known: Tensor, top: float = 5, priors: Tensor | None = None, prior_threshold: float = 0.5
) -> Tensor:
    """Returns (..., L) bool: the unknown labels that may be taken as negatives.

    Left out are the `top` times rows of them with the highest logits in the batch, and labels whose prior exceeds
    `prior_threshold`: those are likely to be forgotten positives.

    Args:
        logits: (..., L). known: (..., L) bool.
        top: how many to leave out per row, on average; >= 0. A share of all labels of the batch, as in large-loss
            rejection, is that share times L, rounded up over the batch.
        priors: (L,) estimated share of positive rows of each label.

    >>> logits, known = torch.tensor([[2.0, -1.0, 0.5, 3.0]]), torch.tensor([[True, False, False, False]])
    >>> selected_negatives(logits, known, top=1)
    tensor([[False,  True,  True, False]])
    """
    if top < 0:
        raise ValueError(f"top must be at least 0, got {top}")
    negatives = ~known
    if priors is not None:
        negatives = negatives & (priors <= prior_threshold)
    likely = torch.where(known, -torch.inf, logits.float()).flatten()
    rows = logits.shape[:-1].numel()
    drop = likely.topk(min(math.ceil(top * rows), likely.numel())).indices
    return negatives.flatten().index_fill(0, drop, False).view(negatives.shape)


def expected_positives(logits: Tensor, expected: float) -> Tensor:
    """Computes ((mean over the rows of sum_l sigmoid(z_l) - expected) / L)^2: EPR's penalty, beside the known labels.

    Args:
        logits: (..., L) of a batch.
        expected: how many labels a row has, on average.

    >>> expected_positives(torch.zeros(4, 10), expected=3)  # (5 - 3)^2 / 10^2
    tensor(0.0400)

    Source: Cole et al. 2021, arXiv 2106.09708, expected positive regularization; they add it to the sum of
    -log p over the known positives, divided by all labels of the batch.
    """
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits must have shape (..., labels) with labels > 0, got {tuple(logits.shape)}")
    found = logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid().sum(-1).mean()
    penalty: Tensor = ((found - check_number("expected", expected, low=0)) / logits.shape[-1]).square()
    return penalty
