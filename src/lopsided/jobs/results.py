"""Makes results.json from finished runs: the tables, the comparisons, and notes on how to read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch

import lopsided
from lopsided.data.dataset import Splits
from lopsided.data.inputs import Texts
from lopsided.jobs.config import CompareConfig
from lopsided.jobs.fit import TrainedRun
from lopsided.jobs.progress import Progress
from lopsided.jobs.schema import DataSummary, Interval, LossResult, Results, SplitSizes
from lopsided.jobs.score import METRICS, Scored, evaluate
from lopsided.jobs.tune import Candidate
from lopsided.jobs.verdict import Scores, compare_to_baseline, is_rising
from lopsided.metrics.significance import interval_over_seeds
from lopsided.models.heads import own_threshold, parse_method
from lopsided.models.recipe import Recipe


def summarize(
    config: CompareConfig,
    chosen: Mapping[str, Candidate],
    splits: Splits,
    recipe: Recipe,
    runs: Sequence[TrainedRun],
    scored: Scores,
    progress: Progress,
) -> Results:
    """Returns metrics of each loss over seeds, and its comparison; `chosen` is what was trained for each loss."""
    of_loss = {loss: [run for run in runs if run.loss == loss] for loss in config.losses}
    rising = {loss: is_rising([run.history for run in group]) for loss, group in of_loss.items()}
    return Results(
        lopsided=lopsided.__version__,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        data=_describe(config, splits),
        recipe=recipe,
        seeds=config.seeds,
        metric=config.metric,
        baseline=config.reference,
        losses={
            loss: _loss_result(config, chosen[loss], group, scored[loss], rising[loss])
            for loss, group in of_loss.items()
        },
        comparisons=compare_to_baseline(config, scored, rising, recipe.epochs, progress),
        notes=_notes(config, chosen, splits, scored, rising, recipe),
    )


def score_runs(runs: Sequence[TrainedRun], splits: Splits, losses: Sequence[str]) -> Scores:
    """Joins the scores of every run with the truth: by loss, then by seed."""
    assert splits.valid is not None
    assert splits.test is not None
    test, valid = splits.test.hard_targets(), splits.valid.hard_targets()
    return {
        loss: [
            Scored(run.test, test, run.valid, valid, own_threshold(parse_method(run.method)))
            for run in runs
            if run.loss == loss
        ]
        for loss in losses
    }


def _loss_result(
    config: CompareConfig, candidate: Candidate, runs: Sequence[TrainedRun], scored: Sequence[Scored], rising: bool
) -> LossResult:
    method = parse_method(candidate.spec)
    intervals = {name: interval_over_seeds([evaluate(name, one) for one in scored]) for name in METRICS}
    return LossResult(
        settings=str(method),
        tuned_settings=None if config.tune is None else candidate.tuned(),
        own_threshold=own_threshold(method),
        tuned_thresholds=[one.tuned for one in scored],
        seconds=sum(run.record.seconds for run in runs) / len(runs),
        best_epochs=[run.record.best_epoch for run in runs],
        metrics={name: Interval(**asdict(interval)) for name, interval in intervals.items()},
        rising=rising,
    )


def _describe(config: CompareConfig, splits: Splits) -> DataSummary:
    return DataSummary(
        name=config.name,
        rows=SplitSizes(**{name: len(part) for name, part in splits.parts().items()}),
        labels=splits.train.num_labels,
        positives_per_row=float(splits.train.label_counts().sum() / len(splits.train)),
        missing=config.missing,
    )


def _notes(
    config: CompareConfig,
    chosen: Mapping[str, Candidate],
    splits: Splits,
    scored: Scores,
    rising: dict[str, bool],
    recipe: Recipe,
) -> list[str]:
    """Returns what a reader must know to read the tables correctly."""
    assert splits.test is not None
    notes = [_on_seeds(config, len(splits.test)), *_on_training(config, scored, rising, recipe)]
    saturated = [loss for loss, group in scored.items() if group[0].own == math.inf]
    if saturated:
        notes.append(
            f"No logit stands for a probability of 0.5 under {', '.join(saturated)}, which saturates: its own "
            "threshold would predict nothing, so the tuned one stands in its place."
        )
    if config.tune is not None:
        notes.append(_on_tuning(config, chosen))
    elif isinstance(splits.train.inputs, Texts):
        notes.append("Texts are trained by SGD, whose steps grow with the loss: try several rates (--tune 20).")
    for name, part in splits.parts().items():
        empty = int((part.label_counts() == 0).sum())
        if empty:
            consequence = "" if name == "train" else "; left out of its mAP and macro-F1"
            notes.append(f"{empty} of {part.num_labels} labels have no positive in the {name} rows{consequence}.")
    return notes + [f"{note}." for note in splits.notes if "also stand in" in note]


def _on_seeds(config: CompareConfig, test_rows: int) -> str:
    if config.seeds == 1:
        return "One seed: differences hold for these trained models; how they vary over seeds is unknown."
    few = " Two seeds say little about their spread: take three or more." if config.seeds == 2 else ""
    return (
        f"{config.seeds} seeds: differences combine their spread, pooled over the losses, with a paired bootstrap "
        f"of the {test_rows} test rows.{few}"
    )


def _on_training(config: CompareConfig, scored: Scores, rising: dict[str, bool], recipe: Recipe) -> list[str]:
    lost = {loss: sum(one.diverged for one in group) for loss, group in scored.items()}
    notes = [
        f"{loss} diverged in {number} of {config.seeds} trainings; lower the learning rate."
        for loss, number in lost.items()
        if number
    ]
    names = ", ".join(loss for loss, still in rising.items() if still and not lost[loss])
    if names and recipe.epochs == 1:
        notes.append("One epoch shows no trend. Train longer (--epochs) to decide.")
    elif names:
        notes.append(f"Validation mAP still rises at the end: {names}. Train longer (--epochs) to decide.")
    return notes


def _on_tuning(config: CompareConfig, chosen: Mapping[str, Candidate]) -> str:
    shown = "; ".join(f"{loss}: {candidate.shown()}" for loss, candidate in chosen.items())
    metric = METRICS[config.metric].title
    return f"Tuned by the validation {metric} of {config.tune} trials of each loss, one training each. Chosen: {shown}."
