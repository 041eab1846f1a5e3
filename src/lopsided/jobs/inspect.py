"""Runs `lopsided inspect`: what a run's files tell about its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import torch

from lopsided.jobs.folder import ComparisonFolder, RunFolder
from lopsided.training.history import Epoch

Values = dict[str, float]


def diagnostics(folder: RunFolder | ComparisonFolder) -> tuple[str, dict[str, list[Values]]]:
    """Returns a title, and each loss at its first and last epoch, in the mean over the seeds that did not diverge."""
    if isinstance(folder, RunFolder):
        histories: Mapping[str, Sequence[Sequence[Epoch]]] = {folder.config.loss: [folder.read_history()]}
    else:
        histories = {loss: list(seeds.values()) for loss, seeds in folder.read_histories().items()}
    columns = {loss: [_mean(seeds, 0), _mean(seeds, -1)] for loss, seeds in histories.items()}
    return "first → last epoch" + ", mean over seeds" * isinstance(folder, ComparisonFolder), columns


def _mean(histories: Sequence[Sequence[Epoch]], place: int) -> Values:
    columns = {f.name: torch.tensor([getattr(history[place], f.name) for history in histories]) for f in fields(Epoch)}
    return {name: float(values.double().nanmean()) for name, values in columns.items()}
