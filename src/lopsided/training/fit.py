"""Training: one visible loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lopsided.evaluation.metrics import Ranking, mean_average_precision
from lopsided.losses import Loss
from lopsided.models.task import Budget, Rows, Task
from lopsided.modules import MultiLabelLoss

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
    task: Task, loss: Loss, budget: Budget, seed: int, on_epoch: Callable[[Epoch], None] = lambda epoch: None
) -> tuple[nn.Module, list[Epoch]]:
    """Train a fresh model at a constant rate; returns the exponential average of its weights, and the history.

    A training that diverges stops, and the epochs that are lost are NaN.

    Initial weights and batch order depend on the seed alone, never on the loss. Averaging, as in the published
    training of ASL, takes out the noise of the last steps without a schedule that would flatten the curves.
    """
    torch.manual_seed(seed)
    model = task.make_model()
    criterion = MultiLabelLoss(loss, reduction="batchmean")
    optimizer = task.make_optimizer(model, budget.learning_rate)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(_EMA_DECAY), use_buffers=True)
    order = torch.Generator().manual_seed(seed)
    history: list[Epoch] = []
    for number in range(1, budget.epochs + 1):
        start = time.perf_counter()
        model.train()
        confidence = Confidence()
        total = 0.0
        for rows in torch.randperm(len(task.train), generator=order).split(budget.batch_size):
            targets = task.train.targets[rows]
            value = criterion(logits := model(*task.train.batch(rows)), targets)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            averaged.update_parameters(model)
            total += value.item() * len(rows)
            confidence.update(logits.detach(), targets)
        seconds = time.perf_counter() - start
        scores = predict(averaged, task.valid)
        if not (math.isfinite(total) and scores.isfinite().all()):
            return averaged, history + [Epoch.lost(rest) for rest in range(number, budget.epochs + 1)]
        valid_map = mean_average_precision(Ranking.of(scores, task.valid.targets))
        p_positive, p_negative = confidence.positive, confidence.negative
        history.append(Epoch(number, total / len(task.train), p_positive, p_negative, valid_map, seconds))
        on_epoch(history[-1])
    return averaged, history


@torch.no_grad()
def predict(model: nn.Module, rows: Rows) -> Tensor:
    """(N, L) logits, float32, in the order of the rows."""
    model.eval()
    return torch.cat([model(*rows.batch(part)) for part in torch.arange(len(rows)).split(_PREDICT_ROWS)])


class Confidence:
    """The mean probability of the right answer on positive and on negative labels: p+ and p- of ASL, section 2.6."""

    def __init__(self) -> None:
        self._right = torch.zeros(2, dtype=torch.float64)
        self._count = torch.zeros(2, dtype=torch.float64)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        p = torch.sigmoid(logits.double())
        self._right += torch.stack([p[targets].sum(), (1 - p)[~targets].sum()])
        self._count += torch.stack([targets.sum(), (~targets).sum()])

    @property
    def positive(self) -> float:
        """NaN before the first positive label."""
        return float(self._right[0] / self._count[0])

    @property
    def negative(self) -> float:
        return float(self._right[1] / self._count[1])
