"""Trains a model in one visible loop, on one device or on several by `accelerate launch` or `torchrun`."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lopsided.data.storage import UserError
from lopsided.models.encoder import DirectBody, Encoder
from lopsided.models.heads import Head, set_loss
from lopsided.models.methods import LearntThreshold, Powerset, Schedule, parse_method
from lopsided.models.model import Model, Network
from lopsided.models.recipe import Recipe
from lopsided.models.tree import TreeHead
from lopsided.nn.head import LinearHead
from lopsided.targets.checks import logits_of_a_model
from lopsided.training import processes
from lopsided.training.diagnose import diagnose
from lopsided.training.history import Epoch
from lopsided.training.optimizers import clip_gradients, make_optimizer, set_rate
from lopsided.training.order import random_seed, rows_in_order
from lopsided.training.rows import Rows
from lopsided.training.solve import Solver
from lopsided.training.solve_tree import TreeSolver
from lopsided.training.state import Progress, TrainingState
from lopsided.training.validate import Validation

_SAVE_SECONDS = 60.0  # of an epoch, after which what it has done so far is saved


@dataclass(frozen=True)
class Trained:
    """Holds a model as its best epoch left it, the last of equals; without validation rows, as its last epoch did.

    diverged: whether the loss, or a validation score, was not finite; training ended there, later epochs are NaN.
    """

    model: Model
    history: list[Epoch]
    best_epoch: int
    diverged: bool


@dataclass(frozen=True)
class Listener:
    """Is told of every step, and after every epoch of the history so far; by default, nothing comes of it."""

    on_step: Callable[[], object] = lambda: None
    on_epoch: Callable[[list[Epoch]], object] = lambda history: None


def train(
    encoder: Encoder,
    method: str,
    rows: Rows,
    recipe: Recipe,
    seed: int,
    *,
    validation: Validation | None = None,
    state_file: Path | None = None,
    listener: Listener | None = None,
    until: int | None = None,
) -> Trained:
    """Trains a fresh model of a loss, or of "powerset", on encoded rows.

    Weights, order and dropout begin from the seed and the number of the epoch alone, whatever the loss, so that a
    stopped training goes on as if nothing had happened: from `state_file`, which is written after every epoch and, in
    long ones, every minute. Where several processes train, each takes its share of the rows of every step, and the
    first one writes; there dropout begins anew with every step. With `recipe.average`, what is judged and returned is
    the moving average of the weights: it takes out the noise of the last steps, as in ASL's published training. `until`
    is the epoch after which to stop though the recipe, and its schedule, have more: later, it goes on from the state.
    """
    loop = _Loop(encoder, method, rows, recipe, seed, validation, state_file, listener or Listener())
    if state_file is not None and state_file.exists():
        loop.state.load(state_file)
    with logits_of_a_model():
        return loop.run(recipe.epochs if until is None else min(until, recipe.epochs))


class _Loop:
    def __init__(
        self,
        encoder: Encoder,
        method: str,
        rows: Rows,
        recipe: Recipe,
        seed: int,
        validation: Validation | None,
        state_file: Path | None,
        listener: Listener,
    ) -> None:
        self.accelerator = processes.accelerator()
        self.rows, self.seed, self.validation = rows, seed, validation
        self.state_file, self.listener = state_file, listener if processes.is_first() else Listener()
        self.method = parse_method(method)
        self.recipe = recipe = _possible(recipe, encoder, method, self.accelerator.num_processes)
        if validation is not None and validation.patience is None:
            self.validation = replace(validation, patience=recipe.patience)
        torch.manual_seed(seed)
        self.model = Model.new(encoder, method, rows.data, recipe.learning_rate if recipe.fused_head else None)
        self.network = self.model.network.to(self.accelerator.device)
        several = self.accelerator.num_processes > 1  # else nothing is wrapped, but much of torch.distributed imported
        several = several and any(weight.requires_grad for weight in self.network.parameters())
        self.wrapped: Any = self.accelerator.prepare_model(self.network) if several else self.network
        modules: dict[str, torch.nn.Module] = {"network": self.network}
        if recipe.average is not None:
            averaging = get_ema_multi_avg_fn(recipe.average)
            modules["average"] = AveragedModel(self.network, multi_avg_fn=averaging, use_buffers=True)
        self.solver: Solver | TreeSolver | None = None
        self.l2 = math.nan  # of the last solution
        self.optimizer: torch.optim.Optimizer | None = None
        if recipe.solved:
            of = TreeSolver if isinstance(self.model.network.head, TreeHead) else Solver
            self.solver = of(self.model, rows)
            modules["solution"] = self.solver.solution
        else:
            self.optimizer = make_optimizer(self.network, recipe)
        self.state = TrainingState(modules, self.optimizer, Progress())
        self.size = recipe.batch_size * recipe.accumulate  # rows of a step
        self.steps = -(-len(rows) // self.size)  # of an epoch

    def run(self, until: int) -> Trained:
        diverged = False
        for number in range(len(self.state.progress.history) + 1, until + 1):
            progress = self.state.progress
            if self.validation is not None and self.validation.gives_up(number - 1, progress.improved_in):
                break
            finished = self._steps(number) if self.solver is None else self._solved(number, self.solver)
            epoch = self._judged(number) if finished else None
            if epoch is None:
                diverged = True
                progress.history += [Epoch.lost(rest) for rest in range(number, self.recipe.epochs + 1)]
                break
            progress.history.append(epoch)
            progress.step, progress.total, progress.seconds = 0, 0.0, 0.0
            self._save()
            self.listener.on_epoch(progress.history)
        model = self._current()
        if self.state.best:
            model.network.load_state_dict(model.network.state_dict() | self.state.best)
        return Trained(model, self.state.progress.history, self.state.progress.best_epoch, diverged)

    def _steps(self, number: int) -> bool:
        """Makes the steps of an epoch that are left; returns whether the loss stayed finite."""
        assert self.optimizer is not None
        progress = self.state.progress
        if isinstance(self.method, Schedule):
            set_loss(cast("Head", self.network.head), self.method.at(self._way(number)))
        generator = torch.Generator().manual_seed(random_seed(self.seed, number))
        order = rows_in_order(self.rows, self.recipe.sampling, generator)
        count, process = self.accelerator.num_processes, self.accelerator.process_index
        self.wrapped.train()
        start, before = time.perf_counter(), progress.seconds
        saved = start
        for rows in order.split(self.size)[progress.step :]:
            done = (number - 1 + progress.step / self.steps) / self.recipe.epochs
            set_rate(self.optimizer, self.network, self.recipe, done)
            if count > 1 or not progress.step:  # of several, a stored state has the random numbers of the first
                torch.manual_seed(random_seed(self.seed, number, progress.step, process))  # it decides dropout
            progress.total += self._step(rows)
            progress.step += 1
            now = time.perf_counter()
            progress.seconds = before + now - start
            self.listener.on_step()
            if not math.isfinite(progress.total):
                return False
            if now - saved > _SAVE_SECONDS:
                self._save()
                saved = now
        return True

    def _way(self, number: int) -> float:
        """Returns how far an epoch is on the way to the last, by its number alone: so a stopped training goes on."""
        return (number - 1) / max(self.recipe.epochs - 1, 1)

    def _solved(self, number: int, solver: Solver | TreeSolver) -> bool:
        """Solves for the penalty of an epoch, in the first process alone; returns whether the loss is finite."""
        progress, start = self.state.progress, time.perf_counter()
        self.l2 = solver.penalty(number) if self.recipe.l2 is None else self.recipe.l2
        progress.total = processes.on_first(lambda: solver.solve(self.l2, self.listener.on_step))
        progress.seconds = time.perf_counter() - start
        return math.isfinite(progress.total)

    def _step(self, rows: Tensor) -> float:
        """Makes one step of the optimiser on some rows; returns the sum of the loss over them."""
        assert self.optimizer is not None
        total, parts = 0.0, rows.split(self.recipe.batch_size)
        for place, part in enumerate(parts):
            last = place == len(parts) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                total += self._backward(part, len(part) / len(rows)) * len(part)
        if self.recipe.clip_norm is not None:
            clip_gradients(self.network, self.recipe.clip_norm)
        with torch.sparse.check_sparse_tensor_invariants(False):  # torch warns unless told
            self.optimizer.step()
        self.optimizer.zero_grad()
        if "average" in self.state.modules:
            cast(AveragedModel, self.state.modules["average"]).update_parameters(self.network)
        return total

    def _backward(self, part: Tensor, share: float) -> float:
        """Adds the gradient of the mean loss over a part, times its share of the step; returns that mean."""
        count, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = part[rank::count] if len(part) >= count else part
        weight = len(mine) * count / len(part) if len(part) >= count else 1.0  # gradients are averaged over processes
        batch = tuple(each.to(self.accelerator.device) for each in self.rows.encoded.batch(mine))
        targets = self.rows.data.targets_of(mine).to(self.accelerator.device)
        device = self.accelerator.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            if self.recipe.fused_head:
                hidden = self.network.body(*batch)
                return cast(LinearHead, self.network.head).step(hidden, targets).item()
            value = self.wrapped(batch, targets, self.recipe.mixup, self.recipe.r_drop)
        self.accelerator.backward(value * (share * weight))
        mean = cast(Tensor, self.accelerator.reduce(value.detach() * weight, "mean")) if count > 1 else value
        return mean.item()

    def _current(self) -> Model:
        average = self.state.modules.get("average")
        return self.model if average is None else replace(self.model, network=cast(Network, average.module))

    def _judged(self, number: int) -> Epoch | None:
        """Returns the record of an epoch whose steps are made, None where scores are not finite; keeps the best."""
        progress, model = self.state.progress, self._current()
        measured: dict[str, float] = {}
        if self.validation is not None:
            validation = self.validation
            scores = processes.on_first(lambda: validation.measure(model))
            if scores is None:
                return None
            measured = scores
            before = progress.history[progress.improved_in - 1] if progress.improved_in else None
            if validation.is_progress(measured, before):
                progress.improved_in = number
            better = validation.is_better(measured["valid"], progress.best)
            if better:
                progress.best = measured["valid"]
            if better or self._is_equal(measured):
                progress.best_epoch = number
                self.state.best = {name: tensor.clone() for name, tensor in model.weights().items()}
        else:
            progress.best_epoch = number
        method = self.method.at(self._way(number)) if isinstance(self.method, Schedule) else self.method
        seen = measured | diagnose(model, self.rows, method)
        return Epoch(number, progress.total / len(self.rows), progress.seconds, **seen, l2=self.l2)

    def _is_equal(self, measured: Mapping[str, float]) -> bool:
        """Tells whether an epoch is as good as the best so far, with no more dead labels: the last such one is kept."""
        progress = self.state.progress
        assert self.validation is not None
        assert progress.best is not None
        dead = progress.history[progress.best_epoch - 1].dead_labels
        return self.validation.is_equal(measured["valid"], progress.best) and measured["dead_labels"] <= dead

    def _save(self) -> None:
        if self.state_file is not None and self.accelerator.is_main_process:
            self.state.save(self.state_file)


def _possible(recipe: Recipe, encoder: Encoder, method: str, processes: int) -> Recipe:
    """Returns the recipe without a fused update of the head where something needs its gradient.

    Raises UserError for mixup where there is nothing that could be mixed.
    """
    made = parse_method(method)
    direct = (recipe.mixup > 0 or recipe.fused_head) and isinstance(encoder.make_body(), DirectBody)
    if recipe.mixup and (direct or isinstance(made, Powerset)):
        raise UserError(f"--mixup mixes hidden states and soft labels: {encoder.name} with {method} does not have both")
    needs_gradient = processes > 1 or recipe.accumulate > 1 or recipe.clip_norm is not None
    needs_gradient |= recipe.mixup > 0 or recipe.r_drop > 0
    made = made.start if isinstance(made, Schedule) else made
    if direct or needs_gradient or isinstance(made, LearntThreshold | Powerset):
        return replace(recipe, fused_head=False)
    return recipe
