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

from lopsided.losses.checks import check_number

ROUNDINGS = ("stochastic", "kahan", "nearest")


def round_stochastically(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Rounds float32 to bfloat16, up or down with a probability that makes the mean exact: small steps add up."""
    bits = x.view(torch.int32)
    noise = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=x.device, generator=generator)
    rounded = ((bits + noise) & -(1 << 16)).view(torch.float32)
    most = torch.finfo(torch.bfloat16).max
    return torch.where(x.isfinite(), rounded.clamp(-most, most), x).to(torch.bfloat16)


@dataclass
class FusedStep(ABC):
    """Settings, which may be changed between steps, as by a schedule; the state lies in the buffers of the head.

    Args:
        lr: learning rate.
        rounding: of bfloat16 weights; "stochastic", "kahan" (what rounding took away is kept, in bfloat16, and added
            the next time) or "nearest". float32 weights are not rounded.
        seed: of stochastic rounding, which depends on it, the step and the place alone: replicas stay equal.
    """

    lr: float
    rounding: str = "stochastic"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounding not in ROUNDINGS:
            raise ValueError(f"rounding must be one of {', '.join(ROUNDINGS)}; got {self.rounding!r}")
        check_number("lr", self.lr, low=0)

    @abstractmethod
    def shapes(self, parameter: Tensor) -> dict[str, torch.Size]:
        """Returns name and shape of each state of a parameter."""

    @abstractmethod
    def change(self, parameter: Tensor, grad: Tensor, state: dict[str, Tensor], steps: int) -> None:
        """Changes some rows of a parameter in place; `steps` counts this one."""

    def layout(self, parameter: Tensor) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Returns the name, shape and dtype of every state of a parameter."""
        if parameter.dtype == torch.float16:
            raise ValueError("fused_step has no float16 weights, whose steps would vanish: use bfloat16 or float32")
        wide = torch.promote_types(parameter.dtype, torch.float32)
        layout = {name: (shape, wide) for name, shape in self.shapes(parameter).items()}
        if parameter.dtype == torch.bfloat16 and self.rounding == "kahan":
            layout["residual"] = parameter.shape, torch.bfloat16
        return layout


class Update:
    """The update of one pass over the labels: `parameters` and `states` by "weight" and "bias", and a step counter.

    What is not among the parameters is frozen. Raises RuntimeError if the states are not those that these settings
    need for parameters of this dtype.
    """

    def __init__(
        self, settings: FusedStep, parameters: dict[str, Tensor], states: dict[str, dict[str, Tensor]], steps: Tensor
    ) -> None:
        self.settings, self.parameters, self.states, self.steps = settings, parameters, states, steps
        for which, parameter in parameters.items():
            expected = {name: dtype for name, (_, dtype) in settings.layout(parameter).items()}
            given = {name: state.dtype for name, state in states[which].items()}
            if given != expected:
                raise RuntimeError(
                    f"{settings} needs {expected or 'no state'} for a {parameter.dtype} {which}, the head has {given}: "
                    "make the head with its final dtype and kind of settings, LinearHead(..., dtype=, fused_step=)"
                )

    def begin(self) -> None:
        self.steps += 1

    def update(self, place: slice, grad: Tensor, bias_grad: Tensor | None) -> None:
        for which, each in (("weight", grad), ("bias", bias_grad)):
            if each is not None and which in self.parameters:
                states = {name: state[place] for name, state in self.states[which].items()}
                self._change(self.parameters[which][place], each, states, place.start)

    def _change(self, parameter: Tensor, grad: Tensor, states: dict[str, Tensor], start: int) -> None:
        steps = int(self.steps)
        if parameter.dtype != torch.bfloat16:
            self.settings.change(parameter, grad.to(parameter.dtype), states, steps)
            return
        residual, wide = states.pop("residual", None), parameter.float()
        if residual is not None:
            wide += residual
        self.settings.change(wide, grad.float(), states, steps)
        if self.settings.rounding == "stochastic":
            generator = torch.Generator(parameter.device).manual_seed(
                hash((self.settings.seed, steps, start)) % (1 << 63)
            )
            parameter.copy_(round_stochastically(wide, generator))
        else:
            parameter.copy_(wide)
        if residual is not None:
            residual.copy_(wide - parameter)


@dataclass
class FusedSGD(FusedStep):
    """`torch.optim.SGD`, chunk by chunk.

    >>> FusedSGD(lr=0.1, momentum=0.9)
    FusedSGD(lr=0.1, rounding='stochastic', seed=0, momentum=0.9, weight_decay=0.0, nesterov=False)
    """

    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("momentum", self.momentum, low=0, high=1)
        check_number("weight_decay", self.weight_decay, low=0)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum > 0")

    def shapes(self, parameter: Tensor) -> dict[str, torch.Size]:
        return {"momentum": parameter.shape} if self.momentum else {}

    def change(self, parameter: Tensor, grad: Tensor, state: dict[str, Tensor], steps: int) -> None:
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

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("betas[0]", self.betas[0]), ("betas[1]", self.betas[1])):
            check_number(name, value, low=0, high=1)
        check_number("eps", self.eps, low=0)
        check_number("weight_decay", self.weight_decay, low=0)

    def shapes(self, parameter: Tensor) -> dict[str, torch.Size]:
        return {"average": parameter.shape, "square": parameter.shape}

    def change(self, parameter: Tensor, grad: Tensor, state: dict[str, Tensor], steps: int) -> None:
        options: dict[str, Any] = {"lr": self.lr, "beta1": self.betas[0], "beta2": self.betas[1], "eps": self.eps}
        options |= {"weight_decay": self.weight_decay, "amsgrad": False, "maximize": False, "foreach": False}
        adamw([parameter], [grad], [state["average"]], [state["square"]], [], [torch.tensor(steps - 1.0)], **options)


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

    def change(self, parameter: Tensor, grad: Tensor, state: dict[str, Tensor], steps: int) -> None:
        by_label = grad.view(len(grad), -1)
        state["sum"] += by_label.square().mean(1)
        step = self.lr / (state["sum"].sqrt() + self.eps)
        parameter.view(len(grad), -1).sub_(by_label * step.unsqueeze(1))
