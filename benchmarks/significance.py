"""How often each way to compare losses finds a difference where there is none, and where there is one.

    python benchmarks/significance.py && python benchmarks/significance.py --splits
    python benchmarks/significance.py --tables

The last command writes the tables of docs/significance.md from the measured files. Simulated mAP of four losses, of
which one is better, or none; with --splits, of equal losses on splits that share rows.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from run import environment, write
from scipy import stats
from tables import environment as measured_by
from tables import grid, put, read
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.simulation import WORLDS, experiments, splits_of_rows  # noqa: E402

from lopsided.metrics.significance import LEVEL, paired_differences, resplit_differences  # noqa: E402

PAGE = ROOT / "docs/significance.md"
SPLITS = ROOT / "benchmarks/results/resplits.csv"
EFFECT = 0.25  # more separation between positives and negatives, in standard deviations of a score
SEEDS = (2, 3, 5)
LOSSES = 4
TWO = "lopsided, two losses"


def pooled(values: Tensor, resampled: Tensor) -> list[float]:
    return [difference.p_value for difference in paired_differences(values, resampled)]


def counted_twice(values: Tensor, resampled: Tensor) -> list[float]:
    """What a seed makes of the rows, counted with the seeds and with the rows."""
    return pooled(values, resampled.mean(2, keepdim=True).expand_as(resampled))


def not_pooled(values: Tensor, resampled: Tensor) -> list[float]:
    return [pooled(values[[0, k]], resampled[:, [0, k]])[0] for k in range(1, len(values))]


def seeds_alone(values: Tensor, resampled: Tensor) -> list[float]:
    """Student's paired t test, which takes the test rows for the whole world."""
    p_values: list[float] = stats.ttest_rel(values[1:].numpy(), values[:1].expand_as(values[1:]).numpy(), 1).pvalue
    return list(p_values)


def rows_alone(values: Tensor, resampled: Tensor) -> list[float]:
    """The paired bootstrap, which takes the trained models for the losses."""
    return pooled(values.mean(1, keepdim=True), resampled.mean(2, keepdim=True))


def hierarchical(values: Tensor, resampled: Tensor) -> list[float]:
    """The bootstrap of seeds and rows: a difference is real if 97.5 % of the samples say so."""
    generator = torch.Generator().manual_seed(0)
    differences = resampled[:, 1:] - resampled[:, :1]
    samples, _, seeds = differences.shape
    drawn = torch.randint(seeds, (samples, 1, seeds), generator=generator).expand_as(differences)
    below = (differences.gather(2, drawn).mean(2) <= 0).double().mean(0)
    return (2 * torch.minimum(below, 1 - below)).tolist()


WAYS: dict[str, Callable[[Tensor, Tensor], list[float]]] = {
    "lopsided": pooled,
    "seeds not pooled": not_pooled,
    "seeds x rows twice": counted_twice,
    "hierarchical bootstrap": hierarchical,
    "seeds alone": seeds_alone,
    "rows alone": rows_alone,
}


def simulate(trials: int) -> list[dict[str, object]]:
    measured: list[dict[str, object]] = []
    for name, world in WORLDS.items():
        for seeds in SEEDS:
            found: dict[str, list[Tensor]] = {way: [] for way in WAYS}
            for values, resampled in experiments(world, LOSSES, seeds, trials, EFFECT, resamples=200):
                for way, test in WAYS.items():
                    found[way].append(torch.tensor(test(values, resampled)) < LEVEL)
            pairs = [pooled(*both)[0] < LEVEL for both in experiments(world, 2, seeds, trials, resamples=200)]
            shares = {way: 100 * torch.stack(decisions).double().mean(0) for way, decisions in found.items()}
            rates = {way: (share[:-1].mean().item(), share[-1].item()) for way, share in shares.items()}
            rates[TWO] = (100 * sum(pairs) / trials, math.nan)
            measured += [
                {"world": name, "seeds": seeds, "way": way, "trials": trials}
                | {"false alarms %": round(alarms, 2), "power %": round(power, 2)}
                for way, (alarms, power) in rates.items()
            ]
            print(f"{name}, {seeds} seeds", file=sys.stderr)
    return measured


def simulate_splits(trials: int) -> list[dict[str, object]]:
    """Splits have 60 % of the rows for training and 20 % for tests."""
    measured: list[dict[str, object]] = []
    for losses in (2, LOSSES):
        for splits in (3, 5, 10):
            found = {"corrected %": 0, "naive %": 0}
            for values in splits_of_rows(losses, splits, trials):
                for name, ratio in zip(found, (1 / 3, 0.0), strict=True):
                    found[name] += sum(each.p_value < LEVEL for each in resplit_differences(values, ratio))
            rates = {name: round(100 * count / trials / (losses - 1), 2) for name, count in found.items()}
            measured.append({"losses": losses, "splits": splits, "trials": trials, **rates})
    return measured


def table_of_splits(rows: list[dict[str, str]]) -> str:
    names = ("losses", "splits", "corrected %", "naive %")
    body = [[row["losses"], row["splits"], *(f"{float(row[name]):.1f}" for name in names[2:])] for row in rows]
    return grid(["losses", "splits", "corrected", "as if splits shared nothing"], body)


def table(rows: list[dict[str, str]], column: str, ways: Sequence[str]) -> str:
    body = []
    for world in WORLDS:
        for seeds in map(str, SEEDS):
            found = {row["way"]: row[column] for row in rows if (row["world"], row["seeds"]) == (world, seeds)}
            body.append([world, seeds, *(f"{float(found[way]):.1f}" for way in ways)])
    return grid(["what varies", "seeds", *ways], body)


def page() -> str:
    """docs/significance.md with the tables of the measured files."""
    rows = read("significance.csv")
    source = measured_by(rows, "significance.py") + f" {rows[0]['trials']} experiments a line."
    tables = {"false alarms": f"{table(rows, 'false alarms %', [*WAYS, TWO])}\n\n{source}"}
    splits = read(SPLITS.name)
    source = measured_by(splits, "significance.py --splits") + f" {splits[0]['trials']} experiments a line."
    tables["false alarms of splits"] = f"{table_of_splits(splits)}\n\n{source}"
    tables["power"] = table(rows, "power %", list(WAYS))
    return put(PAGE, tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", action="store_true", help="measure splits that share rows")
    parser.add_argument("--out", type=Path, help="significance.csv, or resplits.csv, if left out")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--tables", action="store_true", help="only write the tables of the page")
    asked = parser.parse_args()
    if asked.tables:
        PAGE.write_text(page())
        return
    environment()  # as it is before
    if asked.splits:
        write(asked.out or SPLITS, simulate_splits(asked.trials))
    else:
        write(asked.out or SPLITS.with_name("significance.csv"), simulate(asked.trials))


if __name__ == "__main__":
    main()
