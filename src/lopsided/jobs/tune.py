"""Tunes all losses equally: every loss gets the same number of trials, judged on the validation rows.

The first trial of each is what an untuned run would train, the others are chosen by TPE (optuna's default) from the
ranges of `losses/catalog.py`. Trials stand in trials.csv; a run that goes on asks optuna the same questions again and
answers from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lopsided.data.storage import UserError
from lopsided.jobs.config import CompareConfig
from lopsided.jobs.progress import Progress
from lopsided.jobs.rows import Prepared
from lopsided.jobs.schema import Trial, read_table, write_table
from lopsided.jobs.score import METRICS, Scored, evaluate
from lopsided.losses.catalog import LEARNING_RATE, Range
from lopsided.losses.names import defaults, ranges, with_settings
from lopsided.models.heads import own_threshold, parse_method
from lopsided.models.recipe import Recipe
from lopsided.training.loop import Listener, train
from lopsided.training.validate import Validation


@dataclass(frozen=True)
class Candidate:
    """Says what to train for one of the losses that are compared."""

    spec: str
    settings: dict[str, float]  # those of the spec that were tuned
    learning_rate: float  # 0 for a model that is solved

    def tuned(self) -> dict[str, float]:
        """Returns everything that tuning chose."""
        return self.settings | self._rate

    def changes(self) -> dict[str, Any]:
        """Returns the settings of a run that differ from those of the comparison."""
        return {"loss": self.spec, **self._rate}

    @property
    def _rate(self) -> dict[str, float]:
        return {"learning_rate": self.learning_rate} if self.learning_rate else {}

    def shown(self) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in self.tuned().items())


def default_candidates(config: CompareConfig, recipe: Recipe) -> dict[str, Candidate]:
    """Returns every loss as it was asked for."""
    return {loss: Candidate(loss, {}, recipe.learning_rate) for loss in config.losses}


def tune(
    config: CompareConfig, prepared: Prepared, recipe: Recipe, path: Path, progress: Progress
) -> dict[str, Candidate]:
    """Returns for each loss the best of `config.tune` candidates; path: trials.csv, written after each trial.

    Candidates are trained once each, with a seed that the comparison does not use. Test rows take no part.
    """
    prepared = replace(prepared, test=None)  # whatever happens below, it cannot see the test rows
    trials = read_trials(path)
    known = {(trial.loss, trial.trial): trial for trial in trials}

    def run(trial: Trial) -> float:
        progress.begin(f"{trial.spec}, trial {trial.trial} of {config.tune}")
        earlier = known.get((trial.loss, trial.trial))
        if earlier is not None and replace(earlier, value=0.0) != replace(trial, value=0.0):  # a NaN never equals a NaN
            raise UserError(
                f"{path}: trial {trial.trial} of {trial.loss} is {earlier.spec}, not {trial.spec} as the "
                "optuna installed here would have it; start a new run"
            )
        value = earlier.value if earlier else _validate(config, trial, prepared, recipe, progress)
        outcome = f"validation {METRICS[config.metric].title} {value:.3f}, rate {trial.learning_rate:g}"
        if earlier:
            progress.skip(outcome)
        else:
            trials.append(replace(trial, value=value))
            write_table(path, Trial, trials)
            progress.end(outcome)
        return value

    return {loss: search(config, loss, recipe.learning_rate, run) for loss in config.losses}


def search(config: CompareConfig, loss: str, learning_rate: float, run: Callable[[Trial], float]) -> Candidate:
    """Returns the best of `config.tune` candidates by the value of `run`; the untuned loss if all are NaN."""
    import optuna  # importing it takes a second, which only tuning should cost

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rates = Range(LEARNING_RATE.low * learning_rate, LEARNING_RATE.high * learning_rate, LEARNING_RATE.log)
    where: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(each.low, each.high, log=each.log)
        for name, each in (ranges(loss) | ({"learning_rate": rates} if learning_rate else {})).items()
    }
    sign = 1 if METRICS[config.metric].higher_is_better else -1
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=config.data_seed))
    study.enqueue_trial(defaults(loss) | ({"learning_rate": learning_rate} if learning_rate else {}))
    best, best_value = Candidate(loss, {}, learning_rate), -math.inf
    for number in range(1, (config.tune or 0) + 1):
        asked = study.ask(where)
        rounded = {name: float(f"{value:.4g}") for name, value in asked.params.items()}  # what a person would copy
        candidate = _candidate(loss, asked.params if number == 1 else rounded)
        value = run(Trial(loss, number, candidate.spec, candidate.learning_rate, config.metric, math.nan))
        if math.isnan(value):
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
            continue
        study.tell(asked, sign * value)
        if sign * value > best_value:
            best, best_value = candidate, sign * value
    return best


def _candidate(loss: str, params: dict[str, float]) -> Candidate:
    settings = {name: value for name, value in params.items() if name != "learning_rate"}
    return Candidate(with_settings(loss, settings), settings, params.get("learning_rate", 0.0))


def _validate(config: CompareConfig, trial: Trial, prepared: Prepared, recipe: Recipe, progress: Progress) -> float:
    """Computes the metric on the validation rows of a model that is trained now."""
    assert prepared.valid is not None
    recipe = replace(recipe, learning_rate=trial.learning_rate)
    validation = Validation(prepared.valid, config.validation_metric, config.patience)
    listener = Listener(progress.step, lambda history: progress.epoch(history[-1], recipe.epochs))
    trained = train(
        prepared.encoder, trial.spec, prepared.train, recipe, config.seeds, validation=validation, listener=listener
    )
    if trained.diverged:
        return math.nan
    scores = trained.model.score(prepared.valid.encoded, prepared.valid.keep)
    targets = prepared.valid.data.hard_targets()
    own = own_threshold(parse_method(trial.spec))
    return evaluate(trial.metric, Scored(scores, targets, scores, targets, own))


def read_trials(path: Path) -> list[Trial]:
    """Returns the trials so far, none if there is no file."""
    try:
        return read_table(path, Trial, "delete it to tune again")
    except FileNotFoundError:
        return []
