"""Trains models for a while that no comparison shows: to time a loss, or to try a rate or settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lopsided.jobs.folder import ComparisonFolder
from lopsided.jobs.progress import Progress
from lopsided.jobs.rows import Prepared
from lopsided.models.recipe import Recipe
from lopsided.training.history import Epoch
from lopsided.training.loop import Listener, Trained, train
from lopsided.training.validate import Validation


class Rehearsal:
    """Trains with a seed that the comparison does not use, and judges on validation rows."""

    def __init__(
        self, folder: ComparisonFolder, prepared: Prepared, recipe: Recipe, seed: int, progress: Progress
    ) -> None:
        """recipe: of the trainings that are compared. seed: one that none of them has."""
        self.folder, self.config, self.progress = folder, folder.config, progress
        self.prepared = replace(prepared, test=None)  # whatever happens below, it cannot see the test rows
        self.recipe, self.seed = recipe, seed

    def train(
        self,
        spec: str,
        recipe: Recipe,
        state: Path,
        until: int,
        patience: int,
        on_epoch: Callable[[list[Epoch]], object],
    ) -> Trained:
        """Trains until the end of an epoch, from where the state was left."""
        rows = self.prepared.valid
        assert rows is not None
        return train(
            self.prepared.encoder,
            spec,
            self.prepared.train,
            recipe,
            self.seed,
            validation=Validation(rows, self.config.validation_metric, patience),
            state_file=state,
            listener=Listener(self.progress.step, on_epoch),
            until=until,
        )
