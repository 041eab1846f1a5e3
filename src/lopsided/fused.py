"""Optimisers of a head whose gradient never exists as a whole: each chunk of labels is updated as it is made.

The arithmetic is that of `torch.optim`. Weights in bfloat16 are updated in float32 and rounded back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

ROUNDINGS = ("stochastic", "kahan", "nearest")


def round_stochastically(x: Tensor) -> Tensor:
    """float32 -> bfloat16, up or down with a probability that makes the mean exact: steps below half a unit add up."""
    bits = x.view(torch.int32)
    noise = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=x.device)
    rounded = ((bits + noise) & -(1 << 16)).view(torch.float32)
    return torch.where(x.isfinite(), rounded, x).to(torch.bfloat16)


@dataclass
class FusedStep(ABC):
    """Settings, which may be changed between steps, as by a schedule; the state lies in the buffers of the head.

    Args:
        lr: learning rate.
        rounding: of bfloat16 weights; "stochastic", "kahan" (what rounding took away is kept, in bfloat16, and added
            the next time) or "nearest". float32 weights are not rounded.
    """

    lr: float
    rounding: str = "stochastic"

    def __post_init__(self) -> None:
        if self.rounding not in ROUNDINGS:
            raise ValueError(f"rounding must be one of {', '.join(ROUNDINGS)}; got {self.rounding!r}")
        if not self.lr >= 0:
            raise ValueError(f"lr must not be negative, got {self.lr!r}")

    @abstractmethod
    def shapes(self, parameter: Tensor) -> dict[str, torch.Size]:
        """Name and shape of each state of a parameter."""

    @abstractmethod
    def change(self, parameter: Tensor, grad: Tensor, state: dict[str, Tensor], steps: Tensor) -> None:
        """Change some rows of a parameter in place; `steps` before this one."""

    def start(self, weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
        """The state before the first step: buffers by name."""
        states = {"steps": torch.zeros((), dtype=torch.float32)}
        for which, parameter in (("weight", weight), ("bias", bias)):
            if parameter is None:
                continue
            wide = torch.promote_types(parameter.dtype, torch.float32)
            for name, shape in self.shapes(parameter).items():
                states[f"{which}_{name}"] = torch.zeros(shape, dtype=wide, device=parameter.device)
            if parameter.dtype == torch.bfloat16 and self.rounding == "kahan":
                states[f"{which}_residual"] = torch.zeros_like(parameter)
        return states


class Update:
    """The update of one pass over the labels."""

    def __init__(self, settings: FusedStep, state: dict[str, Tensor]) -> None:
        self.settings, self.state = settings, state

    def begin(self) -> None:
        self.state["steps"] += 1

    def update(self, weight: Tensor, bias: Tensor | None, place: slice, grad: Tensor, bias_grad: Tensor | None) -> None:
        self._change("weight", weight[place], grad, place)
        if bias is not None and bias_grad is not None:
            self._change("bias", bias[place], bias_grad, place)

    def _change(self, which: str, parameter: Tensor, grad: Tensor, place: slice) -> None:
        mine = {
            name.removeprefix(f"{which}_"): each[place] for name, each in self.state.items() if name.startswith(which)
        }
        residual = mine.pop("residual", None)
        wide = parameter if parameter.dtype != torch.bfloat16 else parameter.float()
        if residual is not None:
            wide += residual
        self.settings.change(wide, grad.to(wide.dtype), mine, self.state["steps"] - 1)
        if wide is parameter:
            return
        stochastic = self.settings.rounding == "stochastic"
        parameter.copy_(round_stochastically(wide) if stochastic else wide)
        if residual is not None:
            residual.copy_(wide - parameter)


@dataclass
class FusedSGD(FusedStep):
    """`torch.optim.SGD`, chunk by chunk.

    >>> FusedSGD(lr=0.1, momentum=0.9)
    FusedSGD(lr=0.1, rounding='stochastic', momentum=0.9, weight_decay=0.0, nesterov=False)
    """

    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def shapes(self, parameter: Tensor) -> dict[str, torch.Size]:
        return {"momentum": parameter.shape} if self.momentum else {}

    def change(self, parameter: Tensor, grad: Tensor, state: dict[str, Tensor], steps: Tensor) -> None:
        buffers: list[Tensor | None] = [state["momentum"]] if self.momentum else [None]
        options: dict[str, Any] = {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}
        options |= {"nesterov": self.nesterov, "dampening": 0.0, "maximize": False, "foreach": False}
        sgd([parameter], [grad], buffers, **options)


@dataclass
class FusedAdamW(FusedStep):
    """`torch.optim.AdamW`, chunk by chunk: two states of the size of the weight, float32.

    >>> FusedAdamW(lr=1e-3).weight_decay
    0.01
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01

    def shapes(self, parameter: Tensor) -> dict[str, torch.Size]:
        return {"average": parameter.shape, "square": parameter.shape}

    def change(self, parameter: Tensor, grad: Tensor, state: dict[str, Tensor], steps: Tensor) -> None:
        options: dict[str, Any] = {"lr": self.lr, "beta1": self.betas[0], "beta2": self.betas[1], "eps": self.eps}
        options |= {"weight_decay": self.weight_decay, "amsgrad": False, "maximize": False, "foreach": False}
        adamw([parameter], [grad], [state["average"]], [state["square"]], [], [steps.clone()], **options)


@dataclass
class FusedAdagrad(FusedStep):
    """Adagrad with one number for each label instead of one for each weight, chunk by chunk.

    s += mean of grad^2 over the features; weight -= lr grad / (sqrt(s) + eps).

    >>> FusedAdagrad(lr=0.1).eps
    1e-10
    """

    eps: float = 1e-10

    def shapes(self, parameter: Tensor) -> dict[str, torch.Size]:
        return {"sum": parameter.shape[:1]}

    def change(self, parameter: Tensor, grad: Tensor, state: dict[str, Tensor], steps: Tensor) -> None:
        by_label = grad.view(len(grad), -1)
        state["sum"] += by_label.square().mean(1)
        step = self.lr / (state["sum"].sqrt() + self.eps)
        parameter.view(len(grad), -1).sub_(by_label * step.unsqueeze(1))
