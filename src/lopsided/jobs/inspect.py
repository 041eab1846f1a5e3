"""Runs `lopsided inspect`: what a run's files tell about its training."""

from __future__ import annotations

import math
from dataclasses import asdict, fields

import torch
from rich.console import Console

from lopsided.data.sparse_files import SparseRows
from lopsided.jobs.fit import load_rows_for, trained_model
from lopsided.jobs.folder import FitFolder, RunFolder
from lopsided.jobs.progress import bars
from lopsided.jobs.schema import HistoryLine
from lopsided.models.sparse_features import SparseClassifier
from lopsided.nn.functional import multilabel_loss
from lopsided.nn.trackers import DiagnosticsTracker, ProbabilityTracker
from lopsided.training.loop import Epoch

Values = dict[str, float]

_SAMPLED, _LOGITS = 512, 2**24  # training rows that a model is looked at with, and the most logits that they may have


def diagnostics(folder: RunFolder | FitFolder, console: Console) -> tuple[str, dict[str, list[Values]]]:
    """Returns a title, and each loss of a comparison at its first and last epoch, or a fitted model as it is now.

    The training of `lopsided fit` never holds the logits: some training rows are shown to the model of its checkpoint.
    """
    if isinstance(folder, FitFolder):
        return _of_model(folder, console)
    columns = {loss: [_mean(seeds, 0), _mean(seeds, -1)] for loss, seeds in folder.read_histories().items()}
    return "first → last epoch, mean over seeds", columns


def _mean(seeds: dict[int, list[HistoryLine]], place: int) -> Values:
    """Computes the mean of each column of an epoch over the seeds that did not diverge."""
    columns = {
        f.name: torch.tensor([getattr(history[place], f.name) for history in seeds.values()]) for f in fields(Epoch)
    }
    return {name: float(values.double().nanmean()) for name, values in columns.items()}


def _of_model(folder: FitFolder, console: Console) -> tuple[str, dict[str, list[Values]]]:
    checkpoint, _ = trained_model(folder)
    with bars(console) as live:
        rows = load_rows_for(folder, checkpoint, folder.config.files()["data"], live)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    some = order[: max(1, min(_SAMPLED, _LOGITS // rows.num_labels))]
    title = f"after epoch {len(checkpoint.history)}, on {len(some)} training rows"
    return title, {folder.config.loss: [_measured(checkpoint.model, rows.take(some))]}


def _measured(model: SparseClassifier, rows: SparseRows) -> Values:
    model.eval()
    batch, targets = rows.batch(torch.arange(len(rows)))
    with torch.no_grad():
        logits = model.head.logits(model(batch))
    multilabel_loss(logits.requires_grad_(), targets, model.head.formula, reduction="batchmean").backward()
    probabilities, gradients = ProbabilityTracker(), DiagnosticsTracker()
    probabilities.update(logits.detach(), targets)
    gradients.update(logits.detach(), logits.grad, targets)
    sides = {"p_positive": probabilities.positive, "p_negative": probabilities.negative}
    return asdict(gradients.result()) | sides | {"dead_labels": math.nan}
