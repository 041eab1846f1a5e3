"""What decision rules and calibrators are worth on real data: docs/decisions.md has the tables.

python benchmarks/decisions.py --data FOLDER    trains, decides, calibrates: benchmarks/results/decisions.csv
python benchmarks/decisions.py --speed 3        100,000 rows x 1,000 labels: benchmarks/results/decisions_speed.csv
python benchmarks/decisions.py --tables         writes the tables of docs/decisions.md from these files

A run of a data set, a loss and a seed: all rows are split at random into 60 % training, 20 % validation and 20 % test;
the model of `lopsided fit` is trained with its default settings; rules and calibrators see validation rows alone.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import tables
import torch
from decision_data import LOADERS, dense, load
from run import environment, write
from safetensors.torch import load_file, save_file
from torch import Tensor

import lopsided
from lopsided.data.dataset import Dataset
from lopsided.decision.calibrators import Calibrator, ClosedForm, Temperature, fit_isotonic, fit_platt
from lopsided.decision.rules import (
    AtLeastOne,
    ExpectedF1,
    OnProbabilities,
    Rule,
    Threshold,
    TopK,
    tune_label_thresholds,
    tune_macro_f1,
    tune_threshold,
)
from lopsided.decision.sweep import FBeta, best_thresholds
from lopsided.metrics.registry import METRICS
from lopsided.metrics.reliability import reliability
from lopsided.metrics.scores import Judged
from lopsided.metrics.weighted import Weighable
from lopsided.models.registry import fit_encoder
from lopsided.training.loop import train
from lopsided.training.rows import Rows

ROOT = Path(__file__).parents[1]
RESULTS, SPEED, PAGE = (ROOT / name for name in (
    "benchmarks/results/decisions.csv", "benchmarks/results/decisions_speed.csv", "docs/decisions.md"))  # fmt: skip
LOSSES = ("bce", "asl")
SHARED, GLOBAL, DEFAULT = "one, macro-F1", "one, micro-F1", "per label, shrunk by 10"


def train_and_score(data: Dataset, loss: str, seed: int) -> dict[str, Tensor]:
    """Scores and truth of validation and test; rows of unit length, batch size and epochs are those of `fit`."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    first, second = len(data) * 6 // 10, len(data) * 8 // 10
    part = data.take(order[:first])
    encoder = fit_encoder("bag", part.inputs)
    recipe = encoder.recipe(len(part), data.num_labels)
    model = train(encoder, loss, Rows(encoder.encode(part.inputs), part), recipe, seed).model
    tensors = {}
    for name, rows in (("valid", order[first:second]), ("test", order[second:])):
        part = data.take(rows)
        tensors[f"{name}.scores"] = model.score(encoder.encode(part.inputs)).values
        tensors[f"{name}.targets"] = dense(part)
    return tensors


def rules(scored: Judged, loss: str) -> dict[str, Rule]:
    platt = fit_platt(scored)
    k = max(1, round(float(scored.hits.sum() / len(scored))))
    made: dict[str, Rule] = {
        "own, closed form": Threshold(float(lopsided.loss(loss).decision_threshold())),
        GLOBAL: tune_threshold(scored),
        SHARED: Threshold(best_thresholds(scored, FBeta()).shared),
        "per label": tune_label_thresholds(scored, pseudo=0.0),
    }
    for pseudo in (2, 5, 10, 20, 50):
        made[f"per label, shrunk by {pseudo}"] = tune_label_thresholds(scored, pseudo=pseudo)
    return made | {
        f"{DEFAULT}, at least one": AtLeastOne(made[DEFAULT]),
        "macro-F1 plug-in, closed form": tune_macro_f1(scored, ClosedForm(loss)),
        "macro-F1 plug-in, Platt": tune_macro_f1(scored, platt),
        "expected F1, Platt": OnProbabilities(platt, ExpectedF1()),
        "top-k, k the mean": TopK(k),
    }


def calibrators(scored: Judged, loss: str) -> dict[str, Calibrator]:
    return {
        "sigmoid": lambda scores: torch.sigmoid(scores.double()),
        "closed form": ClosedForm(loss),
        "temperature": Temperature(lopsided.fit_temperature(scored.scores.values, scored.hits)),
        "Platt": fit_platt(scored),
        "Platt, one for all labels": fit_platt(scored, pseudo=1e9),
        "Platt, no shrinkage": fit_platt(scored, pseudo=1e-3),
        "isotonic": fit_isotonic(scored),
    }


def measured(found: dict[str, Tensor], loss: str) -> Iterable[dict[str, object]]:
    scores, truth = found["test.scores"], found["test.targets"]
    scored = Judged.of(found["valid.scores"], found["valid.targets"])
    judged = Judged.of(scores, truth)
    for name, rule in rules(scored, loss).items():
        summary = Weighable(judged, rule.decide(scores)).summary()
        values = {key: METRICS[key].value(summary) for key in ("micro_f1", "macro_f1", "sample_f1")}
        yield {"kind": "rule", "name": name, **values}
    for name, calibrate in calibrators(scored, loss).items():
        p = calibrate(scores)
        brier = float((p - truth.double()).square().sum(1).mean())  # of a row
        yield {"kind": "calibrator", "name": name, "error": reliability(p, truth).calibration_error, "brier": brier}


