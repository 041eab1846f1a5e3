"""From finished runs to results.json: tables, paired differences, verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

import lopsided
from lopsided.config import CompareConfig
from lopsided.data import Splits
from lopsided.evaluation.significance import LEVEL, holm, interval_over_seeds, paired_differences, resample_rows
from lopsided.evaluation.summary import METRICS, Scored
from lopsided.losses import decision_threshold, parse
from lopsided.models.task import Budget
from lopsided.progress import Progress
from lopsided.run_folder import Run
from lopsided.training.fit import Epoch

_RESAMPLES = 200  # bootstrap samples of the test rows; their standard deviation is known to about 5 %
_RISING_PER_EPOCH = 0.005  # validation mAP

_NOTHING = "no difference shown"
_RELATIONS = {  # verdict -> sentence
    "better": "{} is better than {}",
    "worse": "{} is worse than {}",
    "ahead so far": "{} is ahead of {}",
    "behind so far": "{} is behind {}",
    _NOTHING: "no difference between {} and {} was shown",
}

Scores = dict[str, list[Scored]]  # loss -> one per seed


def summarize(
    config: CompareConfig, splits: Splits, budget: Budget, runs: Sequence[Run], progress: Progress
) -> dict[str, Any]:
    """Per loss the metrics over seeds, and every loss against the baseline."""
    of_loss = {loss: [run for run in runs if run.loss == loss] for loss in config.losses}
    scored: Scores = {
        loss: [Scored(run.scores, splits.test.targets, run.own_threshold, run.tuned_threshold) for run in group]
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
                "settings": str(parse(loss)),
                "own_threshold": decision_threshold(parse(loss)),
                "tuned_thresholds": [one.tuned for one in scored[loss]],
                "seconds": sum(epoch.seconds for run in group for epoch in run.history) / len(group),
                "metrics": {
                    name: asdict(interval_over_seeds([metric.value(one, None) for one in scored[loss]]))
                    for name, metric in METRICS.items()
                },
                "rising": rising[loss],
            }
            for loss, group in of_loss.items()
        },
        "comparisons": _compare_to_baseline(config, scored, rising, budget, progress),
        "notes": _notes(config, splits, rising),
    }


def is_rising(histories: Sequence[list[Epoch]]) -> bool:
    """Is more training likely to help? Says the mean gain of validation mAP over the last quarter of the epochs.

    A single epoch shows no trend and counts as rising.
    """
    curve = torch.tensor([[epoch.valid_map for epoch in history] for history in histories]).mean(0)
    window = max(1, len(curve) // 4)
    return len(curve) <= window or bool((curve[-1] - curve[-1 - window]) / window > _RISING_PER_EPOCH)


def _compare_to_baseline(
    config: CompareConfig, scored: Scores, rising: dict[str, bool], budget: Budget, progress: Progress
) -> dict[str, Any]:
    metric = METRICS[config.metric]
    order = [config.reference, *(loss for loss in config.losses if loss != config.reference)]
    functions = [lambda weights, one=one: metric.value(one, weights) for loss in order for one in scored[loss]]
    rows = len(scored[config.reference][0].targets)
    progress.resampling(_RESAMPLES)
    resampled = resample_rows(functions, rows, _RESAMPLES, seed=config.data_seed, tick=progress.resampled)
    resampled = resampled.view(_RESAMPLES, len(order), config.seeds)
    full = torch.tensor([[metric.value(one, None) for one in scored[loss]] for loss in order])
    differences = paired_differences(full, resampled.mean(2))
    corrected = holm([difference.p_value for difference in differences])
    comparisons = {}
    for loss, difference, p_value in zip(order[1:], differences, corrected, strict=True):
        gain = difference.mean if metric.higher_is_better else -difference.mean
        behind = loss if gain < 0 else config.reference
        word = verdict(gain, p_value, unfinished=rising[behind])
        sentence = f"{_RELATIONS[word].format(loss, config.reference)} in {metric.title} after {epochs(budget.epochs)}"
        if config.seeds == 1:
            sentence += ", for these trained models"
        if word in ("ahead so far", "behind so far"):
            sentence += f"; {behind} is unfinished: its validation mAP still rises, so more epochs may change this"
        comparisons[loss] = asdict(difference) | {"p_holm": p_value, "verdict": word, "sentence": sentence}
    return comparisons


def epochs(number: int) -> str:
    return f"{number} epoch{'s' * (number > 1)}"


def verdict(gain: float, p_value: float, unfinished: bool) -> str:
    """In a few words. Whichever loss is behind is not called worse while its validation curve still rises."""
    if not p_value < LEVEL:  # also NaN
        return _NOTHING
    if unfinished:
        return "ahead so far" if gain > 0 else "behind so far"
    return "better" if gain > 0 else "worse"


def _describe(config: CompareConfig, splits: Splits) -> dict[str, Any]:
    targets = splits.train.targets
    return {
        "name": config.data,
        "rows": {name: len(part) for name, part in vars(splits).items()},
        "labels": len(splits.train.labels),
        "positives_per_row": float(targets.sum() / len(targets)),
        "missing": config.missing,
    }


def _notes(config: CompareConfig, splits: Splits, rising: dict[str, bool]) -> list[str]:
    """What a reader must know to read the tables rightly."""
    notes = []
    if config.seeds == 1:
        notes.append("One seed: differences hold for these trained models; how they vary over seeds is unknown.")
    else:
        notes.append(
            f"{config.seeds} seeds: differences combine their spread, pooled over the losses, with a paired bootstrap "
            f"of the {len(splits.test)} test rows."
        )
    if any(rising.values()):
        names = ", ".join(loss for loss, still in rising.items() if still)
        notes.append(f"Validation mAP still rising at the end: {names}. Train longer (--epochs) before choosing.")
    for name, part in vars(splits).items():
        empty = int((~part.targets.any(0)).sum())
        if empty:
            consequence = "" if name == "train" else "; left out of its mAP and macro-F1"
            notes.append(f"{empty} of {len(part.labels)} labels have no positive in the {name} rows{consequence}.")
    if math.inf in [decision_threshold(parse(loss)) for loss in config.losses]:
        notes.append("A loss with an infinite own threshold saturates below probability 0.5 and has no cut.")
    return notes
