"""From finished runs to results.json: tables, paired differences, verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

import lopsided
from lopsided.data import Splits
from lopsided.jobs.config import CompareConfig
from lopsided.jobs.folder import Run
from lopsided.jobs.progress import Progress
from lopsided.jobs.score import METRICS, Scored, evaluate
from lopsided.jobs.tune import Candidate
from lopsided.metrics.significance import (
    LEVEL,
    Difference,
    holm,
    interval_over_seeds,
    paired_differences,
    resample_rows,
    unknown,
)
from lopsided.models.task import Budget
from lopsided.training.loop import Epoch
from lopsided.training.objective import own_threshold, parse_method

_RESAMPLES = 200  # bootstrap samples of the test rows; their standard deviation is known to about 5 %
_RISING = 0.005  # gain of validation mAP over the last quarter of the epochs

_NOTHING, _UNTESTED = "no difference shown", "cannot be tested"
_RELATIONS = {  # verdict -> sentence
    "better": "{} is better than {}",
    "worse": "{} is worse than {}",
    "ahead so far": "{} is ahead of {}",
    "behind so far": "{} is behind {}",
    _NOTHING: "no difference between {} and {} was shown",
    _UNTESTED: "{} and {} cannot be compared",
}

Scores = dict[str, list[Scored]]  # loss -> one per seed


def summarize(
    config: CompareConfig,
    chosen: Mapping[str, Candidate],
    splits: Splits,
    budget: Budget,
    runs: Sequence[Run],
    progress: Progress,
) -> dict[str, Any]:
    """Per loss the metrics over seeds, and every loss against the baseline; `chosen` is what was trained for each."""
    methods = {loss: parse_method(chosen[loss].spec) for loss in config.losses}
    of_loss = {loss: [run for run in runs if run.loss == loss] for loss in config.losses}
    own = {loss: own_threshold(method) for loss, method in methods.items()}
    scored: Scores = {
        loss: [
            Scored(run.scores, splits.test.targets, run.valid_scores, splits.valid.targets, own[loss]) for run in group
        ]
        for loss, group in of_loss.items()
    }
    rising = {loss: is_rising([run.history for run in group]) for loss, group in of_loss.items()}
    return {
        "lopsided": lopsided.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "data": _describe(config, splits),
        "budget": asdict(budget),
        "seeds": config.seeds,
        "metric": config.metric,
        "baseline": config.reference,
        "losses": {
            loss: {
                "settings": str(methods[loss]),
                **_tuned(config, chosen[loss]),
                "own_threshold": own[loss],
                "tuned_thresholds": [one.tuned for one in scored[loss]],
                "seconds": sum(epoch.seconds for run in group for epoch in run.history) / len(group),
                "metrics": {
                    name: asdict(interval_over_seeds([evaluate(name, one) for one in scored[loss]])) for name in METRICS
                },
                "rising": rising[loss],
            }
            for loss, group in of_loss.items()
        },
        "comparisons": _compare_to_baseline(config, scored, rising, budget, progress),
        "notes": _notes(config, chosen, splits, scored, rising, budget),
    }


def _tuned(config: CompareConfig, candidate: Candidate) -> dict[str, dict[str, float]]:
    if config.tune is None:
        return {}
    return {"tuned_settings": candidate.tuned()}


def is_rising(histories: Sequence[list[Epoch]]) -> bool:
    """Is more training likely to help? Yes, if validation mAP, averaged over the seeds, gained half a point over the
    last quarter of the epochs, and after a single epoch, which shows no trend."""
    curve = torch.tensor([[epoch.valid_map for epoch in history] for history in histories]).nanmean(0)
    window = max(1, len(curve) // 4)
    return len(curve) == 1 or bool(curve[-1] - curve[-1 - window] > _RISING)


def _compare_to_baseline(
    config: CompareConfig, scored: Scores, rising: dict[str, bool], budget: Budget, progress: Progress
) -> dict[str, Any]:
    full = {loss: [evaluate(config.metric, one) for one in group] for loss, group in scored.items()}
    others = [loss for loss in config.losses if loss != config.reference]
    testable = [loss for loss in others if all(map(math.isfinite, full[loss] + full[config.reference]))]
    differences = dict.fromkeys(others, unknown())
    if testable:
        order = [config.reference, *testable]
        resampled = _resample(config, [one for loss in order for one in scored[loss]], progress)
        values = torch.tensor([full[loss] for loss in order], dtype=torch.float64)
        found = paired_differences(values, resampled.view(_RESAMPLES, len(order), config.seeds))
        differences |= dict(zip(testable, found, strict=True))
    corrected = holm([difference.p_value for difference in differences.values()])
    return {
        loss: _comparison(config, loss, difference, p_value, rising, budget)
        for (loss, difference), p_value in zip(differences.items(), corrected, strict=True)
    }


def _resample(config: CompareConfig, scored: Sequence[Scored], progress: Progress) -> Tensor:
    progress.resampling(_RESAMPLES)
    functions = [lambda weights, one=one: evaluate(config.metric, one, weights) for one in scored]
    return resample_rows(functions, len(scored[0].targets), _RESAMPLES, config.data_seed, progress.resampled)


def _comparison(
    config: CompareConfig, loss: str, difference: Difference, p_value: float, rising: dict[str, bool], budget: Budget
) -> dict[str, Any]:
    metric = METRICS[config.metric]
    gain = difference.mean if metric.higher_is_better else -difference.mean
    behind = loss if gain < 0 else config.reference
    word = verdict(gain, p_value, unfinished=rising[behind])
    sentence = f"{_RELATIONS[word].format(loss, config.reference)} in {metric.title} after {epochs(budget.epochs)}"
    if config.seeds == 1 and word != _UNTESTED:
        sentence += ", for these trained models"
    if word == _NOTHING:
        sentence += f"; this experiment could have seen differences above {difference.detectable:.2g}"
    if word in ("ahead so far", "behind so far"):
        sign = "its validation mAP still rises" if budget.epochs > 1 else "one epoch shows no trend"
        sentence += f"; {behind} is unfinished: {sign}, so more epochs may change this"
    return asdict(difference) | {
        "detectable": difference.detectable,
        "p_holm": p_value,
        "verdict": word,
        "sentence": sentence,
    }


def epochs(number: int) -> str:
    return f"{number} epoch{'s' * (number > 1)}"


def verdict(gain: float, p_value: float, unfinished: bool) -> str:
    """In a few words. Whichever loss is behind is not called worse while its validation curve still rises."""
    if math.isnan(p_value):
        return _UNTESTED
    if p_value >= LEVEL:
        return _NOTHING
    if unfinished:
        return "ahead so far" if gain > 0 else "behind so far"
    return "better" if gain > 0 else "worse"


def _describe(config: CompareConfig, splits: Splits) -> dict[str, Any]:
    targets = splits.train.targets
    return {
        "name": config.name,
        "rows": {name: len(part) for name, part in vars(splits).items()},
        "labels": len(splits.train.labels),
        "positives_per_row": float(targets.sum() / len(targets)),
        "missing": config.missing,
    }


def _notes(
    config: CompareConfig,
    chosen: Mapping[str, Candidate],
    splits: Splits,
    scored: Scores,
    rising: dict[str, bool],
    budget: Budget,
) -> list[str]:
    """What a reader must know to read the tables rightly."""
    notes = [_on_seeds(config, len(splits.test)), *_on_training(config, scored, rising, budget)]
    if config.tune is not None:
        notes.append(_on_tuning(config, chosen))
    elif not isinstance(splits.train.inputs, Tensor):
        notes.append("Texts are trained by SGD, whose steps grow with the loss: try several rates (--tune 20).")
    for name, part in vars(splits).items():
        empty = int((~part.targets.any(0)).sum())
        if empty:
            consequence = "" if name == "train" else "; left out of its mAP and macro-F1"
            notes.append(f"{empty} of {len(part.labels)} labels have no positive in the {name} rows{consequence}.")
    return notes


def _on_seeds(config: CompareConfig, test_rows: int) -> str:
    if config.seeds == 1:
        return "One seed: differences hold for these trained models; how they vary over seeds is unknown."
    few = " Two seeds say little about their spread: take three or more." if config.seeds == 2 else ""
    return (
        f"{config.seeds} seeds: differences combine their spread, pooled over the losses, with a paired bootstrap "
        f"of the {test_rows} test rows.{few}"
    )


def _on_training(config: CompareConfig, scored: Scores, rising: dict[str, bool], budget: Budget) -> list[str]:
    lost = {loss: sum(one.diverged for one in group) for loss, group in scored.items()}
    notes = [
        f"{loss} diverged in {number} of {config.seeds} trainings; lower the learning rate."
        for loss, number in lost.items()
        if number
    ]
    names = ", ".join(loss for loss, still in rising.items() if still and not lost[loss])
    if names and budget.epochs == 1:
        notes.append("One epoch shows no trend. Train longer (--epochs) to decide.")
    elif names:
        notes.append(f"Validation mAP still rises at the end: {names}. Train longer (--epochs) to decide.")
    return notes


def _on_tuning(config: CompareConfig, chosen: Mapping[str, Candidate]) -> str:
    found = "; ".join(f"{loss}: {candidate.shown()}" for loss, candidate in chosen.items())
    metric = METRICS[config.metric].title
    return f"Tuned by the validation {metric} of {config.tune} trials of each loss, one training each. Chosen: {found}."


def best_loss(results: dict[str, Any], name: str) -> str | None:
    """The loss with the best mean of a metric, if it has one."""
    means = {loss: entry["metrics"][name]["mean"] for loss, entry in results["losses"].items()}
    known = {loss: mean for loss, mean in means.items() if mean is not None and not math.isnan(mean)}
    choose = max if METRICS[name].higher_is_better else min
    return choose(known, key=lambda loss: known[loss]) if known else None
