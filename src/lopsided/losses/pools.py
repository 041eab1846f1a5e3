"""Pools: how the labels of a row combine into one number.

A pool folds the curve values of a row's labels, positives and negatives each with their weights, into a state of
a few numbers. The loss of the row is `value(state)`; its derivatives with respect to the curve values are
`coefficients`. A state joins by sums and log-sum-exps, so chunks of labels, and ranks, can be joined too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from lopsided.losses.vocabulary import select, softplus

if TYPE_CHECKING:
    from torch import Tensor

Pair: TypeAlias = "tuple[Tensor, Tensor]"  # of the positive side, of the negative side

_EMPTY = -1e30  # log 0, but finite: exp gives exactly 0 and no inf - inf arises


class Pool(ABC):
    """Values without state of their own: equal pools compare equal."""

    per_label: ClassVar[bool] = False  # is the loss a sum over labels, each of which can be decided alone?
    thresholded: ClassVar[bool] = False  # else: are scores ranked against a threshold, or only against each other?
    counts: ClassVar[Literal["labels", "rows", "positive rows"]]  # what reduction="mean" divides by, if known
    transposed: ClassVar[bool] = False  # is the same loss added over the rows of each label?

    @abstractmethod
    def fold(self, values: Pair, weights: Pair) -> Tensor:
        """Maps (..., L) curve values and weights >= 0 to (k, ...) state. A weight of 0 removes its label."""

    @abstractmethod
    def merge(self, states: Tensor) -> Tensor:
        """Maps (parts, k, ...) states of parts of the labels to (k, ...) state of all of them."""

    @abstractmethod
    def value(self, state: Tensor) -> Tensor:
        """Maps (k, ...) state to (...) loss."""

    def has_positive(self, state: Tensor) -> Tensor:
        """Maps (k, ...) state to (...) bool: has the row a positive? Only where `counts` is "positive rows"."""
        raise NotImplementedError

    def has_settled(self, values: Pair, log_odds: Tensor) -> Tensor:
        """Tells where a label alone in its row, with these odds of a positive, is not pushed up any more.

        Only of pools that have a threshold and are not `per_label`. All have one shape.
        """
        raise NotImplementedError

    @abstractmethod
    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        """Computes d value(state) / d values, each (..., L); only read where the weight is positive."""


@dataclass(frozen=True)
class Sum(Pool):
    """sum_l a+ v+ + sum_l a- v-: losses that treat labels independently (binary relevance)."""

    per_label = True
    thresholded = True
    counts = "labels"

    def fold(self, values: Pair, weights: Pair) -> Tensor:
        sides = [select(a > 0, a * v, 0.0).sum(-1) for v, a in zip(values, weights, strict=True)]
        return (sides[0] + sides[1]).unsqueeze(0)

    def merge(self, states: Tensor) -> Tensor:
        return states.sum(0)

    def value(self, state: Tensor) -> Tensor:
        return state[0]

    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        return weights


class _Exponential(Pool):
    """Shared by the pools of S+, S- = log sum_l a exp(v).

    The state holds S as peak + rest, the largest exponent and the logarithm of the sum relative to it: a share
    exp(v - S) would otherwise carry the rounding of S, which grows with the logits.
    """

    def fold(self, values: Pair, weights: Pair) -> Tensor:
        return _log_sums(values, weights)

    def merge(self, states: Tensor) -> Tensor:
        import torch

        return torch.cat(_merge_sums(states[:, :2], states[:, 2:]))

    def has_positive(self, state: Tensor) -> Tensor:
        return state[0] > _EMPTY / 2

    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        slopes = self._slopes(state[:2] + state[2:])
        sides = zip(values, weights, state[:2], state[2:], slopes, strict=True)
        positive, negative = (slope.unsqueeze(-1) * _share(v, a, peak, rest) for v, a, peak, rest, slope in sides)
        return positive, negative

    def value(self, state: Tensor) -> Tensor:
        return self._value(state[:2] + state[2:])

    @abstractmethod
    def _value(self, sums: Tensor) -> Tensor:
        """Maps (2, ...) S+ and S- to (...) loss."""

    @abstractmethod
    def _slopes(self, sums: Tensor) -> Pair:
        """Computes d value / d S+ and d value / d S-."""


@dataclass(frozen=True)
class LogSumExp(_Exponential):
    """log(1 + sum a+ exp(v+)) + log(1 + sum a- exp(v-)): labels are ranked against a threshold."""

    thresholded = True
    counts = "rows"

    def _value(self, sums: Tensor) -> Tensor:
        return softplus(sums).sum(0)

    def _slopes(self, sums: Tensor) -> Pair:
        return sums[0].sigmoid(), sums[1].sigmoid()

    def has_settled(self, values: Pair, log_odds: Tensor) -> Tensor:
        return values[1] >= values[0] + log_odds


@dataclass(frozen=True)
class ThresholdSoftmax(Pool):
    """sum_l a+_l (log(1 + sum a+ exp(-v+)) + v+_l) + log(1 + sum a- exp(v-)): two softmaxes with a threshold at 0.

    Each positive is the right class of a softmax over all positives and the threshold, and the threshold the right one
    of a softmax over the negatives and itself.
    """

    thresholded = True
    counts = "rows"

    def fold(self, values: Pair, weights: Pair) -> Tensor:
        import torch

        sides = -values[0], values[1]
        return torch.cat([_log_sums(sides, weights), _mean(sides[0], weights[0])])

    def merge(self, states: Tensor) -> Tensor:
        import torch

        return torch.cat([*_merge_sums(states[:, :2], states[:, 2:4]), _merge_means(states[:, 4], states[:, 5])])

    def value(self, state: Tensor) -> Tensor:
        up, down = state[:2] + state[2:4]
        mean, mass = state[4:]
        missed = softplus(-up) + ((state[0] - mean) + state[2])  # log(1 + e^up) - mean, which would cancel
        return select(mass > 0, mass * missed, 0.0) + softplus(down)

    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        up, down = state[:2] + state[2:4]
        peaks, rests, mass = state[:2], state[2:4], state[5]
        pulled = (mass * up.sigmoid()).unsqueeze(-1) * _share(-values[0], weights[0], peaks[0], rests[0])
        return weights[0] - pulled, down.sigmoid().unsqueeze(-1) * _share(values[1], weights[1], peaks[1], rests[1])

    def has_settled(self, values: Pair, log_odds: Tensor) -> Tensor:
        return values[1] + softplus(log_odds - values[0]) >= log_odds + softplus(values[1])


@dataclass(frozen=True)
class Pairs(_Exponential):
    """log(1 + (sum a+ exp(v+))^t+ (sum a- exp(v-))^t-): every positive is ranked against every negative."""

    power_pos: float = 1.0
    power_neg: float = 1.0
    counts = "positive rows"

    def _value(self, sums: Tensor) -> Tensor:
        return softplus(self._product(sums))

    def _product(self, sums: Tensor) -> Tensor:
        return self.power_pos * sums[0] + self.power_neg * sums[1]

    def _slopes(self, sums: Tensor) -> Pair:
        slope = self._product(sums).sigmoid()
        return self.power_pos * slope, self.power_neg * slope


@dataclass(frozen=True)
class TwoWayPairs(Pairs):
    """`Pairs` over the labels of each row and, once more, over the rows of each label."""

    transposed = True


@dataclass(frozen=True)
class MeanPairs(Pool):
    """Mean of exp(v+ + v-) over all pairs of a positive and a negative; 0 without a pair. For bounded curves."""

    counts = "positive rows"

    def fold(self, values: Pair, weights: Pair) -> Tensor:
        import torch

        sums = [select(a > 0, a * v.exp(), 0.0).sum(-1) for v, a in zip(values, weights, strict=True)]
        return torch.stack([*sums, *(a.sum(-1) for a in weights)])

    def merge(self, states: Tensor) -> Tensor:
        return states.sum(0)

    def has_positive(self, state: Tensor) -> Tensor:
        return state[2] > 0

    def value(self, state: Tensor) -> Tensor:
        up, down, positives, negatives = state
        mean: Tensor = up / _nonzero(positives) * (down / _nonzero(negatives))
        return mean

    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        up, down, positives, negatives = (number.unsqueeze(-1) for number in state)
        pairs = _nonzero(positives) * _nonzero(negatives)
        return weights[0] * values[0].exp() * (down / pairs), weights[1] * values[1].exp() * (up / pairs)


@dataclass(frozen=True)
class Softmax(Pool):
    """log sum_known exp(v) minus the mean v of the positives: one distribution over the known labels of a row.

    Weights tell positives of a row from each other; they do not enter the normaliser, but for a weight of 0, which
    removes its label. Rows without a positive cost nothing. Both curves must be the same.
    """

    counts = "positive rows"

    def fold(self, values: Pair, weights: Pair) -> Tensor:
        import torch

        known = (weights[0] + weights[1] > 0).to(weights[0].dtype)
        return torch.stack([*_log_sum(values[0], known), *_mean(values[0], weights[0])])

    def merge(self, states: Tensor) -> Tensor:
        import torch

        sums = torch.stack(_merge_sums(states[:, 0], states[:, 1]))
        return torch.cat([sums, _merge_means(states[:, 2], states[:, 3])])

    def has_positive(self, state: Tensor) -> Tensor:
        return state[3] > 0

    def value(self, state: Tensor) -> Tensor:
        peak, rest, mean, mass = state
        return select(mass > 0, (peak - mean) + rest, 0.0)

    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        peak, rest, _, mass = state
        known = (weights[0] + weights[1] > 0).to(mass.dtype)
        share = select((mass > 0).unsqueeze(-1), _share(values[0], known, peak, rest), 0.0)
        # a label with both weights is one label: its share stands on the positive side alone
        positive = share - weights[0] / _nonzero(mass).unsqueeze(-1)
        return positive, select(weights[0] > 0, 0.0, share)


def _log_sums(values: Pair, weights: Pair) -> Tensor:
    """Returns the (4, ...) peaks of both sides, and the rests."""
    import torch

    sides = [_log_sum(v, a) for v, a in zip(values, weights, strict=True)]
    return torch.stack([peak for peak, _ in sides] + [rest for _, rest in sides])


def _mean(value: Tensor, weight: Tensor) -> Tensor:
    """Returns (2, ...) the weighted mean, 0 of nothing, and the sum of the weights."""
    import torch

    mass = weight.sum(-1)
    share = weight / _nonzero(mass).unsqueeze(-1)
    return torch.stack([select(share > 0, share * value, 0.0).sum(-1), mass])


def _merge_means(means: Tensor, masses: Tensor) -> Tensor:
    import torch

    mass = masses.sum(0)
    return torch.stack([(means * masses).sum(0) / _nonzero(mass), mass])


def _log_sum(value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    present = select(weight > 0, value, _EMPTY)
    peak = present.detach().amax(-1)  # constant: the sum does not depend on it
    return peak, _nonzero((weight * _exp(present - peak.unsqueeze(-1))).sum(-1)).log()


def _merge_sums(peaks: Tensor, rests: Tensor) -> tuple[Tensor, Tensor]:
    peak = peaks.amax(0)
    return peak, (rests + (peaks - peak)).logsumexp(0)


def _share(value: Tensor, weight: Tensor, peak: Tensor, rest: Tensor) -> Tensor:
    return weight * _exp((value - peak.unsqueeze(-1)) - rest.unsqueeze(-1))


def _exp(x: Tensor) -> Tensor:
    """Computes exp; of what is finite it is finite, so that a weight of 0 removes it.

    Results near the smallest normal number are up to 200 times slower on a CPU, and nothing beside a sum of 1.
    """
    import torch

    limits = torch.finfo(x.dtype)
    return x.clamp(math.log(limits.tiny) + 8, math.log(limits.max) - 1).exp()


def _nonzero(mass: Tensor) -> Tensor:
    return select(mass > 0, mass, 1.0)
