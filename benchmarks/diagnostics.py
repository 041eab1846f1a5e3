"""Times what the diagnostics of every fourth batch cost, beside a training step; writes a CSV and docs/diagnostics.md.

    python benchmarks/diagnostics.py

Both are timed in every step, one after the other; figures are medians of processor time, on one thread, which other
work on the machine hardly changes. The tasks are those of `lopsided compare`: digits-grid, and made texts with as many
labels as GoEmotions.
"""

from __future__ import annotations

import csv
import statistics
import time

import torch
from lopsided.training.objective import make_objective, parse_method
from run import environment
from tables import RESULTS, ROOT, grid, put, read

from lopsided import DiagnosticsTracker
from lopsided.data import MultiLabelData, Splits
from lopsided.data.digits_grid import digits_grid
from lopsided.models import make_task
from lopsided.training.loop import DIAGNOSE_EVERY_BATCHES

PAGE = ROOT / "docs/diagnostics.md"
LABELS, ROWS = 28, 8000
STEPS = 100


def texts() -> MultiLabelData:
    """Fifteen words of 20,000 in each."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(ROWS, LABELS, generator=generator) < 0.05
    words = (20_000 ** torch.rand(ROWS, 15, generator=generator)).long()
    inputs = tuple(" ".join(f"{word:x}word" for word in row) for row in words.tolist())
    return MultiLabelData(inputs, targets, tuple(f"label {number}" for number in range(LABELS)))


def measure(name: str, splits: Splits) -> dict[str, object]:
    task = make_task(splits)
    objective, budget = make_objective(parse_method("asl"), task.train.targets), task.default_budget
    torch.manual_seed(0)
    model = task.make_model(objective.outputs)
    optimizer = task.make_optimizer(model, budget.learning_rate)
    tracker, seconds = DiagnosticsTracker(), []
    for _ in range(STEPS):
        start = time.process_time()
        rows = torch.randint(len(task.train), (budget.batch_size,))
        targets = task.train.targets[rows]
        value = objective.criterion(outputs := model(*task.train.batch(rows)), targets)
        outputs.retain_grad()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        middle = time.process_time()
        tracker.update(outputs.detach(), outputs.grad, targets)
        seconds.append((middle - start, time.process_time() - middle))
    step, update = (statistics.median(part) for part in zip(*seconds, strict=True))
    shown = {"task": name, "batch": f"{budget.batch_size}x{splits.train.targets.shape[1]}"}
    shown |= {"step ms": f"{1e3 * step:.2f}", "update ms": f"{1e3 * update:.3f}"}
    return shown | {"share of training": f"{update / DIAGNOSE_EVERY_BATCHES / step:.4f}"}


def page() -> str:
    """The text of docs/diagnostics.md, as it should be."""
    rows = read("diagnostics.csv")
    names = ["task", "batch", "step ms", "update ms", "share of training"]
    shown = grid(names, [[row[name] for name in names] for row in rows])
    machine = f"{rows[0]['processor']}, torch {rows[0]['torch']}, commit {rows[0]['commit']}"
    sentence = f"Medians of processor time on one thread, measured by `python benchmarks/diagnostics.py` on {machine}."
    return put(PAGE, {"cost": f"{shown}\n\n{sentence}"})


def main() -> None:
    torch.set_num_threads(1)
    measured_on = environment()
    made = texts()
    part = made[range(100)]
    rows = [measure("digits-grid", digits_grid(2000, 100, 100)), measure("texts", Splits(made, part, part))]
    with (RESULTS / "diagnostics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *measured_on])
        writer.writeheader()
        writer.writerows(row | measured_on for row in rows)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
