"""Asks a callable for the value and the gradient of a batch, and shows what it does to each label."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]

FARTHEST = 8.0  # logits from -8 to 8 are those that training meets: probabilities from .0003 to .9997
LABELS = 8  # in a row
_ROWS = 40


@dataclass(frozen=True, eq=False)
class Answer:
    """Holds the value of a batch and the gradient of its sum, of the shape of the logits; or why there is none."""

    value: Tensor
    gradient: Tensor
    error: str = ""

    @property
    def finite(self) -> bool:
        return not self.error and bool(self.value.isfinite().all() and self.gradient.isfinite().all())


def ask(loss: Loss, logits: Tensor, targets: Tensor) -> Answer:
    """Calls a loss with copies of a batch, gradients on; whatever it raises becomes the `error` of the answer."""
    z = logits.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            value = loss(z * 1, targets.clone())  # no leaf, which no code may change in place
            if not isinstance(value, Tensor):
                raise TypeError(f"it returns a {type(value).__name__}, not a tensor")
            if not value.requires_grad:
                raise ValueError("no gradient reaches the logits: it is cut off, by detach() or a step function")
            (gradient,) = torch.autograd.grad(value.sum(), z, allow_unused=True)
    except Exception as error:  # of code that is not ours
        return Answer(z.detach() * torch.nan, z.detach() * torch.nan, f"{type(error).__name__}: {error}")
    if gradient is None:
        gradient = torch.zeros_like(z)
    return Answer(value.detach(), gradient)


@functools.cache
def batch() -> tuple[Tensor, Tensor]:
    """Returns logits (40, 8), float32, and targets: 160 positives and 160 negatives, each from -8 to 8 in even steps.

    They are shuffled, three and five of each in a row by turns, so that losses which compare the labels of a row, or
    take means of them, show what they do.
    """
    generator = torch.Generator().manual_seed(0)
    y = torch.zeros(_ROWS, LABELS)
    for row in range(_ROWS):
        y[row, torch.randperm(LABELS, generator=generator)[: LABELS // 2 + (1 if row % 2 else -1)]] = 1
    z = torch.zeros(_ROWS, LABELS)
    for side in (y == 0, y == 1):
        count = int(side.sum())
        z[side] = torch.linspace(-FARTHEST, FARTHEST, count)[torch.randperm(count, generator=generator)]
    return z, y


@dataclass(frozen=True)
class Side:
    """Holds what a loss does to the labels with one target: their logits, ascending, and gradients, each (n,) float64.

    sign: that of a gradient that pulls the right way: -1 of positives, 1 of negatives.
    """

    name: str
    sign: int
    logits: Tensor
    gradient: Tensor

    @classmethod
    def of(cls, target: int, logits: Tensor, gradient: Tensor) -> Side:
        """Sorts the logits of the labels with this target, and their gradients, each (n,)."""
        order = logits.argsort()
        name, sign = ("positives", -1) if target else ("negatives", 1)
        return cls(name, sign, logits[order].double(), gradient[order].double())

    @property
    def pull(self) -> Tensor:
        """Returns how strongly each label is pulled the right way, relative to the most; NaN pulls nothing."""
        pull = self.sign * self.gradient.nan_to_num(0, 0, 0)
        return pull / pull.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
