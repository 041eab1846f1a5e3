"""`lopsided inspect`: what a run's files tell about its training."""

from __future__ import annotations

import math
from dataclasses import asdict

import torch
from rich.console import Console

from lopsided.data.sparse_files import SparseRows
from lopsided.data.storage import UserError
from lopsided.jobs.fit import FitFolder, read
from lopsided.jobs.folder import RunFolder, read_histories
from lopsided.jobs.progress import bars
from lopsided.models.sparse_features import SparseClassifier
from lopsided.nn.functional import multilabel_loss
from lopsided.nn.trackers import DiagnosticsTracker, ProbabilityTracker

Values = dict[str, float]

_SAMPLED, _LOGITS = 512, 2**24  # training rows that a model is looked at with, and the most logits that they may have


def diagnostics(folder: RunFolder | FitFolder, console: Console) -> tuple[str, dict[str, list[Values]]]:
    """A title, and of a comparison every loss at the first and the last epoch; of a fitted model, it as it is now.

    The training of `lopsided fit` never holds the logits: some training rows are shown to the model of its checkpoint.
    """
    if isinstance(folder, RunFolder):
        return "first → last epoch, mean over seeds", _of_losses(folder)
    return _of_model(folder, console)


def _of_losses(folder: RunFolder) -> dict[str, list[Values]]:
    """The means of metrics.csv over the seeds, for every loss that it has: of its first and its last epoch."""
    path = folder.path / "metrics.csv"
    if not path.exists():
        raise UserError(f"{folder.path}: no training is finished yet; go on with: lopsided compare {folder.path}")
    return {loss: [_mean(seeds, 0), _mean(seeds, -1)] for loss, seeds in read_histories(path).items()}


def _mean(seeds: dict[int, dict[str, list[float]]], epoch: int) -> Values:
    """Of each column over the seeds that did not diverge."""
    histories = list(seeds.values())
    columns = {name: torch.tensor([history[name][epoch] for history in histories]) for name in histories[0]}
    return {name: float(values.double().nanmean()) for name, values in columns.items()}


def _of_model(folder: FitFolder, console: Console) -> tuple[str, dict[str, list[Values]]]:
    checkpoint, _ = folder.trained()
    model = checkpoint.model
    sizes = model.num_features, len(model.label_counts)
    with bars(console) as live:
        rows = read(folder.config.files()["data"], live, folder.config.normalize, sizes)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    some = order[: max(1, min(_SAMPLED, _LOGITS // rows.num_labels))]
    title = f"after epoch {len(checkpoint.history)}, on {len(some)} training rows"
    return title, {folder.config.loss: [_measured(model, rows.take(some))]}


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
