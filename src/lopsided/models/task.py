"""Describes what is trained, apart from the loss and the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class Rows(Protocol):
    """Holds encoded rows: the arguments of the model for any of them, and their targets, bool (N, L)."""

    @property
    def targets(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def batch(self, rows: Tensor) -> tuple[Tensor, ...]: ...


@dataclass(frozen=True)
class Budget:
    """Says how long and how fast to train; the same for every loss that is compared."""

    epochs: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class Task:
    train: Rows
    valid: Rows
    test: Rows
    make_model: Callable[[int], nn.Module]  # takes the number of outputs per row
    make_optimizer: Callable[[nn.Module, float], torch.optim.Optimizer]  # takes the model and the learning rate
    default_budget: Budget
