"""Trains every loss on the same data, and tells which wins and whether the difference is real."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout

from lopsided.jobs.baselines import baselines
from lopsided.jobs.budget import TIMED, Budget, TooShortError
from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.console import Console
from lopsided.jobs.details import details
from lopsided.jobs.fit import fit, outcome, read_epochs, read_run, recipe_of
from lopsided.jobs.folder import ComparisonFolder
from lopsided.jobs.progress import Progress
from lopsided.jobs.resplit import RowsBySeed
from lopsided.jobs.results import Round, evidence_of, summarize
from lopsided.jobs.rows import Prepared
from lopsided.jobs.trials import MissingTrialError, Pace, Trials
from lopsided.jobs.tune import Candidate, Run, climb, search
from lopsided.jobs.workers import how_many, side_by_side
from lopsided.models.recipe import Recipe
from lopsided.training.history import Epoch

Part = tuple[str, int]  # a loss and a seed

_TIMED, _SEARCH = -2, -1  # in the place of a seed
_POLL = 0.2  # seconds between two looks at what other workers do


def compare(folder: ComparisonFolder, prepared: Prepared, progress: Progress) -> None:
    """Trains what is not trained yet, a folder of a run for each loss and seed, and writes all results.

    Several processes may do so for one folder at once: each takes what no other has begun.
    """
    worker = Worker(folder, prepared, progress)
    try:
        with worker.helped():
            worker.work()
    except TooShortError:
        folder.discard()
        raise
    candidates = {loss: worker.candidate(loss) for loss in folder.config.losses}
    evidence = evidence_of(folder.config, candidates, worker.recipe, worker.rounds(), worker.told())
    results = summarize(evidence, progress)
    folder.write_outcome(results, details(evidence.of_first_split(), results))
    for leftover in ("locks", "trials"):
        shutil.rmtree(folder.path / leftover, ignore_errors=True)


def _help(path: Path, prepared: Prepared) -> None:
    """Works on a comparison in another process, in silence."""
    with Progress(Console(quiet=True)) as progress:
        progress.preparing()
        Worker(ComparisonFolder.open(path), prepared, progress).work()


class Worker:
    """Does the parts of a comparison one after the other: for each loss a search, then a training for each seed.

    With a budget, an epoch of each loss is timed before.

    A part is done by whoever holds its lock, which the system frees when a process ends, however it ends.
    """

    def __init__(self, folder: ComparisonFolder, prepared: Prepared, progress: Progress) -> None:
        self.folder, self.config, self.progress = folder, folder.config, progress
        self.rows = RowsBySeed(folder.config, prepared, progress.bars)
        self._base = recipe_of(self.config.of_run(self.config.losses[0], 0, {}), prepared)
        self._climbs = self.config.learning_rate is None and not self._base.solved
        self._budget = None if self.config.budget is None else Budget(folder, prepared, self._base, progress)
        self.seeds = self.config.trainings(self._base)
        self.trainings = [(loss, seed) for seed in range(self.seeds) for loss in self.config.losses]
        self._histories: dict[tuple[str, int], list[Epoch]] = {}

    @contextmanager
    def helped(self) -> Iterator[None]:
        """Lets as many processes work beside this one as suit the model."""
        jobs = how_many(self.config, self.rows.first, self._base, len(self.trainings))
        if self._budget is not None:
            self._budget.begin(jobs)
        with side_by_side(jobs, _help, self.folder.path, self.rows.first):
            yield

    @cached_property
    def pace(self) -> Pace:
        """How long trainings last; with a budget, once an epoch of each loss is timed."""
        return Pace.of(self.config, self._base) if self._budget is None else self._budget.pace(self._climbs)

    @cached_property
    def recipe(self) -> Recipe:
        """How the models that are compared are trained."""
        return replace(self._base, epochs=self.pace.full)

    @cached_property
    def trials(self) -> Trials:
        return Trials(self.folder, self.rows.first, self.recipe, self.pace, self.seeds, self.progress)

    def told(self) -> list[str]:
        """Returns what is to be said of the budget."""
        return [] if self._budget is None else [self._budget.told(self.pace)]

    def work(self) -> None:
        """Does what no other worker has begun, until all is done."""
        losses = self.config.losses
        if self._budget is not None:
            self.progress.plan(len(losses) * TIMED)
            self._do([(loss, _TIMED) for loss in losses])
        search = self.pace.search(self._climbs, self.config.tune, extensions=0)
        searches = [(loss, _SEARCH) for loss in losses if search]
        self.progress.plan(len(searches) * search + len(self.trainings) * self.pace.full)
        self._do([*searches, *self.trainings])

    def _do(self, parts: Sequence[Part]) -> None:
        left = list(parts)
        before = {part for part in left if self._is_done(*part)}
        first = multiprocessing.parent_process()
        while left and (first is None or first.is_alive()):
            done = set()
            for part in left:
                if (mine := self._try(*part)) or self._is_done(*part):
                    self._tell(*part, "" if mine else ", trained before" if part in before else ", by another process")
                    done.add(part)
            left = [part for part in left if part not in done]
            if not done:
                time.sleep(_POLL)

    def _is_done(self, loss: str, seed: int) -> bool:
        if seed == _TIMED:
            assert self._budget is not None
            return self._budget.is_timed(loss)
        if seed != _SEARCH:
            return (self.folder.run_path(loss, seed) / "training.json").exists()
        try:
            self.candidate(loss)
        except MissingTrialError:
            return False
        return True

    def _try(self, loss: str, seed: int) -> bool:
        """Does a part unless it is done, cannot be begun, or another worker does it; returns whether it did."""
        if self._is_done(loss, seed) or not (seed < 0 or self._is_done(loss, _SEARCH)):
            return False
        try:
            held = FileLock(self.folder.path / "locks" / f"{self.config.losses.index(loss)} {seed}").acquire(timeout=0)
        except Timeout:
            return False
        with held:
            if self._is_done(loss, seed):
                return False
            if seed == _TIMED:
                assert self._budget is not None
                self._budget.time(loss)
                return True
            if seed == _SEARCH:
                self._chosen(loss, lambda spec, rate, stage: self.trials.run(loss, spec, rate, stage))
                self.trials.forget_states(loss)
                return True
            changes = self.candidate(loss).changes() | {"epochs": self.pace.full, "patience": self.pace.patience}
            self.progress.begin(f"{loss}, seed {seed}", self.pace.full)
            fit(self.folder.run(loss, seed, changes), self.rows.of(seed), self.progress)
        return True

    def rounds(self) -> list[Round]:
        """Returns the runs of each seed, once all are trained, with the baselines of the rows that judge them."""
        rounds: list[Round] = []
        for seed in range(self.seeds):
            rows, file = self.rows.of(seed), f"baselines{seed or ''}.safetensors"
            runs = [read_run(self.folder.open_run(loss, seed), loss, rows) for loss in self.config.losses]
            judged_anew = self.config.resplit or not rounds
            beside = baselines(rows.splits, self.folder.path / file) if judged_anew else rounds[0].beside
            rounds.append(Round(rows.splits, runs, beside))
        return rounds

    def candidate(self, loss: str) -> Candidate:
        """Returns what is trained for a loss. Raises `MissingTrialError` while trials are missing."""
        return self._chosen(loss, lambda spec, rate, stage: self.trials.value(loss, spec, rate, stage))

    def _chosen(self, loss: str, run: Run) -> Candidate:
        config, rate = self.config, self._base.learning_rate
        sign = METRICS[config.metric].sign
        if self._climbs:
            rate = climb(loss, rate, run, sign)
        if config.tune is None:
            return Candidate(loss, {}, rate)
        return search(loss, rate, config.tune, run, sign, config.data_seed, tunes_rate=self._climbs)

    def _tell(self, loss: str, seed: int, how: str) -> None:
        """Says what came of a part; how: who did it, unless it was this process."""
        if seed == _TIMED:
            return
        if seed == _SEARCH:
            self.progress.say(f"{loss}: {self.candidate(loss).shown()}{how}")
            return
        run = self.folder.open_run(loss, seed)
        if how:
            self.progress.begin(f"{loss}, seed {seed}", self.pace.full)
        record, history = read_epochs(run)
        seconds = "" if how else f", {record.seconds:.1f} s"
        self.progress.end(f"{outcome(history, record)}{how}{seconds}")
        self._histories[loss, seed] = history
        self.folder.write_histories({part: self._histories[part] for part in self.trainings if part in self._histories})
