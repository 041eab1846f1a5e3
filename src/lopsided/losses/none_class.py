"""The pool of a loss in which the labels of a row have one more beside them: that none of them is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from lopsided.losses.curves import polynomial_negative
from lopsided.losses.pools import Pair, Pool
from lopsided.losses.sums import mean_of, merge_means, nonzero
from lopsided.losses.vocabulary import select, softplus

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NoneClass(Pool):
    """sum a+ log(1 + exp(v+)) + sum a- down(v-), and of the none class, whose logit is less the mean of v-, the same.

    down(x) is -log(1 - max(sigmoid(x) - clip, 0)). The none class is there to the share 1 - y of the label of the row
    with the largest y = a+ / (a+ + a-): wholly where no label is. For v- = z and v+ = -z. Of the row the state has the
    sum, the mean and how many labels it is of, and the largest y.
    """

    clip: float = 0.0
    thresholded = True
    counts = "rows"

    def fold(self, values: Pair, weights: Pair) -> Tensor:
        import torch

        both = weights[0] + weights[1]
        known = (both > 0).to(both.dtype)
        up, down = softplus(values[0]), self._down(values[1])[0]
        costs = select(weights[0] > 0, weights[0] * up, 0.0) + select(weights[1] > 0, weights[1] * down, 0.0)
        largest = (weights[0] / nonzero(both)).amax(-1)
        return torch.stack([costs.sum(-1), *mean_of(values[1], known), largest])

    def _down(self, value: Tensor) -> Pair:
        return cast("Pair", polynomial_negative(value, margin=self.clip))

    def merge(self, states: Tensor) -> Tensor:
        import torch

        largest = states[:, 3].amax(0)
        return torch.stack([states[:, 0].sum(0), *merge_means(states[:, 1], states[:, 2]), largest])

    def value(self, state: Tensor) -> Tensor:
        labels, mean, count, largest = state
        absent = select(largest < 1, (1 - largest) * softplus(mean), 0.0)  # 0, and not NaN, where the mean is infinite
        none = absent + select(largest > 0, largest * self._down(-mean)[0], 0.0)
        total: Tensor = labels + select(count > 0, none, 0.0)
        return total

    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        _, mean, count, largest = state
        none = ((1 - largest) * mean.sigmoid() - largest * self._down(-mean)[1]) / nonzero(count)
        positive, negative = weights[0] * values[0].sigmoid(), weights[1] * self._down(values[1])[1]
        # a label with both weights is one label: its share of the mean stands on the positive side alone
        return positive - none.unsqueeze(-1), negative + select(weights[0] > 0, 0.0, none.unsqueeze(-1))

    def has_settled(self, values: Pair, log_odds: Tensor) -> Tensor:
        (up, down), (rise, fall) = values, (self._down(value)[1] for value in values)
        return (fall + down.sigmoid()).log() >= log_odds + (rise + up.sigmoid()).log()
