"""How far two predictions for the same labels are apart, and R-Drop, which trains them together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lopsided.losses.checks import check_number


def symmetric_kl(
    logits: Tensor, other: Tensor, *, scale: float = 1.0, mask: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Computes KL(p || q) + KL(q || p), summed over labels, for p = sigmoid(scale s) and q = sigmoid(scale t).

    In closed form: sum_l (p_l - q_l) scale (s_l - t_l) >= 0. Gradients flow to both; detach one to make it a
    teacher.

    Args:
        logits, other: (..., L), any float dtype.
        scale: 1, or 2 for ZLPR trained with soft targets, whose probabilities are sigmoid(2 s).
        mask: (..., L) bool, True where the label counts.
        reduction: "none" (...), "sum", or "mean" over the rows with a label that counts.

    >>> symmetric_kl(torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[0.5, -1.0, 2.0]]))
    tensor(0.5915)

    Source: Su 2022, the author's post 9039 (kexue.fm), with sigmoid(s); arXiv 2208.02955 names the divergence.
    """
    if logits.shape != other.shape:
        raise ValueError(f"both predictions must have the same shape, got {tuple(logits.shape)}, {tuple(other.shape)}")
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be one of none, sum, mean; got {reduction!r}")
    scale = check_number("scale", scale, low=0)
    s, t = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (logits, other))
    counted = torch.ones(s.shape[:-1], dtype=torch.bool, device=s.device)
    if mask is not None:
        if mask.dtype != torch.bool or mask.shape != s.shape:
            raise ValueError(f"mask must be bool of shape {tuple(s.shape)}, got {mask.dtype} {tuple(mask.shape)}")
        s, t, counted = torch.where(mask, s, 0.0), torch.where(mask, t, 0.0), mask.any(-1)
    rows = ((torch.sigmoid(scale * s) - torch.sigmoid(scale * t)) * scale * (s - t)).sum(-1)
    if reduction == "none":
        return rows
    return rows.sum() if reduction == "sum" else rows.sum() / counted.sum().clamp_min(1)


def r_drop(
    model: Callable[..., Tensor],
    inputs: Any,
    targets: Any,
    loss: Callable[[Tensor, Any], Tensor],
    alpha: float = 1.0,
    scale: float = 1.0,
) -> Tensor:
    """Computes R-Drop: the mean loss of two passes through dropout, plus alpha/4 times their `symmetric_kl`.

    Args:
        model: called twice with `inputs`: a tensor, a tuple of arguments or a dict of keywords. Must be in training
            mode with dropout in it, or both passes agree and nothing is gained.
        loss: a criterion such as `lopsided.ZLPRLoss()`, called with logits and targets.
        alpha: weight of the divergence, a mean over rows of sums over labels; 0 leaves the mean of two losses. A loss
            that is a mean over labels stays while the divergence grows with their number: use reduction="batchmean",
            or an alpha that is smaller accordingly.
        scale: as in `symmetric_kl`.

    >>> import torch, lopsided
    >>> model, targets = torch.nn.Dropout(0.5), torch.tensor([[1, 0, 0]])  # a model of nothing but dropout
    >>> criterion, logits = lopsided.ZLPRLoss(), torch.tensor([[2.0, -1.0, 0.5]])
    >>> bool(r_drop(model.eval(), logits, targets, criterion) == criterion(logits, targets))  # both passes agree
    True

    Source: Liang et al. 2021, arXiv 2106.14448, eq. 4, divided by 2; with the divergence above instead of a softmax.
    """
    alpha = check_number("alpha", alpha, low=0)

    def run() -> Tensor:
        if isinstance(inputs, dict):
            return model(**inputs)
        return model(*inputs) if isinstance(inputs, tuple) else model(inputs)

    one, two = run(), run()
    divergence = symmetric_kl(one, two, scale=scale)
    return (loss(one, targets) + loss(two, targets)) / 2 + alpha / 4 * divergence
