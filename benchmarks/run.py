"""Times losses on this machine against torch's own, the published way, and the limit; writes a CSV and a table.

    python benchmarks/run.py --out benchmarks/results/cpu.csv

Contenders of a case take turns in one process, round by round, so that whatever else the machine does hits them alike;
figures are medians of single calls. Who does not give the value and gradient of a float64 reference is not timed.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import published
import torch
from torch import Tensor, nn

import lopsided
from lopsided import SparseTargets

Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    rows: int
    labels: int
    dtype: torch.dtype
    targets: str  # "float", "uint8" or "sparse"

    def __str__(self) -> str:
        return f"{self.rows}x{self.labels} {str(self.dtype).removeprefix('torch.')} {self.targets}"

    def make(self) -> tuple[Tensor, Tensor]:
        """Logits N(-3, 2^2), and targets with 3 positives in 100 labels, at most about 20 a row."""
        generator = torch.Generator().manual_seed(0)
        z = (2 * torch.randn(self.rows, self.labels, generator=generator) - 3).to(self.dtype)
        y = torch.rand(self.rows, self.labels, generator=generator) < min(0.03, 20 / self.labels)
        return z, y.to(self.dtype)


CASES = [
    Case(rows, labels, dtype, targets)
    for rows, labels in ((256, 80), (128, 10_000), (64, 131_072))
    for dtype, targets in ((torch.float32, "float"), (torch.bfloat16, "uint8"), (torch.float32, "sparse"))
]
NON_INTEGER = "asl(gamma_neg=3.7, gamma_pos=1.3)"
LOSSES = ("bce", "focal", "asl", "apl", "zlpr", NON_INTEGER)
PUBLISHED = {
    "focal": published.focal,
    "asl": published.asymmetric,
    "apl": published.asymmetric_polynomial,
    "zlpr": published.zlpr,
    NON_INTEGER: partial(published.asymmetric, gamma_neg=3.7, gamma_pos=1.3),
}


def contenders(case: Case, compiled: bool) -> dict[str, tuple[str, Callable[[Tensor], Tensor]]]:
    """name -> (loss, function of the logits)."""
    y = case.make()[1]
    said: Tensor | SparseTargets = y
    if case.targets == "uint8":
        said = y.to(torch.uint8)
    elif case.targets == "sparse":
        said = SparseTargets.from_csr(y.to_sparse_csr())
    found: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
        "torch bce": ("bce", partial(nn.functional.binary_cross_entropy_with_logits, target=y, reduction="sum")),
    }
    for loss in LOSSES:
        for backend in ("native", "eager"):
            module = lopsided.MultiLabelLoss(loss, reduction="sum", backend=backend)
            found[f"{loss} {backend}"] = loss, lambda z, module=module: module(z, said)
        if loss in PUBLISHED and case.targets == "float":
            found[f"{loss} published"] = loss, partial(PUBLISHED[loss], y=y)
            if compiled:
                found[f"{loss} published, compiled"] = loss, torch.compile(partial(PUBLISHED[loss], y=y), dynamic=False)
    return found


def is_right(case: Case, loss: str, function: Callable[[Tensor], Tensor]) -> bool:
    """Value and gradient against our eager executor in float64, which the tests hold to independent formulas."""
    z, y = case.make()
    exact = z.double().requires_grad_()
    truth = lopsided.functional.multilabel_loss(exact, y.double(), loss, reduction="sum", backend="eager")
    truth.backward()
    leaf = z.requires_grad_()
    value = function(leaf)
    value.backward()
    assert exact.grad is not None
    assert leaf.grad is not None
    loose = case.dtype != torch.float32
    worst = (leaf.grad.double() - exact.grad).abs().max() / exact.grad.abs().max()
    return bool((value - truth).abs() / truth < (2e-2 if loose else 1e-3)) and bool(worst < (2e-2 if loose else 2e-3))


def step(function: Callable[[Tensor], Tensor], z: Tensor, backward: bool) -> Step:
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
    are, for 10 ms or at least 3 times.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["limit"]) < 7 * 3:
        for name, run in steps.items():
            run()
            began = start = time.perf_counter()
            for calls in itertools.count(1):
                run()
                now = time.perf_counter()
                times[name].append(now - start)
                start = now
                if calls >= 3 and now - began > 1e-2:
                    break
    return {name: statistics.median(each) for name, each in times.items()}


def commit() -> str:
    result = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def run_case(case: Case, backward: bool, threads: int, seconds: float, compiled: bool) -> list[dict[str, object]]:
    torch.set_num_threads(threads)
    z = case.make()[0]
    steps: dict[str, Step] = {"limit": limit(case)}
    wrong = []
    for name, (loss, function) in contenders(case, compiled).items():
        if is_right(case, loss, function):
            steps[name] = step(function, z, backward)
        else:
            wrong.append(name)
    medians = measure(steps, seconds)
    shared = {"case": str(case), "pass": "forward+backward" if backward else "forward", "threads": threads}
    rows: list[dict[str, object]] = [
        shared
        | {"contender": name, "microseconds": round(1e6 * median, 1)}
        | {"ratio to torch bce": round(median / medians["torch bce"], 3)}
        | {"ratio to limit": round(median / medians["limit"], 2)}
        for name, median in medians.items()
    ]
    return rows + [shared | {"contender": name, "microseconds": "wrong, not timed"} for name in wrong]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cpu.csv"))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=8.0, help="per case")
    parser.add_argument("--forward", action="store_true", help="time forward alone as well")
    parser.add_argument("--compiled", action="store_true", help="also the published code under torch.compile")
    parser.add_argument("--cases", nargs="*", help="only cases whose name contains one of these")
    asked = parser.parse_args()
    environment = {"torch": torch.__version__, "lopsided": lopsided.__version__, "commit": commit()}
    environment |= {"processor": _processor(), "python": platform.python_version()}
    rows = []
    for case in CASES:
        if asked.cases and not any(text in str(case) for text in asked.cases):
            continue
        for threads in asked.threads:
            for backward in (True, False) if asked.forward else (True,):
                rows += run_case(case, backward, threads, asked.seconds, asked.compiled)
                print(f"{case}, {threads} threads, {'forward+backward' if backward else 'forward'}", file=sys.stderr)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    with asked.out.open("w", newline="") as file:
        names = [*rows[0], *environment]
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(row | environment for row in rows)
    print(asked.out)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
