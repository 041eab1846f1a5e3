"""Times metrics of 100,000 rows with 1,000 labels, scikit-learn and torchmetrics beside; writes a CSV and its table.

    python benchmarks/metrics.py

Scores are float32 logits, 2 % of the labels positive, in batches of 1,000 rows where batches are taken. Every contender
runs in a process of its own, in turns, `--rounds` times; the time is that of the fastest, and memory is what the peak
exceeds scores and targets by. mAP means the average precision of every label; the largest difference from
scikit-learn's stands beside it.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
import tables
import torch
from linear import kilobytes
from run import environment, write
from torch import Tensor

from lopsided.metrics import MultiLabelMetrics
from lopsided.metrics.scores import Judged
from lopsided.metrics.top_k import propensities
from lopsided.metrics.weighted import ranked_labels

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/metrics.md"
BATCH, POSITIVE, BINS = 1000, 0.02, 1024
ALL, BINNED, OURS, THEIRS, TORCHMETRICS = (
    "all metrics",
    f"all metrics, {BINS} bins",
    "mAP alone",
    "mAP, scikit-learn",
    "mAP, torchmetrics",
)


def make(rows: int, labels: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(rows, labels, generator=generator) < POSITIVE
    return torch.randn(rows, labels, generator=generator).add_(targets, alpha=2).sub_(4), targets


def collected(scores: Tensor, targets: Tensor, binned: int | None) -> Tensor:
    propensity = propensities(targets.sum(0), len(targets))
    metrics = MultiLabelMetrics(scores.shape[1], "logits", propensity=propensity, binned=binned)
    for part in torch.arange(len(scores)).split(BATCH):
        rows = slice(int(part[0]), int(part[-1]) + 1)
        metrics.update(scores[rows], targets[rows])
    return metrics.result().per_label["average_precision"]


def of_scikit_learn(scores: Tensor, targets: Tensor) -> Tensor:
    from sklearn.metrics import average_precision_score

    return torch.from_numpy(average_precision_score(targets.numpy(), scores.numpy(), average=None))


def of_torchmetrics(scores: Tensor, targets: Tensor) -> Tensor:
    from torchmetrics.classification import MultilabelAveragePrecision

    metric = MultilabelAveragePrecision(scores.shape[1], average=None, validate_args=False)
    for part in torch.arange(len(scores)).split(BATCH):
        rows = slice(int(part[0]), int(part[-1]) + 1)
        metric.update(scores[rows], targets[rows].int())
    value: Tensor = metric.compute()
    return value


CONTENDERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    ALL: lambda s, y: collected(s, y, None),
    BINNED: lambda s, y: collected(s, y, BINS),
    OURS: lambda s, y: torch.from_numpy(ranked_labels(Judged.of(s, y))["average_precision"]),
    THEIRS: of_scikit_learn,
}
if importlib.util.find_spec("torchmetrics"):
    CONTENDERS[TORCHMETRICS] = of_torchmetrics


def once(name: str, rows: int, labels: int) -> None:
    """Prints seconds, seconds of the processors, bytes and values. Linux with glibc."""
    CONTENDERS[name](*make(500, 20))  # imports, and what is made on the first call
    scores, targets = make(rows, labels)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, start, start_cpu = kilobytes("VmRSS"), time.perf_counter(), time.process_time()
    values = CONTENDERS[name](scores, targets)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    print(json.dumps([seconds, cpu, 1024 * (kilobytes("VmHWM") - before), values.tolist()]))


def measure(rows: int, labels: int, rounds: int) -> list[dict[str, object]]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    peak, values = {}, {}
    for _ in range(rounds):
        for name in CONTENDERS:
            command = [sys.executable, __file__, "--once", name, "--rows", str(rows), "--labels", str(labels)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            times[name].append((found[0], found[1]))
            peak[name], values[name] = found[2], np.array(found[3])
            print(f"{name}: {found[0]:.2f} s, {found[1]:.2f} CPU s, {found[2] / 2**30:.2f} GiB", file=sys.stderr)
    least = {name: min(taken) for name, taken in times.items()}
    return [
        {"rows": rows, "labels": labels, "threads": torch.get_num_threads(), "contender": name}
        | {"seconds": round(least[name][0], 2), "CPU seconds": round(least[name][1], 2)}
        | {"times as fast as scikit-learn": round(least[THEIRS][0] / least[name][0], 2)}
        | {"extra peak GiB": round(peak[name] / 2**30, 2)}
        | {"largest difference": f"{np.abs(values[name] - values[THEIRS]).max():.1e}"}
        for name in CONTENDERS
    ]


def table(rows: list[tables.Row]) -> str:
    names = (
        "contender",
        "seconds",
        "CPU seconds",
        "times as fast as scikit-learn",
        "extra peak GiB",
        "largest difference",
    )
    body = [[row[name] for name in names] for row in rows]
    for line, row in zip(body, rows, strict=True):
        if row["contender"].startswith("all"):
            line[3] = ""  # of mAP alone
    versions = f"{tables.environment(rows, 'metrics.py')[:-1]}, scikit-learn {rows[0]['scikit-learn']}"
    head = [
        "",
        "seconds",
        "CPU seconds",
        "times as fast as scikit-learn",
        "extra peak GiB",
        "largest difference of an AP",
    ]
    return f"{tables.grid(head, body)}\n\n{versions}, {rows[0]['threads']} threads."


def page() -> str:
    """The text of the page as it should be."""
    return tables.put(PAGE, {"metrics": table(tables.read("metrics.csv"))})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/metrics.csv")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--once", help="only run one contender and print what it took")
    asked = parser.parse_args()
    if asked.once:
        once(asked.once, asked.rows, asked.labels)
        return
    environment()  # as it is before
    rows = measure(asked.rows, asked.labels, asked.rounds)
    write(asked.out, rows, **{"scikit-learn": sklearn.__version__})
    if asked.out == parser.get_default("out"):
        PAGE.write_text(page())
        print(PAGE)


if __name__ == "__main__":
    main()
