"""How long a stratified split takes, and how near the parts come to their shares of each label.

    python benchmarks/split.py && python benchmarks/split.py --tables

The second command writes the table of docs/data.md from the measured file. Rows with about five labels whose
frequencies fall as 1 / rank, 60 % for training and 20 % each for validation and test. The method as it was published
takes the label with the fewest unplaced rows, again after each label; it is written here as it stands in the paper.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from run import environment, write
from tables import environment as measured_by
from tables import grid, put, read
from torch import Tensor

from lopsided.data.split import stratified_split
from lopsided.targets import SparseTargets

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/data.md"
SHARES = (0.6, 0.2, 0.2)
SHAPES = ((1_000, 50), (10_000, 1_000), (100_000, 1_000), (100_000, 100_000), (1_000_000, 1_000))
LABELS_PER_ROW = 5
LARGEST_DENSE = 10**9  # rows x labels that the published method is given

Split = Callable[[SparseTargets], Sequence[Tensor]]


def make(rows: int, labels: int) -> SparseTargets:
    random = np.random.default_rng(0)
    frequency = 1 / np.arange(1, labels + 1)
    row = np.repeat(np.arange(rows), random.poisson(LABELS_PER_ROW, rows))
    entries = np.unique(row * labels + random.choice(labels, len(row), p=frequency / frequency.sum()))
    crow = np.concatenate(([0], np.bincount(entries // labels, minlength=rows).cumsum()))
    return SparseTargets(torch.from_numpy(crow), torch.from_numpy(entries % labels), None, labels)


def at_random(targets: SparseTargets) -> Sequence[Tensor]:
    rows = len(targets.crow) - 1
    ends = [round(share * rows) for share in np.cumsum(SHARES)[:-1]]
    return torch.randperm(rows, generator=torch.Generator().manual_seed(0)).tensor_split(ends)


def published(targets: SparseTargets) -> Sequence[Tensor]:
    """Sechidis et al. 2011, algorithm 1."""
    rows, labels = len(targets.crow) - 1, int(targets.num_labels or 0)
    positive = np.zeros((rows, labels), dtype=bool)
    positive[np.repeat(np.arange(rows), np.diff(targets.crow.numpy())), targets.col.numpy()] = True
    order = np.random.default_rng(0).permutation(rows)
    unplaced = positive.sum(0)
    wanted_rows, wanted = np.array(SHARES) * rows, np.outer(SHARES, unplaced)
    part_of = np.full(rows, -1)

    def place(row: int, part: int) -> None:
        has = np.flatnonzero(positive[row])
        part_of[row] = part
        wanted_rows[part] -= 1
        wanted[part, has] -= 1
        unplaced[has] -= 1

    while unplaced.any():
        rarest = int(np.where(unplaced > 0, unplaced, rows + 1).argmin())
        for row in order[positive[order, rarest]]:
            if part_of[row] < 0:
                place(row, int(np.lexsort((wanted_rows, wanted[:, rarest]))[-1]))
    for row in order[part_of[order] < 0]:
        place(row, int(wanted_rows.argmax()))
    return [torch.from_numpy(np.flatnonzero(part_of == part)) for part in range(len(SHARES))]


WAYS: dict[str, Split] = {
    "lopsided": lambda targets: stratified_split(targets, SHARES),
    "as published": published,
    "at random": at_random,
}


def deviation(targets: SparseTargets, parts: Sequence[Tensor]) -> float:
    """Mean distance, in rows, of a part's positives of a label from its share of them."""
    rows, labels = len(targets.crow) - 1, int(targets.num_labels or 0)
    part_of = torch.empty(rows, dtype=torch.long)
    for number, part in enumerate(parts):
        part_of[part] = number
    entry_part = part_of.repeat_interleave(targets.crow.diff())
    counts = torch.bincount(entry_part * labels + targets.col, minlength=len(parts) * labels).view(len(parts), labels)
    return float((counts - torch.tensor(SHARES)[:, None] * counts.sum(0)).abs().mean())


def measure() -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    for rows, labels in SHAPES:
        targets = make(rows, labels)
        for way, split in WAYS.items():
            if split is published and rows * labels >= LARGEST_DENSE:
                continue
            start = time.process_time()
            parts = split(targets)
            seconds = time.process_time() - start
            line = {"rows": rows, "labels": labels, "positives": len(targets.col), "way": way}
            lines.append(line | {"cpu seconds": f"{seconds:.3f}", "deviation": f"{deviation(targets, parts):.3f}"})
            print(*lines[-1].values())
    return lines


def page() -> str:
    """docs/data.md with the table of the measured file."""
    rows = read("split.csv")
    body = []
    for shape in dict.fromkeys((row["rows"], row["labels"]) for row in rows):
        of_way = {row["way"]: row for row in rows if (row["rows"], row["labels"]) == shape}
        cells = [
            f"{float(of_way[way]['cpu seconds']):.2f} s, {float(of_way[way]['deviation']):.2f}"
            if way in of_way
            else "-"
            for way in WAYS
        ]
        body.append([" x ".join(f"{int(size):,}" for size in shape), *cells])
    return put(PAGE, {"split": f"{grid(['rows x labels', *WAYS], body)}\n\n{measured_by(rows, 'split.py')}"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/split.csv")
    parser.add_argument("--tables", action="store_true", help="only write the table of the page")
    asked = parser.parse_args()
    if asked.tables:
        PAGE.write_text(page())
        return
    environment()  # as it is before
    write(asked.out, measure())


if __name__ == "__main__":
    main()
