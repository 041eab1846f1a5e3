"""How `lopsided compare` and `lopsided fit --like` do on real data by default, beside a linear baseline.

    OMP_NUM_THREADS=1 python benchmarks/real_data.py ../shared/data && python benchmarks/real_data.py --page

The folder has a folder for each set of docs/real_data.md. Every set is read by its own file format. Three losses are
compared with one seed, and the winner is trained again on all training rows; both are judged on the test file. A set
takes seconds to minutes; what stands in the file of results is not run again, unless `--sets` names it. The second
command writes the tables of docs/real_data.md from that file.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import math
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress as Bars
from run import environment as facts
from run import write
from tables import RESULTS, ROOT, Row, as_measured, environment, grid, metrics_grid, put, read

from lopsided.__main__ import main
from lopsided.data.independence import together
from lopsided.jobs.folder import ComparisonFolder, RunFolder
from lopsided.jobs.rows import load, prepare
from lopsided.jobs.score import Scored, evaluate
from lopsided.metrics.significance import resample_rows
from lopsided.report.headline import answer

PAGE = ROOT / "docs/real_data.md"
FILE = RESULTS / "real_data.csv"
LOSSES = ("bce", "asl", "zlpr")
RESAMPLES = 50  # bootstrap samples of the test rows
# columns of the file -> metrics of a comparison; F1 is at one tuned threshold unless it is by label
METRICS = {"mAP": "map", "micro-F1": "micro_f1", "macro-F1": "macro_f1", "macro-F1 by label": "macro_f1_labels"}


# Of one-vs-rest logistic regression of scikit-learn 1.9.1, in the order of METRICS: F1 is at one threshold, tuned on
# held-out training rows. Source: the README of the data folder, section "Baselines".
BASELINES: dict[str, tuple[float, ...]] = {
    "goemotions": (0.419, 0.547, 0.438),
    "nlupp": (0.866, 0.799, 0.796),
    "reuters21578": (0.689, 0.853, 0.355),
    "mulan_yeast": (0.456, 0.649, 0.432),
    "mulan_scene": (0.744, 0.699, 0.707),
    "mulan_emotions": (0.704, 0.674, 0.666),
    "mulan_enron": (0.267, 0.619, 0.177),
    "mulan_medical": (0.489, 0.763, 0.252 * 45 / 39),  # its macro-F1 counts 6 labels without a test row as 0
    "xmc_bibtex": (0.387, 0.481, 0.351),
    "voc2007test_32": (0.281, 0.433, 0.233),
    "redocred": (0.145,),
}


def join_nlupp(folder: Path, made: Path) -> list[str]:
    paths = []
    for name, folds in (("train", range(14)), ("test", range(14, 20))):
        files = [folder / domain / f"fold{fold}.json" for domain in ("banking", "hotels") for fold in folds]
        rows = [row for file in files for row in json.loads(file.read_text())]
        lines = [json.dumps({"text": row["text"], "labels": row.get("intents", [])}) for row in rows]
        paths.append(made / f"{name}.jsonl")
        paths[-1].write_text("\n".join(lines) + "\n")
    return [str(paths[0]), "--test", str(paths[1])]


def split_voc(folder: Path, made: Path) -> list[str]:
    arrays = np.load(folder / "voc2007test_32.npz")
    shares = [int(hashlib.md5(name.encode()).hexdigest(), 16) / 2**128 for name in arrays["ids"].tolist()]
    train = np.array(shares) < 0.6
    for name, rows in (("train", train), ("test", ~train)):
        parts = {key: arrays[key][rows] for key in ("images", "labels", "difficult")}
        np.savez(made / f"{name}.npz", classes=arrays["classes"], **parts)
    return [str(made / "train.npz"), "--test", str(made / "test.npz"), "--unknown-array", "difficult"]


def arguments(name: str, folder: Path, made: Path) -> list[str]:
    """The data arguments of `lopsided fit`; files that have to be made are written to `made`."""
    if name == "nlupp":
        return join_nlupp(folder, made)
    if name == "voc2007test_32":
        return split_voc(folder, made)
    short = name.removeprefix("mulan_")
    train, test = {
        "goemotions": ("train.tsv", "test.tsv"),
        "reuters21578": ("train.jsonl", "test.jsonl"),
        "xmc_bibtex": ("bibtex_train.txt", "bibtex_test.txt"),
        "redocred": ("dev_revised.json", "test_revised.json"),
    }.get(name, (f"{short}-train.arff", f"{short}-test.arff"))
    line = [str(folder / train), "--test", str(folder / test)]
    if name == "goemotions":
        line += ["--column-names", "text,labels,id", "--labels-file", str(folder / "labels.txt")]
        line += ["--valid", str(folder / "dev.tsv")]
    return line


def run(*line: str) -> float:
    """Runs a command in this process; returns its processor time, which other work on the machine hardly changes."""
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        status = main([*line])
    if status:
        raise SystemExit(f"lopsided {' '.join(line)}: status {status}")
    return time.process_time() - start


def scored_winner(path: Path) -> tuple[Scored, torch.Tensor]:
    """Returns the test scores of a run, with the rows that its rule is tuned on, and the set of each test row.

    A run on all rows takes the rule of a run of the comparison, which held rows out: those tune here, too.
    """
    run = RunFolder.open(path)
    tuned = run if run.config.rule_from is None else RunFolder.open(run.config.rule_from)
    with Bars(disable=True) as bars:
        rows = prepare(tuned.config, load(tuned.config, bars))
    assert rows.tuning is not None
    assert rows.test is not None
    test, tuning = rows.test.data, rows.tuning.data
    scores = run.read_scores("test", len(test)), tuned.read_scores("tuning", len(tuning))
    scored = Scored(scores[0], test.hard_targets(), scores[1], tuning.hard_targets(), own=None)
    return scored, together(test).unique(return_inverse=True)[1]


def judge(scored: Scored, sets: torch.Tensor) -> dict[str, str]:
    """Returns the metrics of a model, and their standard errors by a bootstrap of the test rows."""
    metrics = [partial(evaluate, name, scored) for name in METRICS.values()]
    errors = resample_rows(metrics, sets, RESAMPLES).std(0).tolist()
    values = {title: f"{metric():.3f}" for title, metric in zip(METRICS, metrics, strict=True)}
    return values | {f"SE of {title}": f"{error:.3f}" for title, error in zip(METRICS, errors, strict=True)}


def measure(name: str, folder: Path) -> list[dict[str, object]]:
    """Returns a row for each loss that is compared, and one for the winner on all training rows."""
    with tempfile.TemporaryDirectory() as made:
        data = arguments(name, folder, Path(made))
        options = ["--losses", ",".join(LOSSES), "--seeds", "1", "--keep-overlap"]  # the published test rows
        compare = f"{run('compare', *data, *options, '--out', f'{made}/compared'):.0f}"
        compared = ComparisonFolder.open(Path(made, "compared")).read_results()
        best = compared.best_loss("map") or LOSSES[0]
        fit = f"{run('fit', '--like', f'{made}/compared', '--loss', best, '--out', f'{made}/run'):.0f}"
        judged = judge(*scored_winner(Path(made, "run")))
    rows: list[dict[str, object]] = []
    for loss, result in compared.losses.items():
        values = {title: f"{result.metrics[metric].mean or math.nan:.3f}" for title, metric in METRICS.items()}
        rows.append({"set": name, "command": "compare", "loss": loss, "CPU s": compare, **values})
    says = answer(compared)
    return [*rows, {"set": name, "command": "fit --like", "loss": best, "CPU s": fit, **judged, "compare says": says}]


def measure_all(data: Path, names: list[str], again: bool) -> None:
    """Measures sets that are not in the file, or all; each row keeps the machine and the commit of its measurement."""
    facts()  # kept from here on: results that are written make the working copy dirty
    rows: list[dict[str, Any]] = [dict(row) for row in read(FILE.name)] if FILE.exists() else []
    for name in names:
        if again or name not in {row["set"] for row in rows}:
            rows = [row for row in rows if row["set"] != name] + measure(name, data / name)
            rows.sort(key=lambda row: list(BASELINES).index(row["set"]))
            write(FILE, rows)


def page() -> str:
    rows = read(FILE.name)
    missing = [name for name in BASELINES if name not in {row["set"] for row in rows}]
    note = f"\n\nNot measured: {', '.join(missing)}." if missing else ""
    shown = f"{table(rows)}\n\n{behind(rows)}{note}\n\n{environment(rows, 'real_data.py')}"
    return put(PAGE, {"real data": shown, "verdicts": verdicts(rows)})


def table(rows: list[Row]) -> str:
    """Returns a line for each set: the metrics of the baseline and of the winner, in turn."""
    titles = list(METRICS)[:-1]
    head = [title for metric in titles for title in (f"{metric}: linear", "winner")]
    body = []
    for row in _winners(rows):
        values = dict(zip(titles, BASELINES[row["set"]], strict=False))
        cells = [cell for title in titles for cell in (_cell(values.get(title)), _with_error(row, title))]
        seconds = next(each["CPU s"] for each in rows if each["set"] == row["set"])
        body.append(
            [row["set"], row["loss"], *cells, _with_error(row, "macro-F1 by label"), f"{seconds} + {row['CPU s']}"]
        )
    return metrics_grid(["set", "loss", *head, "by label", "CPU s"], body)


def behind(rows: list[Row]) -> str:
    """Says where a winner is behind the baseline by more than one standard error."""
    found = [
        f"{row['set']} in {title} ({as_measured(row[title])}, {as_measured(f'{value:.3f}')} of the baseline)"
        for row in _winners(rows)
        for title, value in zip(METRICS, BASELINES[row["set"]], strict=False)
        if value - float(row[title]) > float(row[f"SE of {title}"])
    ]
    return f"Behind the linear baseline by more than one standard error: {', '.join(found) or 'none, in any metric'}."


def _winners(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["command"] == "fit --like"]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _with_error(row: Row, title: str) -> str:
    return f"{row[title]} ± {row[f'SE of {title}']}"


def verdicts(rows: list[Row]) -> str:
    """Returns a line for each set: the mAP of each loss that was compared, and the answer."""
    mean_precision = {(row["set"], row["loss"]): row["mAP"] for row in rows if row["command"] == "compare"}
    body = [
        [row["set"], *(as_measured(mean_precision[row["set"], loss]) for loss in LOSSES), row["compare says"]]
        for row in _winners(rows)
    ]
    return grid(["set", *LOSSES, "what `lopsided compare` says"], body)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the sets")
    parser.add_argument("--sets", help="names of sets to measure, again too, joined with commas")
    parser.add_argument("--page", action="store_true", help="write the tables of docs/real_data.md")
    options = parser.parse_args()
    if options.page:
        PAGE.write_text(page())
    elif options.data is None:
        parser.error("the folder of the sets is missing")
    else:
        names = options.sets.split(",") if options.sets else list(BASELINES)
        measure_all(options.data.resolve(), names, again=bool(options.sets))
