"""Times losses on this machine against torch's own, the published way, and the limit; writes a CSV.

    python benchmarks/run.py && python benchmarks/tables.py

The second command puts the tables of `docs/speed.md` and of the README in line with it.

Contenders of a case take turns in one process, round by round, so that whatever else the machine does hits them alike;
figures are medians of single calls. Who does not give the value and gradient of a float64 reference is not timed.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from contenders import CASES, Case, Function, contenders
from torch import Tensor

import lopsided

Step = Callable[[], object]
Rows = list[dict[str, object]]
P = TypeVar("P")
_SLOW = 0.05  # seconds; so long a call warms its own caches


@cache
def reference(case: Case, loss: str) -> tuple[Tensor, Tensor]:
    """Value and gradient by our eager executor in float64, which the tests hold to independent formulas."""
    z, y = case.make()
    leaf = z.double().requires_grad_()
    value = lopsided.functional.multilabel_loss(leaf, y.double(), loss, reduction="sum", backend="eager")
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def is_right(case: Case, loss: str, function: Function) -> bool:
    """Does it give the value and the gradient of the reference?"""
    value, gradient = reference(case, loss)
    leaf = case.make()[0].requires_grad_()
    found = function(leaf)
    found.backward()
    assert leaf.grad is not None
    loose = case.dtype != torch.float32
    worst = (leaf.grad.double() - gradient).abs().max() / gradient.abs().max()
    return bool((found - value).abs() / value < (2e-2 if loose else 1e-3)) and bool(worst < (2e-2 if loose else 2e-3))


def step(function: Function, z: Tensor, backward: bool) -> Step:
    leaf = z.clone().requires_grad_(backward)

    def run() -> None:
        leaf.grad = None
        value = function(leaf)
        if backward:
            value.backward()

    return run


def limit(case: Case) -> Step:
    """As many bytes as a loss must move: logits and targets read, a gradient written."""
    z, y = case.make()
    out = torch.empty_like(z)
    return lambda: torch.add(z, y, out=out)


def measure(steps: dict[str, Step], seconds: float) -> dict[str, float]:
    """Median seconds of each, over rounds in which all take turns, for about `seconds` in all.

    A turn is one call that is not timed, so that nobody pays for caches that others left cold, and then calls that
    are, for 10 ms or at least 3 times. A slow call is a turn by itself.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    for rounds in itertools.count(1):
        for name, run in steps.items():
            if not (times[name] and times[name][-1] > _SLOW):
                run()
            times[name] += _turn(run)
        if time.perf_counter() > end and rounds >= 3:
            break
    return {name: statistics.median(each) for name, each in times.items()}


def _turn(run: Step) -> list[float]:
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < 1e-2:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
        if taken[-1] > _SLOW:
            break
    return taken


def commit() -> str:
    result = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


@cache
def environment() -> dict[str, object]:
    versions: dict[str, object] = {"torch": torch.__version__, "lopsided": lopsided.__version__, "commit": commit()}
    return versions | {"processor": _processor(), "python": platform.python_version(), "cores": os.cpu_count()}


def write(path: Path, rows: Sequence[Mapping[str, object]], **facts: object) -> None:
    """A line for each row, with facts and environment behind it, unless it has some; "" where it lacks a column."""
    facts |= environment()
    names = dict.fromkeys(name for row in rows for name in row if name not in facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*names, *facts], restval="")
        writer.writeheader()
        writer.writerows({**facts, **row} for row in rows)
    print(path)


def run_parts(description: str | None, out: Path, parts: Iterable[P], rows_of: Callable[[P, float], Rows]) -> None:
    """Measures one part after the other on one thread, for as long as the command line says, and writes all rows."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--seconds", type=float, default=8.0, help="per part")
    asked = parser.parse_args()
    environment()  # as it is before
    torch.set_num_threads(1)
    rows: Rows = []
    for part in parts:
        rows += rows_of(part, asked.seconds)
        print(rows[-1]["case"], rows[-1]["loss"], file=sys.stderr)
    write(asked.out, rows)


def run_case(case: Case, backward: bool, threads: int, seconds: float, compiled: bool) -> Rows:
    torch.set_num_threads(threads)
    z = case.make()[0]
    steps: dict[str, Step] = {"limit": limit(case)}
    wrong = []
    for name, loss, function in contenders(case, compiled and backward):
        if is_right(case, loss, function):
            steps[name] = step(function, z, backward)
        else:
            wrong.append(name)
    medians = measure(steps, seconds)
    shared = {"case": str(case), "pass": "forward+backward" if backward else "forward", "threads": threads}
    rows: Rows = [
        shared
        | {"contender": name, "microseconds": round(1e6 * median, 1)}
        | {"ratio to torch bce": round(median / medians["torch bce"], 3)}
        | {"ratio to limit": round(median / medians["limit"], 2)}
        for name, median in medians.items()
    ]
    rows += [{**shared, "contender": name, "microseconds": "wrong, not timed"} for name in wrong]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cpu.csv"))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=8.0, help="per case")
    parser.add_argument("--quick", action="store_true", help="no forward alone, no torch.compile of published code")
    parser.add_argument("--cases", nargs="*", help="only cases whose name contains one of these")
    asked = parser.parse_args()
    environment()  # as it is before
    rows = []
    for case in CASES:
        if asked.cases and not any(text in str(case) for text in asked.cases):
            continue
        for threads in asked.threads:
            compiled = not asked.quick and threads == max(asked.threads)
            for backward in (True,) if asked.quick else (True, False):
                rows += run_case(case, backward, threads, asked.seconds, compiled)
                print(f"{case}, {threads} threads, {'forward+backward' if backward else 'forward'}", file=sys.stderr)
    write(asked.out, rows)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
