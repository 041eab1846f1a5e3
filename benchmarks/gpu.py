"""Times losses on a GPU against torch's own, the published way, torch.compile and the limit; writes two CSVs.

    python benchmarks/gpu.py && python benchmarks/tables.py

The second command puts the tables of `docs/gpu.md` in line. A step is forward and backward. Contenders of a case take
turns; each call is timed by events on the device and has the next of several sets of inputs, together larger than the
cache; figures are medians. The limit of a loss is the bytes that it must move, divided by the bandwidth of a copy of a
gigabyte in the same run. Who does not give the value and gradient of a float64 reference, of some rows, is not timed.

The head: hidden states of 1024 rows and 768 features in bfloat16, against its three bare matrix products.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import linear
import torch
from contenders import PUBLISHED, Case
from run import environment
from tables import LOSSES
from torch import Tensor

import lopsided
from lopsided import SparseTargets
from lopsided.compute import choose
from lopsided.losses import Sum

Targets = Tensor | SparseTargets
Function = Callable[[Tensor, Targets], Tensor]
SHAPES = ((4096, 80), (1024, 10_000), (4096, 131_072), (64, 3_000_000))
KINDS = ("uint8", "float", "sparse")
DTYPES = (torch.bfloat16, torch.float32)
HEADS = (131_072, 3_000_000)
CHECKED = 1 << 22  # logits that are compared with the reference


@dataclass(frozen=True)
class Batch:
    z: Tensor
    y: Tensor  # as float
    said: Targets

    @classmethod
    def of(cls, case: Case, seed: int, device: str, rows: int) -> Batch:
        """The inputs of contenders.py, made on the device."""
        generator = torch.Generator(device).manual_seed(seed)
        shape = rows, case.labels
        z = (2 * torch.randn(shape, generator=generator, device=device) - 3).to(case.dtype)
        positive = torch.rand(shape, generator=generator, device=device) < min(0.03, 20 / case.labels)
        y = positive.to(case.dtype)
        if case.targets == "float":
            return cls(z, y, y)
        if case.targets == "uint8":
            return cls(z, y, positive.to(torch.uint8))
        crow = torch.nn.functional.pad(positive.sum(1).cumsum(0), (1, 0))
        return cls(z, y, SparseTargets(crow, positive.nonzero()[:, 1]))


def contenders(case: Case, quick: bool) -> Iterator[tuple[str, str, Function]]:
    """(name, loss, function of logits and targets). Only ours hears of uint8 and sparse targets: others get floats."""
    for loss in LOSSES:
        module = lopsided.MultiLabelLoss(loss, reduction="sum")
        yield f"{loss} ours", loss, module
        if not quick:
            yield f"{loss} ours, compiled", loss, torch.compile(module, dynamic=False)
        if case.targets == "float" and loss in PUBLISHED:
            yield f"{loss} published", loss, PUBLISHED[loss]
            if not quick:
                yield f"{loss} published, compiled", loss, torch.compile(PUBLISHED[loss], dynamic=False)
    if case.targets == "float":
        yield "torch bce", "bce", partial(torch.nn.functional.binary_cross_entropy_with_logits, reduction="sum")
        try:
            from torchvision.ops import sigmoid_focal_loss  # type: ignore[import-not-found]
        except ImportError:
            return
        yield "focal torchvision", "focal", partial(sigmoid_focal_loss, alpha=-1, gamma=2, reduction="sum")


def step(function: Function, z: Tensor, said: Targets) -> tuple[Tensor, Tensor]:
    leaf = z.detach().requires_grad_()
    value = function(leaf, said)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def step_in_turn(function: Function, sets: list[Batch], turn: int) -> object:
    batch = sets[turn % len(sets)]
    return step(function, batch.z, batch.said)


def ignoring_turn(run: Callable[[], object], turn: int) -> object:
    return run()


def is_right(case: Case, loss: str, function: Function, device: str) -> bool:
    batch = Batch.of(case, 0, device, min(max(CHECKED // case.labels, 1), case.rows))
    reference = partial(lopsided.functional.multilabel_loss, loss=loss, reduction="sum", backend="eager")
    value, gradient = step(reference, batch.z.double(), batch.y.double())
    found, slopes = step(function, batch.z, batch.said)
    room = 2e-3 if case.dtype == torch.float32 else 5e-2
    worst = (slopes.double() - gradient).abs().max() / gradient.abs().max()
    return bool((found - value).abs() / value < room) and bool(worst < room)


def timed(run: Callable[[], object], device: str) -> float:
    """Seconds."""
    if device == "cpu":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    run()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after)) / 1e3


def measure(steps: dict[str, Callable[[int], object]], seconds: float, device: str) -> dict[str, float | str]:
    """Median seconds of each, over rounds in which all take turns, or why there is none. `steps` take a number."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    failed: dict[str, str] = {}
    end = time.perf_counter() + seconds
    for turn in itertools.count():
        for name, run in steps.items():
            try:
                took = 0.0 if name in failed else timed(partial(run, turn), device)
            except torch.cuda.OutOfMemoryError:
                failed[name] = "out of memory"
            times[name] += [took] if turn >= 3 and name not in failed else []  # at first kernels are compiled
        if turn >= 5 and time.perf_counter() > end:
            break
    return {name: failed.get(name) or statistics.median(each) for name, each in times.items()}


