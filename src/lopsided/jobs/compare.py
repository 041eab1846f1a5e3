"""Trains every loss on the same data, and tells which wins and whether the difference is real."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch

from lopsided.data import Splits
from lopsided.data.digits_grid import digits_grid
from lopsided.data.text_files import Columns, read_splits
from lopsided.jobs.config import BUILT_IN, IMAGES, CompareConfig
from lopsided.jobs.details import details
from lopsided.jobs.folder import RunFolder, TrainedRun
from lopsided.jobs.progress import Progress
from lopsided.jobs.results import summarize
from lopsided.jobs.tune import Candidate, default_candidates, tune
from lopsided.models import Task, make_task
from lopsided.models.task import Budget
from lopsided.training.loop import predict_scores, train
from lopsided.training.objective import make_objective, parse_method


def load(config: CompareConfig) -> Splits:
    """Reads or makes the data that the configuration names."""
    if config.data == BUILT_IN:
        images = config.images or IMAGES
        splits = digits_grid(images, images // 6, images // 3, config.data_seed)
    else:
        paths = {name: config.files().get(name) for name in ("valid", "test")}
        splits = read_splits(config.files()["data"], **paths, columns=columns_of(config), seed=config.data_seed)
    return splits.hide_positives(config.missing, config.data_seed) if config.missing else splits


def columns_of(config: CompareConfig) -> Columns:
    """Returns the columns of the files that hold the text and the labels."""
    given = {"text": config.text_column, "labels": config.label_column, "separator": config.separator}
    return Columns(**{name: value for name, value in given.items() if value is not None})


def budget_of(config: CompareConfig, task: Task) -> Budget:
    """Returns the default budget of the task, changed where the configuration sets another value."""
    given = {name: getattr(config, name) for name in ("epochs", "batch_size", "learning_rate")}
    return Budget(**asdict(task.default_budget) | {name: value for name, value in given.items() if value is not None})


def train_and_compare(folder: RunFolder, splits: Splits, progress: Progress) -> None:
    """Trains what is not trained yet, then writes metrics.csv, details.json and results.json."""
    config = folder.config
    progress.preparing()
    task = make_task(splits)
    budget = budget_of(config, task)
    progress.plan(len(config.losses) * (config.seeds + (config.tune or 0)), budget.epochs)
    trials = folder.path / "trials.csv"
    chosen = tune(config, task, budget, trials, progress) if config.tune else default_candidates(config, budget)
    runs: list[TrainedRun] = []
    for seed in range(config.seeds):
        for loss in config.losses:
            progress.begin(f"{loss}, seed {seed}")
            finished = folder.load(loss, seed, budget.epochs, task.valid, task.test)
            run = finished or _train(task, budget, chosen[loss], loss, seed, progress)
            if finished:
                progress.skip(_outcome(run))
            else:
                folder.save(run)
                progress.end(f"{_outcome(run)}, {sum(epoch.seconds for epoch in run.history):.1f} s")
            runs.append(run)
            folder.write_metrics(runs)
    results = summarize(config, chosen, splits, budget, runs, progress)
    folder.write_outcome(results, details(splits, runs, results))


def _train(task: Task, budget: Budget, candidate: Candidate, loss: str, seed: int, progress: Progress) -> TrainedRun:
    objective = make_objective(parse_method(candidate.spec), task.train.targets)
    budget = replace(budget, learning_rate=candidate.learning_rate)
    model, history = train(task, objective, budget, seed, progress.epoch)
    if history[-1].is_lost:
        lost = [torch.full(part.targets.shape, torch.nan) for part in (task.valid, task.test)]
        return TrainedRun(loss, seed, history, *lost)
    return TrainedRun(
        loss, seed, history, *(predict_scores(model, objective, part) for part in (task.valid, task.test))
    )


def _outcome(run: TrainedRun) -> str:
    last = run.history[-1]
    return "diverged" if last.is_lost else f"validation mAP {last.valid_map:.3f}"
