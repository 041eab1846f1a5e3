"""A multi-label loss is two curves and a pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lopsided.losses.pools import Pool

CurveFunction = Callable[..., tuple[Tensor, Tensor | float]]


@dataclass(frozen=True)
class Curve:
    """A function of `curves.py` with its hyperparameters: z -> (value, slope)."""

    function: CurveFunction
    settings: tuple[tuple[str, float], ...] = ()

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor | float]:
        return self.function(z, **dict(self.settings))

    def __str__(self) -> str:
        return f"{self.function.__name__}({', '.join(f'{key}={value:g}' for key, value in self.settings)})"


@dataclass(frozen=True)
class Loss:
    """What a loss says; an executor of `lopsided.compute` says how.

    Targets reach it as two weights per label, a+ and a- >= 0 (see `lopsided.targets`). For row b

        S+_b = fold_l(f+(z_bl), a+_bl),   S-_b = fold_l(f-(z_bl), a-_bl)
        loss_b = value(S+_b) + value(S-_b)
        d loss_b / d z_bl = k+_bl f+'(z_bl) + k-_bl f-'(z_bl)

    where k is the pool's coefficient. The state (S+, S-) is two numbers per row, whatever the number of labels.
    """

    positive: Curve
    negative: Curve
    pool: type[Pool]

    def summarize(self, z: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        """(..., L) logits and weights -> (2, ...) state."""
        curves = (self.positive, self.negative)
        return torch.stack([self.pool.fold(curve(z)[0], a) for curve, a in zip(curves, weights, strict=True)])

    def value(self, state: Tensor) -> Tensor:
        """(2, ...) state -> (...) loss of each row."""
        return self.pool.value(state).sum(0)

    def grad(self, z: Tensor, weights: tuple[Tensor, Tensor], state: Tensor) -> Tensor:
        """d loss_b / d z_bl, shape (..., L), given the state of the whole rows."""
        total = torch.zeros_like(z)
        for curve, a, s in zip((self.positive, self.negative), weights, state, strict=True):
            value, slope = curve(z)
            total = total + torch.where(a > 0, self.pool.coefficient(value, a, s) * slope, 0.0)
        return total

    def __str__(self) -> str:
        return f"{self.positive}|{self.negative}|{self.pool.name}"
