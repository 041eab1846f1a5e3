"""Hides positive labels of real rows and measures who finds them; writes a CSV and the tables of docs/missing.md.

    pip install -c constraints.txt cleanlab && python benchmarks/missing.py --data FOLDER

FOLDER holds nlupp/ of PolyAI-LDN/task-specific-datasets (CC BY 4.0); without it only digits-grid is measured. Every
method gets the out-of-fold scores of the same three folds, and ranks all negatives, the hidden positives among them.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from decision_data import dense, nlupp
from run import environment
from sklearn.metrics import roc_auc_score
from tables import RESULTS, ROOT, grid, put, read
from torch import Tensor

import lopsided
from lopsided.data.dataset import Dataset, Splits
from lopsided.data.digits_grid import digits_grid
from lopsided.data.split import stratified_split
from lopsided.decision.suspects import rank_suspects
from lopsided.jobs.config import FitConfig
from lopsided.jobs.inspect_missing import score_part
from lopsided.losses.closed_form import discarding_point
from lopsided.metrics.scores import Judged

LOSSES = ("bce", "asl", "hill")
SHARES = (0.2, 0.4)
FOLDS, IMAGES = 3, 5000
PAGE = ROOT / "docs/missing.md"
MEASURED = ("precision@100", "precision@500", "auroc")
Row = dict[str, object]


def load(name: str, folder: Path | None) -> Dataset:
    """Made images, or the folds 0 to 13 of real requests, which others train on."""
    return digits_grid(IMAGES, 1, 1).train if folder is None else nlupp(folder, range(14))


def out_of_fold(shown: Dataset, name: str, loss: str, seed: int) -> Tensor:
    """As `lopsided inspect --missing` makes them, with the default settings of the data."""
    config = FitConfig(data=name, loss=loss)
    parts = stratified_split(shown.targets, [1 / FOLDS] * FOLDS, seed)
    scores = torch.empty(len(shown), shown.num_labels)
    for part in parts:
        rest = torch.cat([other for other in parts if other is not part]).sort().values
        scores[part] = score_part(config, shown.take(rest), shown.take(part)).values
    return scores


def rankings(scores: Tensor, given: Tensor, loss: str) -> Iterator[tuple[str, Tensor]]:
    """(N, L) suspicion by each method."""
    from cleanlab.multilabel_classification.filter import (
        find_multilabel_issues_per_class,
    )  # writing tables needs it not

    yield f"{loss}, sorted by score", scores
    ours = rank_suspects(Judged.of(scores, given))
    suspicion = torch.full(scores.shape, -math.inf, dtype=torch.float64)
    suspicion[ours.row, ours.label] = torch.arange(len(ours), 0, -1, dtype=torch.float64)
    yield f"{loss}, lopsided inspect", suspicion
    probability = lopsided.loss(loss).posterior(scores)
    labels = [row.nonzero().flatten().tolist() for row in given]
    issues = find_multilabel_issues_per_class(labels, probability.numpy(), n_jobs=1)
    yield f"{loss}, cleanlab", probability + torch.from_numpy(np.asarray(issues)).double()  # issues first


def measure(job: tuple[str, Path | None, float, int]) -> list[Row]:
    name, folder, share, seed = job
    torch.set_num_threads(1)
    truth = load(name, folder)
    shown = Splits(truth, None, None).hide_positives(share, seed).train
    given = dense(shown)
    hidden = dense(truth)[~given]
    case: Row = {"data": name, "hidden": share, "seed": seed}
    rows: list[Row] = []
    for loss in LOSSES:
        scores = out_of_fold(shown, name, loss, seed)
        for method, suspicion in rankings(scores, given, loss):
            of_negatives = suspicion[~given]
            found = hidden[of_negatives.argsort(descending=True, stable=True)]
            values = [float(found[:100].double().mean()), float(found[:500].double().mean())]
            values += [float(roc_auc_score(hidden.numpy(), of_negatives.numpy()))]
            rows += [case | {"method": method} | dict(zip(MEASURED, values, strict=True))]
        inside = scores[~given] > discarding_point(lopsided.losses.formula(loss))
        if inside.any():
            region = {"negatives inside": int(inside.sum()), "precision inside": float(hidden[inside].double().mean())}
            rows += [case | {"method": f"{loss}, discarding region"} | region]
    by_chance = {name: float(hidden.double().mean()) for name in MEASURED[:2]} | {"auroc": 0.5}
    print(f"{name}, {share:.0%} hidden, seed {seed}", flush=True)
    return [*rows, case | {"method": "by chance"} | by_chance]


def write(path: Path, rows: list[Row], measured_on: Row) -> None:
    with path.open("w", newline="") as file:
        names = ["data", "hidden", "seed", "method", *MEASURED, "negatives inside", "precision inside", *measured_on]
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(row | measured_on for row in rows)


def cell(rows: list[dict[str, str]], name: str, digits: int = 3) -> str:
    """Mean and standard error over the seeds."""
    values = [float(row[name]) for row in rows if row[name]]
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values) / math.sqrt(len(values)):.{digits}f}"


def table(rows: list[dict[str, str]], names: tuple[str, ...], methods: list[str]) -> str:
    """A line per method, columns per share."""
    shares = list(dict.fromkeys(row["hidden"] for row in rows))
    head = ["hidden:", *(f"{float(share):.0%}, {name}" for share in shares for name in names)]
    body = []
    for method in methods:
        line = [method]
        for share in shares:
            chosen = [row for row in rows if (row["hidden"], row["method"]) == (share, method)]
            line += [cell(chosen, name, 0 if name.startswith("negatives") else 3) for name in names]
        body.append(line)
    return grid(head, body)


def page() -> str:
    """The text of docs/missing.md, as it should be."""
    rows = read("missing.csv")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    regions = [method for method in methods if method.endswith("region")]
    first = rows[0]
    seeds = len({row["seed"] for row in rows})
    packages = f"torch {first['torch']}, cleanlab {first['cleanlab']}, Python {first['python']}"
    over = f"Mean and standard error over {seeds} seeds" if seeds > 1 else "One seed"
    machine = f"{first['processor']}, {first['cores']} cores, {packages}, commit {first['commit']}"
    measured = f"{over}, measured by `python benchmarks/missing.py` on {machine}."
    ranked = [method for method in methods if method not in regions]
    tables = {}
    for name in dict.fromkeys(row["data"] for row in rows):
        of_data = [row for row in rows if row["data"] == name]
        tables[f"missing {name}"] = f"{table(of_data, MEASURED, ranked)}\n\n{measured}"
        tables[f"discarded {name}"] = table(of_data, ("negatives inside", "precision inside"), regions)
    return put(PAGE, tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder with nlupp/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--page", action="store_true", help="only write the tables from the CSV")
    asked = parser.parse_args()
    if not asked.page:
        sets = {"digits-grid": None} | ({"nlupp": asked.data} if asked.data else {})
        jobs = [(*one, share, seed) for seed in range(asked.seeds) for one in sets.items() for share in SHARES]
        measured_on: Row = {**environment(), "cleanlab": version("cleanlab")}
        rows: list[Row] = []
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            for found in pool.map(measure, jobs):
                rows += found
                write(RESULTS / "missing.csv", rows, measured_on)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
