"""Pools: how the labels of a row combine into one number.

A pool folds the curve values of a row's labels, positives and negatives each with their weights, into a state of
a few numbers. The loss of the row is `value(state)`; its derivatives with respect to the curve values are
`coefficients`. A state joins by sums and log-sum-exps, so chunks of labels, and ranks, can be joined too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from lopsided.losses.sums import EMPTY, finite, log_sum, log_sums, mean_of, merge_means, merge_sums, nonzero, share_of
from lopsided.losses.vocabulary import maximum, select, softplus

if TYPE_CHECKING:
    from torch import Tensor

Pair: TypeAlias = "tuple[Tensor, Tensor]"  # of the positive side, of the negative side


class Pool(ABC):
    """Values without state of their own: equal pools compare equal."""

    per_label: ClassVar[bool] = False  # is the loss a sum over labels, each of which can be decided alone?
    thresholded: ClassVar[bool] = False  # else: are scores ranked against a threshold, or only against each other?
    counts: ClassVar[Literal["labels", "rows", "positive rows"]]  # what reduction="mean" divides by, if known
    transposed: ClassVar[bool] = False  # is the same loss added over the rows of each label?
    staged: ClassVar[bool] = False  # does it fold the labels once more, when the state of all of them is known?

    @abstractmethod
    def fold(self, values: Pair, weights: Pair) -> Tensor:
        """Maps (..., L) curve values and weights >= 0 to (k, ...) state. A weight of 0 removes its label."""

    @abstractmethod
    def merge(self, states: Tensor) -> Tensor:
        """Maps (parts, k, ...) states of parts of the labels to (k, ...) state of all of them."""

    def fold_again(self, values: Pair, weights: Pair, state: Tensor) -> Tensor:
        """Returns (j, ...) sums over labels that need the state of all; they stand behind it. Only where `staged`."""
        raise NotImplementedError

    def fold_rows(self, values: Pair, weights: Pair) -> Tensor:
        """Folds whole rows: all that `value` and `coefficients` need."""
        import torch

        state = self.fold(values, weights)
        return torch.cat([state, self.fold_again(values, weights, state)]) if self.staged else state

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
        return log_sums(values, weights)

    def merge(self, states: Tensor) -> Tensor:
        import torch

        return torch.cat(merge_sums(states[:, :2], states[:, 2:]))

    def has_positive(self, state: Tensor) -> Tensor:
        return state[0] > EMPTY / 2

    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        slopes = self._slopes(state[:2] + state[2:])
        sides = zip(values, weights, state[:2], state[2:], slopes, strict=True)
        positive, negative = (slope.unsqueeze(-1) * share_of(v, a, peak, rest) for v, a, peak, rest, slope in sides)
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

        sides = finite(-values[0]), finite(values[1])
        return torch.cat([log_sums(sides, weights), mean_of(sides[0], weights[0])])

    def merge(self, states: Tensor) -> Tensor:
        import torch

        return torch.cat([*merge_sums(states[:, :2], states[:, 2:4]), merge_means(states[:, 4], states[:, 5])])

    def value(self, state: Tensor) -> Tensor:
        up, down = state[:2] + state[2:4]
        mean, mass = state[4:]
        missed = softplus(-up) + ((state[0] - mean) + state[2])  # log(1 + e^up) - mean, which would cancel
        return select(mass > 0, mass * missed, 0.0) + softplus(down)

    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        up, down = state[:2] + state[2:4]
        peaks, rests, mass = state[:2], state[2:4], state[5]
        sides = zip((finite(-values[0]), finite(values[1])), weights, peaks, rests, strict=True)
        won, against = (share_of(v, a, peak, rest) for v, a, peak, rest in sides)
        return weights[0] - (mass * up.sigmoid()).unsqueeze(-1) * won, down.sigmoid().unsqueeze(-1) * against

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
        mean: Tensor = up / nonzero(positives) * (down / nonzero(negatives))
        return mean

    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        up, down, positives, negatives = (number.unsqueeze(-1) for number in state)
        pairs = nonzero(positives) * nonzero(negatives)
        return weights[0] * values[0].exp() * (down / pairs), weights[1] * values[1].exp() * (up / pairs)


@dataclass(frozen=True)
class DecoupledSoftmax(Pool):
    """sum a+ log(1 + exp(v+) sum a- exp(v-)) / sum a+: of each positive a softmax with all negatives, and none else.

    Rows without a positive cost nothing. The state is the log-sum-exp of the negatives and the sum of a+; then the
    value, and the sum of a+ times the slopes of the logarithms, both before the division.
    """

    counts = "positive rows"
    staged = True

    def fold(self, values: Pair, weights: Pair) -> Tensor:
        import torch

        return torch.stack([*log_sum(values[1], weights[1]), weights[0].sum(-1)])

    def merge(self, states: Tensor) -> Tensor:
        import torch

        return torch.stack([*merge_sums(states[:, 0], states[:, 1]), states[:, 2].sum(0)])

    def fold_again(self, values: Pair, weights: Pair, state: Tensor) -> Tensor:
        import torch

        missed = self._missed(values[0], state)
        folded = [
            select(weights[0] > 0, weights[0] * each, 0.0).sum(-1) for each in (softplus(missed), missed.sigmoid())
        ]
        return torch.stack(folded)

    def _missed(self, value: Tensor, state: Tensor) -> Tensor:
        return (value + state[0].unsqueeze(-1)) + state[1].unsqueeze(-1)

    def has_positive(self, state: Tensor) -> Tensor:
        return state[2] > 0

    def value(self, state: Tensor) -> Tensor:
        mean: Tensor = state[3] / nonzero(state[2])
        return mean

    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        mass = nonzero(state[2])
        positive = weights[0] * self._missed(values[0], state).sigmoid() / mass.unsqueeze(-1)
        return positive, (state[4] / mass).unsqueeze(-1) * share_of(values[1], weights[1], state[0], state[1])


@dataclass(frozen=True)
class SideMeans(Pool):
    """Mean of log(1 + exp(v+)) over the positives, plus the same of the negatives: each side counts as much.

    With a margin, the means have weights a max(margin + v, 0): a label that is right by more has none, and what is
    missed most weighs most. A side without a weight costs nothing. Of each side the state has the mean, the sum of the
    weights relative to the largest of max(margin + v, 0), and that.
    """

    margin: float | None = None
    thresholded = True
    counts = "rows"

    def fold(self, values: Pair, weights: Pair) -> Tensor:
        import torch

        means, masses, peaks = [], [], []
        for v, a in zip(values, weights, strict=True):
            reach = select(a > 0, self._reach(v), 0.0)
            peaks.append(reach.amax(-1).detach())
            mean, mass = mean_of(softplus(v), a * (reach / nonzero(peaks[-1]).unsqueeze(-1)))
            means.append(mean)
            masses.append(mass)
        return torch.stack([*means, *masses, *peaks])

    def _reach(self, value: Tensor) -> Tensor:
        import torch

        return torch.ones_like(value) if self.margin is None else maximum(finite(self.margin + value), 0.0)

    def merge(self, states: Tensor) -> Tensor:
        import torch

        peaks = states[:, 4:].amax(0)
        relative = states[:, 2:4] * (states[:, 4:] / nonzero(peaks))
        return torch.cat([*merge_means(states[:, :2], relative), peaks])

    def value(self, state: Tensor) -> Tensor:
        return state[0] + state[1]

    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        sides = []
        for v, a, mean, mass, peak in zip(values, weights, state[:2], state[2:4], state[4:], strict=True):
            reach = self._reach(v)
            slope = reach * v.sigmoid()
            if self.margin is not None:
                slope = slope + select(reach > 0, finite(softplus(v)) - finite(mean.unsqueeze(-1)), 0.0)
            sides.append(a * (slope / nonzero(peak).unsqueeze(-1)) / nonzero(mass).unsqueeze(-1))
        return sides[0], sides[1]

    def has_settled(self, values: Pair, log_odds: Tensor) -> Tensor:
        return values[1] - values[0] >= 2 * log_odds


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
        return torch.stack([*log_sum(values[0], known), *mean_of(values[0], weights[0])])

    def merge(self, states: Tensor) -> Tensor:
        import torch

        sums = torch.stack(merge_sums(states[:, 0], states[:, 1]))
        return torch.cat([sums, merge_means(states[:, 2], states[:, 3])])

    def has_positive(self, state: Tensor) -> Tensor:
        return state[3] > 0

    def value(self, state: Tensor) -> Tensor:
        peak, rest, mean, mass = state
        return select(mass > 0, (peak - mean) + rest, 0.0)

    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        peak, rest, _, mass = state
        known = (weights[0] + weights[1] > 0).to(mass.dtype)
        share = select((mass > 0).unsqueeze(-1), share_of(values[0], known, peak, rest), 0.0)
        # a label with both weights is one label: its share stands on the positive side alone
        positive = share - weights[0] / nonzero(mass).unsqueeze(-1)
        return positive, select(weights[0] > 0, 0.0, share)
