"""Times what the diagnostics after an epoch cost, beside its steps; writes a CSV and docs/diagnostics.md.

    python benchmarks/diagnostics.py

Figures are medians of processor time, on one thread, which other
work on the machine hardly changes. The tasks are those of `lopsided compare`: digits-grid, and made texts with as many
labels as GoEmotions.
"""

from __future__ import annotations

import csv
import statistics
import time
from dataclasses import replace

import torch
from run import environment
from tables import RESULTS, ROOT, grid, put, read

from lopsided.data.dataset import Dataset
from lopsided.data.digits_grid import digits_grid
from lopsided.data.inputs import Texts
from lopsided.models.methods import parse_method
from lopsided.models.registry import fit_encoder
from lopsided.targets import SparseTargets
from lopsided.training.diagnose import diagnose
from lopsided.training.loop import train
from lopsided.training.rows import Rows

PAGE = ROOT / "docs/diagnostics.md"
LABELS, ROWS = 28, 8000
TIMES = 20


def texts() -> Dataset:
    """Fifteen words of 20,000 in each."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(ROWS, LABELS, generator=generator) < 0.05).float().to_sparse_csr()
    words = (20_000 ** torch.rand(ROWS, 15, generator=generator)).long()
    inputs = tuple(" ".join(f"{word:x}word" for word in row) for row in words.tolist())
    return Dataset(Texts(inputs), SparseTargets.from_csr(targets), tuple(f"label {number}" for number in range(LABELS)))


def measure(name: str, data: Dataset) -> dict[str, object]:
    encoder = fit_encoder(None, data.inputs)
    rows = Rows(encoder.encode(data.inputs), data)
    recipe = replace(encoder.recipe(len(rows), data.num_labels), epochs=1)
    model, seconds = train(encoder, "asl", rows, recipe, 0).model, []
    start = time.process_time()
    train(encoder, "asl", rows, recipe, 0)
    epoch = time.process_time() - start
    for _ in range(TIMES):
        start = time.process_time()
        diagnose(model, rows, parse_method(model.method))
        seconds.append(time.process_time() - start)
    update = statistics.median(seconds)
    steps = -(-len(rows) // recipe.batch_size)
    shown = {"task": name, "batch": f"{recipe.batch_size}x{data.num_labels}"}
    shown |= {"step ms": f"{1e3 * (epoch - update) / steps:.2f}", "update ms": f"{1e3 * update:.3f}"}
    return {**shown, "share of training": f"{update / epoch:.4f}"}


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
    rows = [measure("digits-grid", digits_grid(2000, 100, 100).train), measure("texts", texts())]
    with (RESULTS / "diagnostics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *measured_on])
        writer.writeheader()
        writer.writerows(row | measured_on for row in rows)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