def copied(device: str) -> float:
    """Bytes a second that a copy reads and writes."""
    size = 1 << 30 if device == "cuda" else 1 << 20
    source, out = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    took = measure({"copy": lambda _: out.copy_(source)}, 1.0, device)["copy"]
    assert isinstance(took, float)
    return 2 * size / took


def moved(case: Case, loss: str) -> int:
    """Bytes of a logit: read, with its target, once or for pools of exponentials twice, and its gradient written."""
    said = {"uint8": 1, "float": case.dtype.itemsize, "sparse": 0}[case.targets]
    times = 1 if isinstance(lopsided.losses.formula(loss).pool, Sum) else 2
    return times * (case.dtype.itemsize + said) + case.dtype.itemsize


def run_case(case: Case, seconds: float, quick: bool, device: str) -> list[dict[str, object]]:
    torch.compiler.reset()
    cache = torch.cuda.get_device_properties(0).L2_cache_size if device == "cuda" else 0
    size = case.rows * case.labels * 2 * case.dtype.itemsize
    sets = [Batch.of(case, seed, device, case.rows) for seed in range(2 + 3 * cache // size)]
    steps: dict[str, Callable[[int], object]] = {}
    wrong, losses = [], {}
    for name, loss, function in contenders(case, quick):
        losses[name] = loss
        if is_right(case, loss, function, device):
            steps[name] = partial(step_in_turn, function, sets)
        else:
            wrong.append(name)
    bandwidth, found = copied(device), measure(steps, seconds, device)
    rows: list[dict[str, object]] = []
    for name, loss in losses.items():
        row: dict[str, object] = {"case": str(case), "contender": name, "copy TB/s": round(bandwidth / 1e12, 3)}
        limit = moved(case, loss) * case.rows * case.labels / bandwidth
        took = found.get(name, "wrong, not timed")
        row |= {"executor": choose("auto", lopsided.losses.formula(loss), sets[0].z).NAME if "ours" in name else ""}
        if isinstance(took, float):
            rows.append(row | {"milliseconds": round(1e3 * took, 4), "share of limit": round(limit / took, 3)})
        else:
            rows.append(row | {"milliseconds": took})
    return rows


def run_head(
    labels: int, seconds: float, device: str, rows: int = 1024, features: int = 768
) -> list[dict[str, object]]:
    """Time of a head's step, and its peak memory beside weight, hidden states and sparse targets."""
    case = linear.Case(labels, rows, features, torch.bfloat16 if device == "cuda" else torch.float32, device)
    made = {name: make for name, make in linear.contenders().items() if "oneDNN" not in name}
    steps: dict[str, Callable[[int], object]] = {}
    peaks: dict[str, float] = {}
    for name, make in made.items():
        before = torch.cuda.memory_allocated()
        try:
            run = make(case)
            run()  # kernels are compiled and tiles timed, which takes memory of its own
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                run()
                peaks[name] = (torch.cuda.max_memory_allocated() - before) / (1 << 30)
            steps[name] = partial(ignoring_turn, run)
        except torch.cuda.OutOfMemoryError:
            pass
        case.hidden.grad = case.weight.grad = None
    found = measure(steps, seconds, device)
    limit = found[linear.LIMIT]
    assert isinstance(limit, float)
    out: list[dict[str, object]] = []
    for name in made:
        took = found.get(name, "out of memory")
        row: dict[str, object] = {
            "labels": labels,
            "contender": name,
            "extra peak GiB": round(peaks.get(name, 0.0), 2) or "",
        }
        known = isinstance(took, float)
        row |= {"milliseconds": round(1e3 * float(took), 3) if known else took}
        out.append(row | ({"ratio": round(float(took) / limit, 3)} if known else {}))
    return out


def machine(device: str) -> dict[str, object]:
    found: dict[str, Any] = dict(environment())
    if device == "cuda":
        import triton

        found |= {"device": torch.cuda.get_device_name(), "triton": triton.__version__}
    return found


def write(path: Path, rows: list[dict[str, object]], device: str) -> None:
    shared = machine(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        names = dict.fromkeys(itertools.chain.from_iterable(rows))
        writer = csv.DictWriter(file, [*names, *shared], restval="")
        writer.writeheader()
        writer.writerows(row | shared for row in rows)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results"), help="folder of gpu.csv, gpu_linear.csv"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="per case")
    parser.add_argument("--quick", action="store_true", help="no torch.compile")
    parser.add_argument("--shapes", nargs="*", default=[f"{rows}x{labels}" for rows, labels in SHAPES])
    parser.add_argument("--heads", nargs="*", type=int, default=list(HEADS), help="numbers of labels")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: only to see that this runs")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a GPU, and torch sees none: nothing was measured")
    rows: list[dict[str, object]] = []
    for shape, dtype, kind in itertools.product(asked.shapes, DTYPES, KINDS):
        in_batch, labels = map(int, shape.split("x"))
        case = Case(in_batch, labels, dtype, kind)
        rows += run_case(case, asked.seconds, asked.quick, asked.device)
        print(case, file=sys.stderr)
    write(asked.out / "gpu.csv", rows, asked.device)
    heads = [row for labels in asked.heads for row in run_head(labels, 4 * asked.seconds, asked.device)]
    if heads:
        write(asked.out / "gpu_linear.csv", heads, asked.device)


if __name__ == "__main__":
    main()
