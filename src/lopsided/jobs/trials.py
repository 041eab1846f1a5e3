"""Trains candidates for a while, and remembers how well each did, for every worker on the same comparison.

What was tried stands in a database of optuna, a study for each loss, and in trials.csv for people.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from pydantic import TypeAdapter

from lopsided.data.storage import UserError
from lopsided.jobs.compare_config import CompareConfig
from lopsided.jobs.folder import ComparisonFolder
from lopsided.jobs.progress import Progress
from lopsided.jobs.rehearsal import Rehearsal
from lopsided.jobs.rows import Prepared
from lopsided.jobs.schema import Stage, Trial, write_table
from lopsided.jobs.tune import EXTENSIONS, RUNGS
from lopsided.losses.names import read
from lopsided.models.recipe import Recipe

if TYPE_CHECKING:
    import optuna


class MissingTrialError(Exception):
    """Tells that a trial is not finished."""


@dataclass(frozen=True)
class Pace:
    """Holds how many epochs a training may last, the same for every loss.

    short, long: of the two rounds of a ladder of rates; trials of `--tune` are long. full: of the trainings that are
    compared. patience: epochs without a better validation score after which any of them stops.
    """

    short: int
    long: int
    full: int
    patience: int

    @classmethod
    def of(cls, config: CompareConfig, recipe: Recipe, full: int | None = None) -> Pace:
        """Returns how long the trainings of a comparison last, of a model with that recipe; full: None for the default.

        With a schedule, a training is as long as the recipe says, since the rate falls to 0 by then.
        """
        if recipe.solved:  # an epoch is a penalty, and there is no rate
            full = config.epochs or recipe.epochs
            return cls(full, full, full, config.patience or recipe.patience or full)
        constant = recipe.schedule == "constant"
        full = full or config.epochs or recipe.epochs * (2 if constant else 1)
        long = -(-full // 3) if constant else full
        return cls(-(-long // 4), long, full, config.patience or max(3, long // 4))

    def search(self, climbs: bool, trials: int | None, extensions: int = EXTENSIONS) -> int:
        """Returns the most epochs of the search for a loss: of a ladder of rates, perhaps extended, and of `--tune`."""
        ladder = (RUNGS + extensions) * self.short + RUNGS // 2 * (self.long - self.short)
        return (ladder if climbs else 0) + (trials or 0) * self.long


class Trials(Rehearsal):
    """Holds the trials of a comparison, each of which is trained once, whoever works on it and however often it stops.

    The value of a trial is the best that an epoch reached, NaN where training diverged.
    """

    def __init__(
        self, folder: ComparisonFolder, prepared: Prepared, recipe: Recipe, pace: Pace, seed: int, progress: Progress
    ) -> None:
        super().__init__(folder, prepared, recipe, seed, progress)
        self.pace = pace

    @cached_property
    def _studies(self) -> dict[str, optuna.Study]:
        import optuna  # importing it takes a second, which only trials should cost

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = self.folder.path
        config = hashlib.sha256((path / "config.json").read_bytes()).hexdigest()[:16]  # the database may have others
        with FileLock(path / "locks" / "trials"), self._telling():
            storage = optuna.storages.get_storage(self.config.storage or f"sqlite:///{path / 'trials.db'}")
            return {
                loss: optuna.create_study(storage=storage, study_name=f"{config} {loss}", load_if_exists=True)
                for loss in self.config.losses
            }

    def of(self, loss: str) -> list[Trial]:
        """Returns the trials of a loss so far, in their order."""
        with self._telling():
            stored = self._studies[loss].get_trials(deepcopy=False)
            return TypeAdapter(list[Trial]).validate_python([_line(each) for each in stored])

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turns whatever goes wrong with the database, which anybody may have written, into a UserError."""
        try:
            yield
        except (UserError, ImportError):
            raise
        except Exception as error:
            reason: BaseException = error
            while reason.__cause__ is not None:  # optuna and SQLAlchemy say over it what they did
                reason = reason.__cause__
            where = "--storage" if self.config.storage else str(self.folder.path / "trials.db")
            raise UserError(
                f"{where}: not a database of the trials that can be used ({reason}); {self.folder.repair}"
            ) from None

    def value(self, loss: str, spec: str, rate: float, stage: Stage) -> float:
        """Returns the value of a candidate for a loss. Raises MissingTrialError if it was not tried yet."""
        for trial in self.of(loss):
            if (trial.stage, trial.spec, trial.learning_rate) == (stage, spec, rate):
                return trial.value
        raise MissingTrialError

    def run(self, loss: str, spec: str, rate: float, stage: Stage) -> float:
        """Returns the value of a candidate for a loss, trained now if it is not known; from where it was stopped."""
        with suppress(MissingTrialError):
            return self.value(loss, spec, rate, stage)
        epochs, known = self.pace.short if stage == "short" else self.pace.long, self.of(loss)
        trial = Trial(loss, len(known) + 1, stage, spec, rate, epochs, 0, self.config.metric, math.nan)
        same = [each for each in known if (each.spec, each.learning_rate, each.epochs) == (spec, rate, epochs)]
        best_epoch, value = (same[0].best_epoch, same[0].value) if same else self._try(trial)
        self._add(replace(trial, best_epoch=best_epoch, value=value))
        return value

    def forget_states(self, loss: str) -> None:
        """Deletes what the trials of a loss would have gone on from."""
        shutil.rmtree(self._states(loss), ignore_errors=True)

    def _states(self, loss: str) -> Path:
        return self.folder.path / "trials" / str(self.config.losses.index(loss))

    def _try(self, trial: Trial) -> tuple[int, float]:
        """Returns the best epoch and its value."""
        self.progress.begin(f"{trial.spec}, rate {trial.learning_rate:g}", trial.epochs)
        candidate = hashlib.sha256(f"{trial.spec} {trial.learning_rate!r}".encode()).hexdigest()[:16]
        trained = self.train(
            trial.spec,
            replace(self.recipe, learning_rate=trial.learning_rate),
            self._states(trial.loss) / f"{candidate}.safetensors",
            trial.epochs,
            self.pace.patience,
            lambda history: self.progress.epoch(history[-1], trial.epochs),
        )
        self.progress.end()
        best = trained.best_epoch
        return (0, math.nan) if trained.diverged or not best else (best, trained.history[best - 1].valid)

    def _add(self, trial: Trial) -> None:
        import optuna

        line = asdict(trial)
        value = line.pop("value")
        numbers = {name: each for name, each in read(trial.spec)[1].items() if isinstance(each, int | float)}
        params = {"learning_rate": trial.learning_rate} | numbers
        made = optuna.trial.create_trial(
            state=optuna.trial.TrialState.FAIL if math.isnan(value) else optuna.trial.TrialState.COMPLETE,
            value=None if math.isnan(value) else value,
            params=params,
            distributions={
                name: optuna.distributions.FloatDistribution(min(0.0, each), max(1.0, each))
                for name, each in params.items()
            },
            user_attrs=line,
        )
        with self._telling():
            self._studies[trial.loss].add_trial(made)
        lines = [each for loss in self.config.losses for each in self.of(loss)]
        write_table(self.folder.path / "trials.csv", Trial, lines)


def _line(stored: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """Returns the fields of a `Trial`. Raises ValueError for one that ended well but has no value."""
    if stored.value is None and stored.state.name != "FAIL":
        raise ValueError(f"trial {stored.number} has no value")
    return stored.user_attrs | {"value": math.nan if stored.value is None else stored.value}