def run(folder: Path, cache: Path, names: list[str], seeds: int) -> None:
    environment()  # as it is before
    lines, loaded = [], {name: load(folder, name) for name in names}
    for seed in range(seeds):
        for name, rows in loaded.items():
            for loss in LOSSES:
                path = cache / f"{name}-{loss}-{seed}.safetensors"
                if not path.exists():
                    cache.mkdir(parents=True, exist_ok=True)
                    save_file(train_and_score(rows, loss, seed), path)
                shared = {"data": name, "labels": rows.num_labels, "loss": loss, "seed": seed}
                lines += [shared | line for line in measured(load_file(path), loss)]
                print(name, seed, loss, flush=True)
    write(RESULTS, [{key: round(v, 5) if isinstance(v, float) else v for key, v in line.items()} for line in lines])


def speed(rounds: int, rows: int = 100_000, labels: int = 1000) -> None:
    """Every step in a process of its own, some times, the fastest."""
    steps = {"per label and shared, one sweep": "sweep", "one for all": "one", "decide per label": "decide"}
    lines = []
    for name, step in steps.items():
        command = [sys.executable, __file__, "--step", step, "--size", str(rows), str(labels)]
        outputs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(rounds)]
        seconds, busy, peak = min(tuple(map(float, output.split())) for output in outputs)
        lines.append(
            {"step": name, "rows": rows, "labels": labels, "seconds": seconds, "CPU seconds": busy, "peak MB": peak}
        )
        print(lines[-1], flush=True)
    write(SPEED, lines)


def one_step(step: str, rows: int, labels: int) -> None:
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(rows, labels, generator=random)
    targets = torch.rand(rows, labels, generator=random) < 0.01
    scored = Judged.of(scores, targets)
    rule = tune_label_thresholds(Judged.of(scores[:100], targets[:100]))
    calls: dict[str, Callable[[], object]] = {
        "sweep": lambda: tune_label_thresholds(scored),
        "one": lambda: tune_threshold(scored),
        "decide": lambda: rule.decide(scores),
    }
    start, busy = time.perf_counter(), time.process_time()
    calls[step]()
    print(
        time.perf_counter() - start,
        time.process_time() - busy,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    )


Table = dict[str, dict[tuple[str, str], Tensor]]  # name -> (data, loss) -> a number for each seed


def collect(kind: str, column: str) -> Table:
    found: Table = defaultdict(lambda: defaultdict(lambda: torch.empty(0)))
    for row in tables.read(RESULTS.name):
        if row["kind"] == kind:
            cell = found[row["name"]]
            key = row["data"], row["loss"]
            cell[key] = torch.cat([cell[key], torch.tensor([float(row[column])])])
    return found


def grid(table: Table, cell: Callable[[Table, str, tuple[str, str]], str]) -> str:
    keys = list(next(iter(table.values())))
    head = ["", *(f"{data} {loss}" for data, loss in keys)]
    return tables.grid(head, [[name, *(cell(table, name, key) for key in keys)] for name in table])


def gain(table: Table, name: str, key: tuple[str, str]) -> str:
    """Mean difference to one threshold with its standard error, in hundredths; the level of that threshold itself."""
    if name == SHARED:
        return f"{100 * table[name][key].mean():.1f}"
    difference = 100 * (table[name][key] - table[SHARED][key])
    return f"{difference.mean():+.1f} ±{difference.std() / len(difference) ** 0.5:.1f}"


def level(digits: int) -> Callable[[Table, str, tuple[str, str]], str]:
    return lambda table, name, key: f"{table[name][key].mean():.{digits}f}"


def speed_table() -> str:
    head = ["100,000 rows x 1,000 labels", "seconds", "CPU seconds", "peak of the process, MB"]
    names = ("seconds", "CPU seconds", "peak MB")
    return tables.grid(
        head, [[row["step"], *(f"{float(row[name]):,.1f}" for name in names)] for row in tables.read(SPEED.name)]
    )


def page() -> str:
    shown = {
        "macro-F1": grid(collect("rule", "macro_f1"), gain),
        "micro-F1": grid(collect("rule", "micro_f1"), level(3)),
        "F1 of a row": grid(collect("rule", "sample_f1"), level(3)),
        "calibration error": grid(collect("calibrator", "error"), level(4)),
        "Brier": grid(collect("calibrator", "brier"), level(4)),
        "speed": speed_table(),
    }
    return tables.put(PAGE, shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/lopsided-decisions"), help="keeps the scores")
    parser.add_argument("--sets", nargs="+", default=list(LOADERS))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--speed", type=int, metavar="ROUNDS")
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        one_step(asked.step, *asked.size)
    if asked.data:
        run(asked.data, asked.cache, asked.sets, asked.seeds)
    if asked.speed:
        speed(asked.speed)
    if asked.tables:
        PAGE.write_text(page())


if __name__ == "__main__":
    main()
