"""Runs `lopsided evaluate` and `lopsided predict`: how well a trained model ranks and decides, and what it decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import torch
from rich.progress import Progress as Bars
from torch.nn.functional import pad

from lopsided.data.sparse_files import SparseRows
from lopsided.data.storage import UserError, write_atomically
from lopsided.decision.rules import Rule
from lopsided.jobs import schema
from lopsided.jobs.fit import CANDIDATES, KS, candidates, load_rows_for, trained_model
from lopsided.jobs.folder import Checkpoint, FitFolder
from lopsided.jobs.schema import Evaluation, Propensity
from lopsided.metrics.counts import Sums, label_counts, row_sums
from lopsided.metrics.registry import METRICS
from lopsided.metrics.scores import Scores
from lopsided.metrics.summary import Summary
from lopsided.metrics.top_k import RankedMetrics, propensities
from lopsided.metrics.truth import Truth

DECISIONS = (
    "micro_f1",
    "micro_precision",
    "micro_recall",
    "macro_f1",
    "sample_f1",
    "subset_accuracy",
    "empty_rows",
    "predicted_per_row",
)


def evaluate_run(folder: FitFolder, data: Path | None, propensity: Propensity, bars: Bars) -> tuple[Evaluation, Path]:
    """Ranks the rows of a file, the test file of the run if None; returns what is written, and where.

    Results of the test file go into results.json of the run folder, of another file into results-NAME.json.
    """
    path = data or folder.config.files().get("test")
    if path is None:
        raise UserError(f"{folder.path}: was trained without --test; name the file to evaluate on")
    state, decision = trained_model(folder)
    rows = load_rows_for(folder, state, path, bars)
    counts = pad(state.model.label_counts, (0, rows.num_labels - len(state.model.label_counts)))
    weights = propensities(counts, state.rows, propensity.a, propensity.b)
    ranked, decided = _judge(state, decision.rule, rows, RankedMetrics(KS, weights), bars)
    evaluation = Evaluation(
        data=str(path),
        rows=len(rows),
        rows_without_labels=int((rows.labels.crow.diff() == 0).sum()),
        loss=folder.config.loss,
        epochs=len(state.history),
        seconds_per_epoch=sum(epoch.seconds for epoch in state.history) / len(state.history),
        propensity=propensity,
        model=ranked,
        popularity=_popularity(counts, rows, RankedMetrics(KS, weights)),
        rule=decision.name,
        decisions=decided,
    )
    written = folder.path / ("results.json" if data is None else f"results-{path.stem}.json")
    schema.write_file(written, evaluation)
    return evaluation, written


def _judge(
    state: Checkpoint, rule: Rule, rows: SparseRows, ranked: RankedMetrics, bars: Bars
) -> tuple[dict[str, float], dict[str, float]]:
    """Computes the metrics of the ranking, and of the decisions."""
    sums: Sums = {}
    for values, labels, targets in candidates(state.model, rows, CANDIDATES, "evaluating", bars):
        ranked.update(labels, targets)
        scores = Scores(values, labels, rows.num_labels)
        truth, decided = Truth.of(targets, len(scores), rows.num_labels), scores.places(rule.decide(scores))
        for name, part in (("labels", label_counts(truth, decided)), ("rows", row_sums(truth, decided))):
            sums[name] = sums.get(name, 0) + part
    summary = Summary(sums)
    return ranked.result(), {name: METRICS[name].value(summary) for name in DECISIONS}


def write_predictions(folder: FitFolder, data: Path, out: Path, bars: Bars) -> str:
    """Writes a line of JSON for each row of a file: the labels that the rule predicts, the most probable first.

    {"labels": [17, 3], "probabilities": [0.93, 0.41]}

    Where neither validation rows nor the loss tell probabilities, "scores" stand in their place.

    Returns the name of the rule.
    """
    if out.exists() and data.exists() and out.samefile(data):
        raise UserError(f"--out: {out} holds the rows to predict; name another file")
    state, decision = trained_model(folder)
    rows = load_rows_for(folder, state, data, bars)

    def write(file: BinaryIO) -> None:
        for scores, labels, _ in candidates(state.model, rows, CANDIDATES, "predicting", bars):
            given = Scores(scores, labels, rows.num_labels)
            decided = decision.rule.decide(given)
            name = "scores" if decision.calibrator is None else "probabilities"
            values = scores if decision.calibrator is None else decision.calibrator(given)
            for chosen, label, value in zip(decided, labels, values, strict=True):
                descending, order = value[chosen].sort(descending=True, stable=True)
                numbers = [round(number, 6) for number in descending.tolist()]
                file.write(json.dumps({"labels": label[chosen][order].tolist(), name: numbers}).encode() + b"\n")

    write_atomically(out, write)
    return decision.name


def _popularity(counts: torch.Tensor, rows: SparseRows, metrics: RankedMetrics) -> dict[str, float]:
    """Computes the metrics of always ranking the labels by their number of training rows."""
    top = counts.topk(min(max(KS), len(counts))).indices
    metrics.update(top.expand(len(rows), -1), rows.labels)
    return metrics.result()
