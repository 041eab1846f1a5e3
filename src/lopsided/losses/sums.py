"""Sums over labels that neither overflow nor lose digits, and how those of parts are joined: what pools are made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lopsided.losses.vocabulary import select

if TYPE_CHECKING:
    from torch import Tensor

EMPTY = -1e30  # log 0, but finite: exp gives exactly 0 and no inf - inf arises


def log_sums(values: tuple[Tensor, Tensor], weights: tuple[Tensor, Tensor]) -> Tensor:
    """Returns the (4, ...) peaks of both sides, and the rests."""
    import torch

    sides = [log_sum(v, a) for v, a in zip(values, weights, strict=True)]
    return torch.stack([peak for peak, _ in sides] + [rest for _, rest in sides])


def mean_of(value: Tensor, weight: Tensor) -> Tensor:
    """Returns (2, ...) the weighted mean, 0 of nothing, and the sum of the weights."""
    import torch

    mass = weight.sum(-1)
    share = weight / nonzero(mass).unsqueeze(-1)
    return torch.stack([select(share > 0, share * value, 0.0).sum(-1), mass])


def merge_means(means: Tensor, masses: Tensor) -> Tensor:
    """Joins (parts, ...) means and sums of weights to (2, ...)."""
    import torch

    mass = masses.sum(0)
    return torch.stack([(means * masses).sum(0) / nonzero(mass), mass])


def log_sum(value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the largest value of a weight above 0, and log sum weight exp(value) relative to it, each (...)."""
    import torch

    present = select(weight > 0, value, EMPTY)
    # constant, as the sum does not depend on it; and never -inf, less which -inf would be NaN
    peak = present.detach().amax(-1).clamp_min(torch.finfo(value.dtype).min)
    return peak, nonzero((weight * exponential(present - peak.unsqueeze(-1))).sum(-1)).log()


def merge_sums(peaks: Tensor, rests: Tensor) -> tuple[Tensor, Tensor]:
    """Joins (parts, ...) peaks and rests to those of all."""
    peak = peaks.amax(0)
    return peak, (rests + (peaks - peak)).logsumexp(0)


def share_of(value: Tensor, weight: Tensor, peak: Tensor, rest: Tensor) -> Tensor:
    """Returns (..., L) the share of each label in a sum of exponentials."""
    return weight * exponential((value - peak.unsqueeze(-1)) - rest.unsqueeze(-1))


def exponential(x: Tensor) -> Tensor:
    """Computes exp; of what is finite it is finite, so that a weight of 0 removes it.

    Results near the smallest normal number are up to 200 times slower on a CPU, and nothing beside a sum of 1.
    """
    import torch

    limits = torch.finfo(x.dtype)
    return x.clamp(math.log(limits.tiny) + 8, math.log(limits.max) - 1).exp()


def finite(x: Tensor) -> Tensor:
    """Returns the largest numbers in the place of infinities, of which a difference is 0."""
    import torch

    return x.clamp(torch.finfo(x.dtype).min, torch.finfo(x.dtype).max)


def nonzero(mass: Tensor) -> Tensor:
    """Returns 1 in the place of 0, to be divided by."""
    return select(mass > 0, mass, 1.0)
