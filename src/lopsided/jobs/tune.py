"""Finds for each loss the rate, and with `--tune` the settings, that do best on validation rows: equally for all.

A ladder of rates, a geometric grid of two decades around the default of the model, is the same for every loss: all
rungs are trained for a short while, the better half for longer (successive halving, Jamieson & Talwalkar, arXiv
1502.07943). Trials of `--tune` begin with the defaults at the best rate, go on with points that fill the ranges of
`losses/catalog.py` evenly (Sobol), and then follow TPE, optuna's default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lopsided.jobs.numbers import settings_in_words
from lopsided.jobs.schema import Stage
from lopsided.losses.entries import LEARNING_RATE, Range
from lopsided.losses.names import defaults, ranges, with_settings

Run = Callable[[str, float, Stage], float]  # (spec, learning rate, stage) -> value, NaN where training diverged

RUNGS = 5
_STEP = math.sqrt(10)  # between two rungs
EXTENSIONS = 2  # the most rungs that are added where the best is at an edge
_ALIKE = 0.05  # of a value, or of what it lacks of 1: how far apart the values of two seeds easily are
_DESIGNED = 8  # trials after which the search learns from those before


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
        return settings_in_words(self.tuned()) or "as it is"


def climb(loss: str, default: float, run: Run, sign: int) -> float:
    """Returns the best rate for a loss; `default`, the middle of the ladder, where every training diverged.

    sign: 1 if higher values are better, else -1.
    """

    def score(rung: int, stage: Stage) -> float:
        value = run(loss, rate_of(rung, default), stage)
        return -math.inf if math.isnan(value) else sign * value

    half = RUNGS // 2
    short = {rung: score(rung, "short") for rung in sorted(range(-half, half + 1), key=abs)}
    for _ in range(EXTENSIONS):
        best = max(short, key=lambda rung: short[rung])  # of equals, the one nearest to the default
        if short[best] == -math.inf or min(short) < best < max(short):
            break
        beyond = best + (1 if best > 0 else -1)
        short[beyond] = score(beyond, "short")
    better = sorted(short, key=lambda rung: -short[rung])[:half]
    long = {rung: score(rung, "long") for rung in better if short[rung] > -math.inf}
    return rate_of(_highest_of_the_best(long), default) if long else default


def _highest_of_the_best(scores: dict[int, float]) -> int:
    """Returns the highest rung of those that are as good as the best, but for luck.

    They have trained for a part of the time, a third where the rate is constant. On the built-in images the higher of
    two such rates ended .05 of mAP ahead of the lower one; on Emotions neither was ahead.
    """
    best = max(scores.values())
    alike = best - _ALIKE * min(abs(best), abs(1 - abs(best)))
    return max(rung for rung, score in scores.items() if score >= alike)


def rate_of(rung: int, default: float) -> float:
    """Returns the rate of a rung, 0 for the default; of three digits, as a person would copy it."""
    return float(f"{default * _STEP**rung:.3g}") if rung else default


def search(loss: str, rate: float, trials: int, run: Run, sign: int, seed: int, tunes_rate: bool) -> Candidate:
    """Returns the best of so many candidates, the first of which is the loss as it is at that rate.

    So the best is never worse than the loss as it is, by the value of `run`; which it is where all are NaN.
    tunes_rate: whether the rate is searched for as well, around the one that is given.
    """
    rates = Range(float(f"{LEARNING_RATE.low * rate:.3g}"), float(f"{LEARNING_RATE.high * rate:.3g}"), log=True)
    space = ranges(loss) | ({"learning_rate": rates} if tunes_rate else {})
    tried: list[tuple[dict[str, float], float]] = []
    best, best_value = Candidate(loss, {}, rate), -math.inf
    for number in range(1, (trials if space else 1) + 1):
        values = defaults(loss) | {"learning_rate": rate}
        if number > 1:
            proposed = _designed(space, number - 2, seed) if number <= _DESIGNED else _proposed(space, tried, seed)
            values |= {name: space[name].rounded(value) for name, value in proposed.items()}
        settings = {name: value for name, value in values.items() if name != "learning_rate"}
        spec = with_settings(loss, settings) if number > 1 else loss
        candidate = Candidate(spec, settings, values["learning_rate"])
        value = run(spec, values["learning_rate"], "tuned")
        tried.append((values, sign * value))
        if sign * value > best_value:
            best, best_value = candidate, sign * value
    return best


def _designed(space: dict[str, Range], place: int, seed: int) -> dict[str, float]:
    """Returns a point of a sequence that fills the ranges evenly."""
    from scipy.stats import qmc

    shares = qmc.Sobol(len(space), seed=seed).random(_DESIGNED)[place]
    return {name: where.at(float(share)) for (name, where), share in zip(space.items(), shares, strict=True)}


def _proposed(space: dict[str, Range], tried: Sequence[tuple[dict[str, float], float]], seed: int) -> dict[str, float]:
    """Returns what TPE asks for after what was tried; it depends on nothing else, so that a stopped search goes on."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    where: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(each.low, each.high, log=each.log) for name, each in space.items()
    }
    sampler = optuna.samplers.TPESampler(seed=seed + len(tried), n_startup_trials=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for values, value in tried:
        if not math.isnan(value):
            params = {name: values[name] for name in space}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=where, value=value))
    return dict(study.ask(where).params)
