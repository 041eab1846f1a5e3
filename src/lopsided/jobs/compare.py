"""Trains every loss on the same data, and tells which wins and whether the difference is real."""

from __future__ import annotations

from lopsided.jobs.baselines import baselines
from lopsided.jobs.details import details
from lopsided.jobs.fit import fit, outcome, read_run, recipe_of
from lopsided.jobs.folder import ComparisonFolder
from lopsided.jobs.progress import Progress
from lopsided.jobs.results import evidence_of, summarize
from lopsided.jobs.rows import Prepared
from lopsided.jobs.tune import default_candidates, tune


def compare(folder: ComparisonFolder, prepared: Prepared, progress: Progress) -> None:
    """Trains what is not trained yet, a folder of a run for each loss and seed, and writes all results."""
    config = folder.config
    recipe = recipe_of(config.of_run(config.losses[0], 0, {}), prepared)
    runs_of_a_loss = config.seeds + (config.tune or 0)
    progress.plan(len(config.losses) * runs_of_a_loss, recipe.epochs)
    candidates = default_candidates(config, recipe)
    if config.tune is not None:
        candidates = tune(config, prepared, recipe, folder.path / "trials.csv", progress)
    runs, histories = [], {}
    for seed in range(config.seeds):
        for loss, candidate in candidates.items():
            run = folder.run(loss, seed, candidate.changes())
            progress.begin(f"{loss}, seed {seed}")
            known = run.is_trained
            fit(run, prepared, progress)
            trained = read_run(run, loss, prepared)
            seconds = sum(epoch.seconds for epoch in trained.history)
            if known:
                progress.skip(outcome(trained.history))
            else:
                progress.end(f"{outcome(trained.history)}, {seconds:.1f} s")
            runs.append(trained)
            histories[loss, seed] = trained.history
            folder.write_histories(histories)
    beside = baselines(prepared.splits, folder.path / "baselines.safetensors")
    evidence = evidence_of(config, candidates, prepared.splits, recipe, runs, beside)
    results = summarize(evidence, progress)
    folder.write_outcome(results, details(evidence, results))
