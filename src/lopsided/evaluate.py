"""`lopsided evaluate` and `lopsided predict`: how well a trained model ranks and decides, and what it decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress as Bars
from rich.table import Table
from torch.nn.functional import pad

from lopsided.data.xmc import SparseRows
from lopsided.errors import UserError
from lopsided.evaluation.decided import DecisionMetrics
from lopsided.evaluation.decisions import Rule
from lopsided.evaluation.ranked import RankedMetrics, propensities
from lopsided.files import write_atomically, write_json
from lopsided.fit import CANDIDATES, KS, Checkpoint, FitFolder, candidates, read

_TITLES = {
    "micro_f1": "micro-F1",
    "micro_precision": "micro-precision",
    "micro_recall": "micro-recall",
    "macro_f1": "macro-F1",
    "sample_f1": "F1 of a row",
    "subset_accuracy": "subset accuracy",
    "empty_rows": "rows without a prediction",
    "predicted_per_row": "predicted labels a row",
}


def evaluate(folder: FitFolder, data: Path | None, a: float, b: float, bars: Bars) -> dict[str, Any]:
    """Rank the rows of a file, the test file of the run if None, and write results.json into the run folder.

    Results of another file go into results-NAME.json. a, b: the constants of the propensities.
    """
    path = data or folder.config.files().get("test")
    if path is None:
        raise UserError(f"{folder.path}: was trained without --test; name the file to evaluate on")
    state, decision = folder.trained()
    model = state.model
    rows = read(path, bars, folder.config.normalize, like=(model.num_features, len(model.label_counts)))
    counts = pad(model.label_counts, (0, rows.num_labels - len(model.label_counts)))
    propensity = propensities(counts, state.rows, a, b)
    ranked, decided = _judge(state, decision.rule, rows, RankedMetrics(KS, propensity), bars)
    results = {
        "data": str(path),
        "rows": len(rows),
        "rows_without_labels": int((rows.labels.crow.diff() == 0).sum()),
        "loss": folder.config.loss,
        "epochs": len(state.history),
        "seconds_per_epoch": sum(epoch["seconds"] for epoch in state.history) / len(state.history),
        "propensity": {"a": a, "b": b},
        "model": ranked,
        "popularity": _popularity(counts, rows, RankedMetrics(KS, propensity)),
        "rule": decision.name,
        "decisions": decided,
    }
    name = "results.json" if data is None else f"results-{path.stem}.json"
    write_json(folder.path / name, results)
    return results | {"written": str(folder.path / name)}


def _judge(
    state: Checkpoint, rule: Rule, rows: SparseRows, ranked: RankedMetrics, bars: Bars
) -> tuple[dict[str, float], dict[str, float]]:
    """The metrics of the ranking, and of the decisions."""
    decided = DecisionMetrics(rows.num_labels)
    for scores, labels, truth in candidates(state.model, rows, CANDIDATES, "evaluating", bars):
        ranked.update(labels, truth)
        decided.update(rule.decide(scores, labels), labels, truth)
    return ranked.result(), decided.result()


def predict(folder: FitFolder, data: Path, out: Path, bars: Bars) -> str:
    """Write a line of JSON for each row of a file: the labels that the rule predicts, the most probable first.

    {"labels": [17, 3], "probabilities": [0.93, 0.41]}

    Where neither validation rows nor the loss tell probabilities, "scores" stand in their place.

    Returns the name of the rule.
    """
    if out.exists() and data.exists() and out.samefile(data):
        raise UserError(f"--out: {out} holds the rows to predict; name another file")
    state, decision = folder.trained()
    rows = read(data, bars, folder.config.normalize, like=(state.model.num_features, len(state.model.label_counts)))

    def write(file: BinaryIO) -> None:
        for scores, labels, _ in candidates(state.model, rows, CANDIDATES, "predicting", bars):
            decided = decision.rule.decide(scores, labels)
            name = "scores" if decision.calibrator is None else "probabilities"
            values = scores if decision.calibrator is None else decision.calibrator(scores, labels)
            for chosen, label, value in zip(decided, labels, values, strict=True):
                found, order = value[chosen].sort(descending=True, stable=True)
                numbers = [round(number, 6) for number in found.tolist()]
                file.write(json.dumps({"labels": label[chosen][order].tolist(), name: numbers}).encode() + b"\n")

    write_atomically(out, write)
    return decision.name


def _popularity(counts: torch.Tensor, rows: SparseRows, metrics: RankedMetrics) -> dict[str, float]:
    """The metrics of always ranking the labels by their number of training rows."""
    top = counts.topk(min(max(KS), len(counts))).indices
    metrics.update(top.expand(len(rows), -1), rows.labels)
    return metrics.result()


def print_evaluation(results: dict[str, Any], console: Console) -> None:
    """A line per metric: the model, and the popularity baseline."""
    table = Table("", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(results["loss"], justify="right")
    table.add_column("most frequent labels", justify="right")
    titles = {"p": "P", "ndcg": "nDCG", "psp": "PSP"}
    for name, value in results["model"].items():
        kind, k = name.split("@")
        values = (f"{number:.3f}".removeprefix("0") for number in (value, results["popularity"][name]))
        table.add_row(f"{titles[kind]}@{k}", *values)
    console.print(f"\n{results['rows']} rows of {results['data']}", highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    constants = f"A = {results['propensity']['a']:g} and B = {results['propensity']['b']:g}"
    console.print(f"[dim]PSP: propensities of the training label counts, {constants}.[/dim]", highlight=False)
    table = Table("", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"decided: {results['rule']}", justify="right")
    for name, value in results["decisions"].items():
        table.add_row(_TITLES[name], f"{value:.3f}".removeprefix("0"))
    console.print(table)
    console.print(f"results: {results['written']}", highlight=False, markup=False, soft_wrap=True)
