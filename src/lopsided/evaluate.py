"""`lopsided evaluate`: how well a trained model ranks the labels of other rows, beside always the same ranking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress as Bars
from rich.table import Table
from torch.nn.functional import pad

from lopsided.data.xmc import SparseRows
from lopsided.errors import UserError
from lopsided.evaluation.ranked import RankedMetrics, propensities
from lopsided.files import write_json
from lopsided.fit import KS, FitFolder, rank, read


def evaluate(folder: FitFolder, data: Path | None, a: float, b: float, bars: Bars) -> dict[str, Any]:
    """Rank the rows of a file, the test file of the run if None, and write results.json into the run folder.

    Results of another file go into results-NAME.json. a, b: the constants of the propensities.
    """
    path = data or folder.config.files().get("test")
    if path is None:
        raise UserError(f"{folder.path}: was trained without --test; name the file to evaluate on")
    found = folder.load()
    if found is None:
        raise UserError(f"{folder.path}: no epoch is finished yet; go on with: lopsided fit {folder.path}")
    model, train_rows, history = found
    rows = read(path, bars, folder.config.normalize, like=(model.num_features, len(model.label_counts)))
    counts = pad(model.label_counts, (0, rows.num_labels - len(model.label_counts)))
    propensity = propensities(counts, train_rows, a, b)
    results = {
        "data": str(path),
        "rows": len(rows),
        "rows_without_labels": int((rows.labels.crow.diff() == 0).sum()),
        "loss": folder.config.loss,
        "epochs": len(history),
        "seconds_per_epoch": sum(epoch["seconds"] for epoch in history) / len(history),
        "propensity": {"a": a, "b": b},
        "model": rank(model, rows, RankedMetrics(KS, propensity), bars),
        "popularity": _popularity(counts, rows, RankedMetrics(KS, propensity)),
    }
    name = "results.json" if data is None else f"results-{path.stem}.json"
    write_json(folder.path / name, results)
    return results | {"written": str(folder.path / name)}


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
    console.print(f"\nresults: {results['written']}", highlight=False, markup=False, soft_wrap=True)
