"""Weights and offsets from label frequencies: what is often published as a loss of its own is an argument here."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lopsided.losses.checks import check_number
from lopsided.targets.checks import check_tensor


def positive_weights(counts: Tensor, rows: int, cap: float = 10.0) -> Tensor:
    """Computes the (L,) `pos_weight` that balances each label: negatives / positives, at most `cap`.

    It moves the fair decision point: `criterion.posterior` and `criterion.decision_threshold` undo that.

    Args:
        counts: (L,), how many rows have each label.
        rows: how many rows there are.
        cap: the largest weight, which labels that no row has get. Losses with a clip and gamma_pos=0 saturate under
            heavy weights, so that no score stands for "more likely than not": asl with its defaults above 16, which is
            a label in fewer than 6 % of the rows. Under bce no weight saturates.

    >>> positive_weights(torch.tensor([1, 10, 50]), rows=100)
    tensor([10.,  9.,  1.])
    """
    counts = check_counts(counts)
    if (counts > rows).any():
        raise ValueError(f"a label has {counts.max():g} positives, but there are only {rows} rows")
    return ((rows - counts) / counts).clamp(max=check_number("cap", cap, low=0)).float()


def class_balanced_weights(counts: Tensor, beta: float = 0.999) -> Tensor:
    """Returns (L,) `weight` by the effective number of samples, (1 - beta) / (1 - beta^n), scaled to a mean of 1.

    A label without positives is weighted as one with a single one.

    >>> class_balanced_weights(torch.tensor([1, 100, 10000]))
    tensor([2.9659, 0.0312, 0.0030])

    Source: Cui et al. 2019, arXiv 1901.05555, eq. 2.
    """
    counts = check_counts(counts).clamp_min(1)
    beta = check_number("beta", beta, low=0, high=1)
    if beta == 0:
        return torch.ones_like(counts, dtype=torch.float32)
    weights = 1 / -torch.expm1(counts * torch.tensor(beta, dtype=torch.float64).log())
    return (weights / weights.mean()).float()


def logit_adjustment(priors: Tensor, tau: float = 1.0) -> Tensor:
    """Returns (L,) offset, tau log(pi / (1 - pi)): train on `logits + offset`, predict with `logits`.

    The model then learns how much more likely than usual a label is: with tau = 1 the balanced odds.

    >>> logit_adjustment(torch.tensor([0.5, 0.1]))
    tensor([ 0.0000, -2.1972])

    Source: Menon et al. 2021, arXiv 2007.07314, eq. 10, for the sigmoid.
    """
    check_tensor("priors", priors)
    if not ((priors > 0) & (priors < 1)).all():
        raise ValueError(f"priors must lie in (0, 1), got {priors.min():g} to {priors.max():g}: smooth the counts")
    return check_number("tau", tau) * torch.logit(priors.double()).float()


def check_counts(counts: Tensor) -> Tensor:
    """Returns (L,) numbers of positives in float64; raises TypeError or ValueError for anything else."""
    check_tensor("counts", counts)
    if counts.ndim != 1 or not ((counts >= 0) & (counts < math.inf)).all():
        values = f"{counts.min():g} to {counts.max():g}" if counts.numel() else "nothing"
        raise ValueError(f"counts must be (L,) numbers of positives >= 0, got shape {tuple(counts.shape)}, {values}")
    if ((counts > 0) & (counts < 1)).any():
        raise ValueError("counts below 1 look like shares of the rows: multiply them by the number of rows")
    return counts.double()
