"""Training: one visible loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lopsided.adaptive import ProbabilityTracker
from lopsided.evaluation.metrics import Ranking, mean_average_precision
from lopsided.models.task import Budget, Rows, Task
from lopsided.training.objective import Objective

_EMA_DECAY = 0.98  # per step: an average over about the last 50
_PREDICT_ROWS = 512  # rows per batch when no gradient is kept


@dataclass(frozen=True)
class Epoch:
    """What one epoch of training showed. Probabilities are sigmoid(logit) on the training batches, as they came."""

    epoch: int
    train_loss: float  # mean over the rows, in the units of the loss: not comparable between losses
    p_positive: float  # mean probability given to the right answer on positive labels: p
    p_negative: float  # and on negative labels: 1 - p
    valid_map: float  # of the averaged weights
    seconds: float  # training alone

    @classmethod
    def lost(cls, number: int) -> Epoch:
        """An epoch that a diverged training did not finish."""
        return cls(number, math.nan, math.nan, math.nan, math.nan, 0.0)

    @property
    def is_lost(self) -> bool:
        return math.isnan(self.train_loss)


def fit(
    task: Task, objective: Objective, budget: Budget, seed: int, on_epoch: Callable[[Epoch], None] = lambda epoch: None
) -> tuple[nn.Module, list[Epoch]]:
    """Train a fresh model at a constant rate; returns the exponential average of its weights, and the history.

    A training that diverges stops, and the epochs that are lost are NaN.

    Initial weights and batch order depend on the seed alone, never on the loss. Averaging, as in the published
    training of ASL, takes out the noise of the last steps without a schedule that would flatten the curves.
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
        tracker = ProbabilityTracker()
        total = 0.0
        for rows in torch.randperm(len(task.train), generator=order).split(budget.batch_size):
            targets = task.train.targets[rows]
            value = objective.criterion(outputs := model(*task.train.batch(rows)), targets)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            averaged.update_parameters(model)
            total += value.item() * len(rows)
            tracker.update(objective.scores(outputs.detach()), targets)
        seconds = time.perf_counter() - start
        scores = predict(averaged, objective, task.valid)
        if not (math.isfinite(total) and scores.isfinite().all()):
            return averaged, history + [Epoch.lost(rest) for rest in range(number, budget.epochs + 1)]
        valid_map = mean_average_precision(Ranking.of(scores, task.valid.targets))
        p_positive, p_negative = tracker.positive, tracker.negative
        history.append(Epoch(number, total / len(task.train), p_positive, p_negative, valid_map, seconds))
        on_epoch(history[-1])
    return averaged, history


@torch.no_grad()
def predict(model: nn.Module, objective: Objective, rows: Rows) -> Tensor:
    """(N, L) label logits, float32, in the order of the rows."""
    model.eval()
    return torch.cat(
        [objective.scores(model(*rows.batch(part))) for part in torch.arange(len(rows)).split(_PREDICT_ROWS)]
    )
