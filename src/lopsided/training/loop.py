"""Trains a model in one visible loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lopsided.decision.rules import best_threshold
from lopsided.metrics.registry import METRICS
from lopsided.metrics.scores import Judged
from lopsided.metrics.weighted import Weighable
from lopsided.models.task import Budget, Rows, Task
from lopsided.nn.trackers import DiagnosticsTracker, ProbabilityTracker
from lopsided.training.objective import TrainingObjective

_EMA_DECAY = 0.98  # per step: an average over about the last 50
_PREDICT_ROWS = 512  # rows per batch when no gradient is kept
DIAGNOSE_EVERY_BATCHES = 4  # the gradient of every fourth batch is examined


@dataclass(frozen=True)
class Epoch:
    """Records what an epoch of training showed. Probabilities are sigmoid(logit) on the training batches, as they came.

    Gradients and logits are those of every fourth batch, see `lopsided.Diagnostics`; NaN where a method, such as
    label powerset, trains no label logits.
    """

    epoch: int
    train_loss: float  # mean over the rows, in the units of the loss: not comparable between losses
    p_positive: float  # mean probability given to the right answer on positive labels: p
    p_negative: float  # and on negative labels: 1 - p
    valid_map: float  # of the averaged weights
    seconds: float  # training alone
    gradient_positive: float = math.nan  # share of the absolute gradient on the logits that acts on positives
    gradient_hard: float = math.nan  # share that acts on negatives with p > .5
    effective_gamma: float = math.nan  # gradient of a negative ~ p^(1 + gamma)
    logit_positive: float = math.nan  # means over the batches
    logit_negative: float = math.nan
    dead_labels: float = math.nan  # number of labels predicted for no validation row at the tuned threshold

    @classmethod
    def lost(cls, number: int) -> Epoch:
        """Returns the record of an epoch that a diverged training did not finish."""
        return cls(number, math.nan, math.nan, math.nan, math.nan, 0.0)

    @property
    def is_lost(self) -> bool:
        return math.isnan(self.train_loss)


def train(
    task: Task,
    objective: TrainingObjective,
    budget: Budget,
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[nn.Module, list[Epoch]]:
    """Trains a fresh model at a constant rate; returns the exponential average of its weights, and the history.

    A training that diverges stops; lost epochs are NaN. Weights and order begin from the seed alone, whatever the loss.
    Averaging, as in ASL's published training, takes out the noise of the last steps and keeps the curves unflattened.
    """
    torch.manual_seed(seed)
    model = task.make_model(objective.outputs)
    optimizer = task.make_optimizer(model, budget.learning_rate)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(_EMA_DECAY), use_buffers=True)
    order = torch.Generator().manual_seed(seed)
    history: list[Epoch] = []
    for number in range(1, budget.epochs + 1):
        start = time.perf_counter()
        model.train()
        probabilities, gradients, total = ProbabilityTracker(), DiagnosticsTracker(), 0.0
        for step, rows in enumerate(torch.randperm(len(task.train), generator=order).split(budget.batch_size)):
            targets = task.train.targets[rows]
            value = objective.criterion(outputs := model(*task.train.batch(rows)), targets)
            if looked := objective.scores_are_outputs and step % DIAGNOSE_EVERY_BATCHES == 0:
                outputs.retain_grad()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            averaged.update_parameters(model)
            total += value.item() * len(rows)
            probabilities.update(objective.scores(outputs.detach()), targets)
            if looked:
                gradients.update(outputs.detach(), outputs.grad, targets)
        seconds = time.perf_counter() - start
        scores = predict_scores(averaged, objective, task.valid)
        if not (math.isfinite(total) and scores.isfinite().all()):
            return averaged, history + [Epoch.lost(rest) for rest in range(number, budget.epochs + 1)]
        seen = asdict(gradients.result()) | _on_validation(scores, task.valid.targets) | {"seconds": seconds}
        history.append(Epoch(number, total / len(task.train), probabilities.positive, probabilities.negative, **seen))
        on_epoch(history[-1])
    return averaged, history


def _on_validation(scores: Tensor, targets: Tensor) -> dict[str, float]:
    judged = Judged.of(scores, targets)
    decided = (scores > best_threshold(judged)).any(0)
    dead = int((targets.any(0) & ~decided).sum())
    return {"valid_map": METRICS["map"].value(Weighable(judged).summary()), "dead_labels": dead}


@torch.no_grad()
def predict_scores(model: nn.Module, objective: TrainingObjective, rows: Rows) -> Tensor:
    """Returns (N, L) label logits, float32, in the order of the rows."""
    model.eval()
    return torch.cat(
        [objective.scores(model(*rows.batch(part))) for part in torch.arange(len(rows)).split(_PREDICT_ROWS)]
    )
