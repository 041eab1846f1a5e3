"""Divides `--budget`, a wall time, equally over the losses of a comparison: their trials and seeds included."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from filelock import FileLock

from lopsided.data.storage import UserError
from lopsided.jobs.compare_config import in_seconds
from lopsided.jobs.folder import ComparisonFolder
from lopsided.jobs.progress import Progress
from lopsided.jobs.rehearsal import Rehearsal
from lopsided.jobs.rows import Prepared
from lopsided.jobs.schema import Speed, read_file, write_file
from lopsided.jobs.trials import Pace
from lopsided.models.recipe import Recipe

TIMED = 3  # epochs: the first takes longer, and of the others the slower may have been disturbed
_LONG = 30.0  # seconds of a first epoch, beside which what is slow about a first one is nothing
_MOST = 1_000_000  # epochs
_AROUND = 1.1  # times the epochs: models are made, scored and written, too


class TooShortError(UserError):
    """Tells that a budget is too short for one epoch of everything."""


class Budget(Rehearsal):
    """Times an epoch of each loss, and finds the pace at which the slowest fits into its share.

    All losses train at that pace, so that they make equally many steps and none takes longer than its share; had each
    as many epochs as fit, a busy moment of the machine while one was timed would decide how long it trains. What was
    timed is stored, so that a comparison that was stopped goes on at the same pace, wherever it goes on.
    """

    def __init__(self, folder: ComparisonFolder, prepared: Prepared, recipe: Recipe, progress: Progress) -> None:
        """recipe: of a training, but for its epochs."""
        self.seeds = folder.config.trainings(recipe)
        super().__init__(folder, prepared, recipe, self.seeds, progress)

    def begin(self, jobs: int) -> None:
        """Stores how many trainings run side by side, before any is timed."""
        if not self._file.exists():
            write_file(self._file, Speed(jobs=jobs, seconds={}))

    def is_timed(self, loss: str) -> bool:
        return loss in self._speed().seconds

    def time(self, loss: str) -> None:
        """Stores how long an epoch of a loss takes, with the validation after it, when nothing disturbs it."""
        state = self.folder.path / "trials" / f"timed {self.config.losses.index(loss)}.safetensors"
        state.unlink(missing_ok=True)
        self.progress.begin(f"{loss}, timed", TIMED)
        seconds = self._seconds(loss, state, 1)[0]
        if seconds < _LONG:
            seconds = min(self._seconds(loss, state, TIMED))
        self.progress.end()
        with FileLock(self.folder.path / "locks" / "budget"):
            known = self._speed()
            write_file(self._file, Speed(jobs=known.jobs, seconds=known.seconds | {loss: seconds}))

    def pace(self, climbs: bool) -> Pace:
        """Returns the longest pace that fits. Raises TooShortError where one epoch of everything does not.

        climbs: whether each loss climbs a ladder of rates.
        """
        assert self.config.budget is not None
        speed, losses = self._speed(), len(self.config.losses)
        slowest = max(speed.seconds.values())

        def lasts(full: int) -> float:
            """All work, shared by the workers, and at the end a part that only one of them is left with."""
            pace = Pace.of(self.config, self.recipe, full)
            search = pace.search(climbs, self.config.tune)
            work = losses * (TIMED + search + self.seeds * full)
            return _AROUND * slowest * (work + (speed.jobs - 1) * max(search, full)) / speed.jobs

        fits = bisect_right(range(1, _MOST), in_seconds(self.config.budget), key=lasts)
        if not fits:
            raise TooShortError(
                f"--budget {self.config.budget}: one epoch of each training takes about {math.ceil(lasts(1))} s; ask "
                "for more, or for fewer losses, seeds or trials"
            )
        return Pace.of(self.config, self.recipe, min(fits, self.config.epochs or fits))

    def told(self, pace: Pace) -> str:
        """Says for people what was decided, and by what."""
        seconds = self._speed().seconds
        slowest = max(seconds, key=lambda loss: seconds[loss])
        within = f"Within {self.config.budget} every loss may train for {pace.full} epoch{'s' * (pace.full > 1)}"
        if pace.full == self.config.epochs:
            return f"{within}, as many as --epochs allows."
        return f"{within}, as many as the slowest can in its share: {slowest}, with {seconds[slowest]:.2g} s an epoch."

    def _seconds(self, loss: str, state: Path, until: int) -> list[float]:
        """Trains on from a state; returns how long each epoch took."""
        ends = [time.perf_counter()]
        recipe = replace(self.recipe, epochs=TIMED)
        self.train(loss, recipe, state, until, TIMED, lambda _: ends.append(time.perf_counter()))
        return [end - start for start, end in pairwise(ends)] or [time.perf_counter() - ends[0]]  # if it diverged

    @property
    def _file(self) -> Path:
        return self.folder.path / "budget.json"

    def _speed(self) -> Speed:
        return read_file(self._file, Speed, self.folder.repair)
