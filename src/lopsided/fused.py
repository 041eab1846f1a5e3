"""A stand-in, to be replaced, for the settings of fused steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FusedSGD:
    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0


@dataclass(frozen=True)
class FusedAdamW:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0


@dataclass(frozen=True)
class FusedAdagrad:
    lr: float = 1e-2
    eps: float = 1e-10
