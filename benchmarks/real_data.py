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
import csv
import hashlib
import io
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.progress import Progress as Bars
from run import environment as facts
from tables import RESULTS, ROOT, Row, environment, metrics_grid, put, read

from lopsided.__main__ import main
from lopsided.jobs.folder import ComparisonFolder, RunFolder
from lopsided.jobs.rows import load
from lopsided.metrics.registry import METRICS
from lopsided.metrics.scores import Judged
from lopsided.metrics.significance import resample_rows
from lopsided.metrics.weighted import Weighable
from lopsided.report.headline import answer

PAGE = ROOT / "docs/real_data.md"
FILE = RESULTS / "real_data.csv"
LOSSES = ("bce", "asl", "zlpr")
RESAMPLES = 50  # bootstrap samples of the test rows


class Baseline(NamedTuple):
    """Test mAP of one-vs-rest logistic regression of scikit-learn 1.9.1, and F1 at one threshold for all labels that is
    tuned on held-out training rows. Source: the README of the data folder, section "Baselines"."""

    mean_precision: float
    micro_f1: float | None = None
    macro_f1: float | None = None


BASELINES = {
    "goemotions": Baseline(0.419, 0.547, 0.438),
    "nlupp": Baseline(0.866, 0.799, 0.796),
    "reuters21578": Baseline(0.689, 0.853, 0.355),
    "mulan_yeast": Baseline(0.456, 0.649, 0.432),
    "mulan_scene": Baseline(0.744, 0.699, 0.707),
    "mulan_emotions": Baseline(0.704, 0.674, 0.666),
    "mulan_enron": Baseline(0.267, 0.619, 0.177),
    "mulan_medical": Baseline(0.489, 0.763, 0.252),
    "xmc_bibtex": Baseline(0.387, 0.481, 0.351),
    "voc2007test_32": Baseline(0.281, 0.433, 0.233),
    "redocred": Baseline(0.145),
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


def standard_error(path: Path) -> float:
    """Returns the bootstrap standard error, over test rows, of the mAP of a run."""
    folder = RunFolder.open(path)
    with Bars(disable=True) as bars:
        test = load(folder.config, bars).test
    assert test is not None
    judged = Weighable(Judged.of(folder.read_scores("test", len(test)), test.hard_targets()))

    def precision(weights: torch.Tensor) -> float:
        return METRICS["map"].value(judged.summary(weights))

    return float(resample_rows([precision], len(test), RESAMPLES).std())


def measure(name: str, folder: Path) -> list[dict[str, object]]:
    """Returns a row for each loss that is compared, and one for the winner on all training rows."""
    with tempfile.TemporaryDirectory() as made:
        data = arguments(name, folder, Path(made))
        options = ["--losses", ",".join(LOSSES), "--seeds", "1", "--keep-overlap"]  # the published test rows
        seconds = {"compare": run("compare", *data, *options, "--out", f"{made}/compared")}
        compared = ComparisonFolder.open(Path(made, "compared")).read_results()
        best = compared.best_loss("map") or LOSSES[0]
        seconds["fit --like"] = run("fit", "--like", f"{made}/compared", "--loss", best, "--out", f"{made}/run")
        fitted = json.loads(Path(made, "run/results.json").read_text())
        error = standard_error(Path(made, "run"))
    rows = []
    for loss, result in compared.losses.items():
        values = {metric: result.metrics[metric].mean or math.nan for metric in ("map", "micro_f1", "macro_f1")}
        rows.append(_row(name, "compare", loss, values, seconds) | {"SE": "", "compare says": ""})
    values = fitted["model"] | fitted["decisions"]
    winner = _row(name, "fit --like", fitted["loss"], values, seconds)
    return [*rows, winner | {"SE": f"{error:.3f}", "compare says": answer(compared)}]


def _row(name: str, command: str, loss: str, values: dict[str, float], seconds: dict[str, float]) -> dict[str, object]:
    metrics = {"mAP": "map", "micro-F1": "micro_f1", "macro-F1": "macro_f1"}
    shown = {title: f"{values[metric]:.3f}" for title, metric in metrics.items()}
    return {"set": name, "command": command, "loss": loss, **shown, "CPU s": f"{seconds[command]:.0f}"}


def measure_all(data: Path, names: list[str], again: bool) -> None:
    """Measures sets that are not in the file, or all; each row keeps the machine and the commit of its measurement."""
    rows: list[dict[str, Any]] = [dict(row) for row in read(FILE.name)] if FILE.exists() else []
    for name in names:
        if again or name not in {row["set"] for row in rows}:
            measured = [row | facts() for row in measure(name, data / name)]
            rows = [row for row in rows if row["set"] != name] + measured
            rows.sort(key=lambda row: list(BASELINES).index(row["set"]))
            with FILE.open("w", newline="") as file:
                writer = csv.DictWriter(file, [*rows[0]])
                writer.writeheader()
                writer.writerows(rows)


def page() -> str:
    rows = read(FILE.name)
    missing = [name for name in BASELINES if name not in {row["set"] for row in rows}]
    note = f"\n\nNot measured: {', '.join(missing)}." if missing else ""
    source = environment(rows, "real_data.py")
    return put(PAGE, {"real data": f"{table(rows)}{note}\n\n{source}", "verdicts": verdicts(rows)})


def table(rows: list[Row]) -> str:
    """A row for each set: the baseline, the losses that were compared, and the winner trained on all rows."""
    body = []
    for name, baseline in BASELINES.items():
        found = {(row["command"], row["loss"]): row for row in rows if row["set"] == name}
        if not found:
            continue
        ((_, winner), last), *_ = [(key, row) for key, row in found.items() if key[0] == "fit --like"]
        compared = [found["compare", loss] for loss in LOSSES]
        body.append(
            [
                name,
                f"{baseline.mean_precision:.3f}",
                *(row["mAP"] for row in compared),
                f"**{last['mAP']}** ({winner})",
                last["SE"],
                _pair(baseline.micro_f1, baseline.macro_f1),
                f"{last['micro-F1']} / {last['macro-F1']}",
                f"{compared[0]['CPU s']} / {last['CPU s']}",
            ]
        )
    head = ["set", "mAP: linear", *LOSSES, "winner, all rows", "SE", "F1: linear", "F1: winner", "CPU seconds"]
    return metrics_grid(head, body)


def _pair(micro: float | None, macro: float | None) -> str:
    return "" if micro is None or macro is None else f"{micro:.3f} / {macro:.3f}"


def verdicts(rows: list[Row]) -> str:
    said = {name: [row["compare says"] for row in rows if row["set"] == name] for name in BASELINES}
    return metrics_grid(
        ["set", "what `lopsided compare` says"],
        [[name, ". ".join(filter(None, each))] for name, each in said.items() if each],
    )


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
