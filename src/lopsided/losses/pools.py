"""Pools: how the labels of a row combine into one number.

A pool folds (weight, curve value) pairs over the labels into a state of one number per row. The loss of the row
is `value(state)`; its derivative with respect to a curve value is `coefficient`. Folding is associative and
commutative, which is what lets chunks of labels, and ranks, be joined.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


class Pool(ABC):
    """Not instantiated: a pool is a set of pure functions."""

    name: str
    per_label: bool  # does reduction="mean" divide by known entries (True) or by rows (False)?

    @staticmethod
    @abstractmethod
    def fold(value: Tensor, weight: Tensor) -> Tensor:
        """(..., L) curve values and weights >= 0 -> (...) state. A weight of 0 removes its label."""

    @staticmethod
    @abstractmethod
    def value(state: Tensor) -> Tensor:
        """(...) state -> (...) loss."""

    @staticmethod
    @abstractmethod
    def coefficient(value: Tensor, weight: Tensor, state: Tensor) -> Tensor:
        """d value(state) / d value, shape (..., L)."""


class Sum(Pool):
    """sum_l a_l v_l: losses that treat labels independently (binary relevance)."""

    name = "sum"
    per_label = True

    @staticmethod
    def fold(value: Tensor, weight: Tensor) -> Tensor:
        return torch.where(weight > 0, weight * value, 0.0).sum(-1)

    @staticmethod
    def value(state: Tensor) -> Tensor:
        return state

    @staticmethod
    def coefficient(value: Tensor, weight: Tensor, state: Tensor) -> Tensor:
        return weight


class LogSumExp(Pool):
    """log(1 + sum_l a_l exp(v_l)): losses that rank the labels of a row against a threshold of 0."""

    name = "logsumexp"
    per_label = False
    empty = -1e30  # log 0, but finite: exp gives exactly 0 and no inf - inf arises

    @staticmethod
    def _exponent(value: Tensor, weight: Tensor) -> Tensor:
        present = weight > 0
        return torch.where(present, value + torch.where(present, weight, 1.0).log(), LogSumExp.empty)

    @staticmethod
    def fold(value: Tensor, weight: Tensor) -> Tensor:
        return torch.logsumexp(LogSumExp._exponent(value, weight), -1)

    @staticmethod
    def value(state: Tensor) -> Tensor:
        return -logsigmoid(-state)  # torch's softplus turns linear past 20

    @staticmethod
    def coefficient(value: Tensor, weight: Tensor, state: Tensor) -> Tensor:
        return torch.exp(LogSumExp._exponent(value, weight) - LogSumExp.value(state).unsqueeze(-1))
