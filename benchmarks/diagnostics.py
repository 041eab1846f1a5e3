"""Times what the diagnostics of every fourth batch cost, beside a step of training; writes a CSV.

    python benchmarks/diagnostics.py

Both are timed in every step, one after the other, so that whatever else the machine does hits them alike; figures are
medians. The tasks are those of `lopsided compare`: digits-grid, and made texts whose every word says a label.
"""

from __future__ import annotations

import csv
import statistics
import time
from pathlib import Path

import torch
from run import environment

from lopsided import DiagnosticsTracker
from lopsided.data import MultiLabelData, Splits
from lopsided.data.digits_grid import digits_grid
from lopsided.models import make_task
from lopsided.training.fit import EVERY
from lopsided.training.objective import make_objective, parse_method

LABELS, ROWS = 28, 8000
STEPS = 150


def texts() -> MultiLabelData:
    targets = torch.rand(ROWS, LABELS, generator=torch.Generator().manual_seed(0)) < 0.05
    inputs = tuple(" ".join(f"word{label}" for label in row.nonzero().flatten().tolist()) for row in targets)
    return MultiLabelData(inputs, targets, tuple(f"label {number}" for number in range(LABELS)))


def measure(name: str, splits: Splits) -> dict[str, object]:
    task = make_task(splits)
    objective, budget = make_objective(parse_method("asl"), task.train.targets), task.default_budget
    torch.manual_seed(0)
    model = task.make_model(objective.outputs)
    optimizer = task.make_optimizer(model, budget.learning_rate)
    tracker, seconds = DiagnosticsTracker(), []
    for _ in range(STEPS):
        start = time.perf_counter()
        rows = torch.randint(len(task.train), (budget.batch_size,))
        targets = task.train.targets[rows]
        value = objective.criterion(outputs := model(*task.train.batch(rows)), targets)
        outputs.retain_grad()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        middle = time.perf_counter()
        tracker.update(outputs.detach(), outputs.grad, targets)
        seconds.append((middle - start, time.perf_counter() - middle))
    step, update = (statistics.median(part) for part in zip(*seconds, strict=True))
    shown = {"task": name, "batch": f"{budget.batch_size}x{splits.train.targets.shape[1]}"}
    shown |= {"step ms": f"{1e3 * step:.2f}", "update ms": f"{1e3 * update:.3f}"}
    return shown | {"share of training": f"{update / EVERY / step:.4f}"}


def main() -> None:
    made = texts()
    part = made[range(100)]
    rows = [measure("digits-grid", digits_grid(2000, 100, 100)), measure("texts", Splits(made, part, part))]
    path = Path(__file__).parent / "results/diagnostics.csv"
    with path.open("w", newline="") as file:
        measured_on = environment()
        writer = csv.DictWriter(file, [*rows[0], *measured_on])
        writer.writeheader()
        writer.writerows(row | measured_on for row in rows)
    print(path.read_text())


if __name__ == "__main__":
    main()
