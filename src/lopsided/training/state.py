"""Saves all that an unfinished training goes on from, into one file, so that a kill leaves a complete state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from pydantic import NonNegativeInt, TypeAdapter
from torch import Tensor, nn

from lopsided.data.storage import intact, read_tensors, write_tensors
from lopsided.training.history import Epoch


@dataclass
class Progress:
    """Tells how far a training is: finished epochs, and the steps of the one that has begun.

    total: the sum of the loss over the rows of those steps. best: the best value of the validation metric, reached for
    the last time in `best_epoch`; `improved_in` is the last epoch that was better by enough for patience.
    """

    history: list[Epoch] = field(default_factory=list)
    step: NonNegativeInt = 0
    total: float = 0.0
    seconds: float = 0.0
    best: float | None = None
    improved_in: NonNegativeInt = 0
    best_epoch: NonNegativeInt = 0

    def check(self) -> None:
        """Raises ValueError for what no training reaches."""
        done = len(self.history)
        if [epoch.epoch for epoch in self.history] != list(range(1, done + 1)):
            raise ValueError("field history: it must have every epoch, from 1 on")
        if max(self.improved_in, self.best_epoch) > done:
            raise ValueError(f"field best_epoch: {self.best_epoch}, improved_in: {self.improved_in}, of {done} epochs")


@dataclass
class TrainingState:
    """Holds the parts of a training that change, each restored in place.

    modules: network and perhaps the average of its weights, or what it was solved by, by name. optimizer: None for a
    model that is solved. best: the weights of the best epoch.
    """

    modules: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer | None
    progress: Progress
    best: dict[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes all into one file, so that a kill leaves a complete state."""
        tensors = {f"best.{name}": tensor for name, tensor in self.best.items()}
        for part, module in self.modules.items():
            tensors |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
        moments = {} if self.optimizer is None else self.optimizer.state_dict()["state"]
        for number, of_weight in moments.items():
            tensors |= {f"optimizer.{number}.{name}": t for name, t in of_weight.items() if isinstance(t, Tensor)}
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        metadata = {"progress": json.dumps(asdict(self.progress))}
        unshared = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
        write_tensors(path, unshared, metadata)

    def load(self, path: Path) -> None:
        """Goes on from a file. Raises UserError for one that is damaged, or is of another training."""
        with intact(path, "delete it to train again"):
            tensors, metadata = read_tensors(path)
            self._restore(tensors, metadata["progress"])

    def _restore(self, tensors: dict[str, Tensor], progress: str) -> None:
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in ("best", "optimizer", "random", *self.modules)}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.modules["network"].load_state_dict(parts["network"] | parts["best"])  # which refuses what does not fit
        for name, module in self.modules.items():
            module.load_state_dict(parts[name])
        if self.optimizer is not None:
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in parts["optimizer"].items():
                number, _, moment = name.partition(".")
                state.setdefault(int(number), {})[moment] = tensor
            weights: list[Tensor] = [weight for group in self.optimizer.param_groups for weight in group["params"]]
            for place, moments in state.items():
                _check_shapes(moments, dict.fromkeys(moments, weights[place]))
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        self.best = parts["best"]
        self.progress = TypeAdapter(Progress).validate_json(progress, strict=True)
        self.progress.check()
        torch.set_rng_state(parts["random"]["cpu"])
        if "cuda" in parts["random"]:
            torch.cuda.set_rng_state(parts["random"]["cuda"])


def _check_shapes(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
    """Raises ValueError for a tensor that is not like its namesake, nor, as a count of steps, a single number."""
    for name, tensor in tensors.items():
        if tensor.ndim and tensor.shape != like[name].shape:
            raise ValueError(f"tensor {name}: expected {tuple(like[name].shape)}, got {tuple(tensor.shape)}")
