"""Times a linear head with its loss at many labels against its three bare matrix products; writes a CSV.

    python benchmarks/linear.py && python benchmarks/tables.py

A step is forward and backward, to the gradients of hidden states and weight, or with the weight updated (SGD) for
`fused_step`. Contenders take turns, as in run.py. Peak memory is that of a process of its own, beside weight, hidden
states and targets. Who does not give the value and gradients of a float64 reference, at fewer labels, is not timed.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import published
import torch
from run import Step, measure, write
from torch import Tensor

import lopsided
from lopsided import FusedSGD, LinearHead, SparseTargets

ROWS, FEATURES, POSITIVES, RATE = 256, 256, 5, 1e-4
LABELS = (131_072, 670_091)
LOSSES = ("bce", "focal", "asl", "apl", "zlpr")
LIMIT = "three products"


@dataclass
class Case:
    """Weights N(0, 1/16^2), hidden states N(0, 1), five positives a row."""

    labels: int
    rows: int = ROWS
    features: int = FEATURES
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    hidden: Tensor = field(init=False)
    weight: Tensor = field(init=False)
    targets: SparseTargets = field(init=False)

    def __post_init__(self) -> None:
        like: dict[str, Any] = {"generator": torch.Generator(self.device).manual_seed(0), "device": self.device}
        self.hidden = torch.randn(self.rows, self.features, dtype=self.dtype, **like).requires_grad_()
        weight = torch.randn(self.labels, self.features, dtype=self.dtype, **like)
        self.weight = weight.div_(16).requires_grad_()
        self.targets = SparseTargets.from_indices(torch.randint(self.labels, (self.rows, POSITIVES), **like))


def dense(case: Case) -> Tensor:
    like: dict[str, Any] = {"dtype": case.dtype, "device": case.device}
    rows = torch.arange(case.rows, device=case.device).repeat_interleave(case.targets.crow.diff())
    return torch.zeros(case.rows, case.labels, **like).index_put_((rows, case.targets.col), torch.ones((), **like))


def autograd(case: Case, loss: str) -> Step:
    def run() -> Tensor:
        case.hidden.grad = case.weight.grad = None
        value = lopsided.linear_loss(case.hidden, case.weight, None, case.targets, loss, reduction="sum")
        value.backward()
        return value

    return run


def fused(case: Case, loss: str) -> Step:
    head = LinearHead(case.features, 1, loss, bias=False, reduction="sum", fused_step=FusedSGD(lr=RATE))
    head.num_labels, head.weight = case.labels, torch.nn.Parameter(case.weight.detach())  # without a copy

    def run() -> Tensor:
        case.hidden.grad = None
        return head.step(case.hidden, case.targets)

    return run


def held(case: Case, function: Callable[[Tensor, Tensor], Tensor]) -> Step:
    """With logits and dense targets, as it is commonly done."""
    y = dense(case)

    def run() -> Tensor:
        case.hidden.grad = case.weight.grad = None
        value = function(case.hidden @ case.weight.T, y)
        value.backward()
        return value

    return run


def limit(case: Case) -> Step:
    """The products of forward and backward, into memory that is there already."""
    hidden, weight = case.hidden.detach(), case.weight.detach()
    logits, gradient = hidden.new_empty(case.rows, case.labels), torch.empty_like(weight)
    slopes = torch.ones_like(logits)

    def run() -> None:
        torch.mm(hidden, weight.T, out=logits)
        torch.mm(slopes, weight)
        torch.mm(slopes.T, hidden, out=gradient)

    return run


def torch_bce(z: Tensor, y: Tensor) -> Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction="sum")


def contenders() -> dict[str, Callable[[Case], Step]]:
    made: dict[str, Callable[[Case], Step]] = {LIMIT: limit}
    for loss in LOSSES:
        made[f"{loss} autograd"] = lambda case, loss=loss: autograd(case, loss)  # type: ignore[misc]
        made[f"{loss} fused_step"] = lambda case, loss=loss: fused(case, loss)  # type: ignore[misc]
    made["bce, logits held"] = lambda case: held(case, torch_bce)
    made["asl, published"] = lambda case: held(case, published.asymmetric)
    for name in (LIMIT, "asl autograd", "asl fused_step"):
        made[f"{name}, oneDNN"] = lambda case, make=made[name]: within(make(case))  # type: ignore[misc]
    return made


def within(step: Step) -> Step:
    def run() -> object:
        with lopsided.onednn_products():
            return step()

    return run


def is_right(name: str, make: Callable[[Case], Step]) -> bool:
    """Value, gradient of hidden and gradient of the weight, or the updated weight, at 20,000 labels."""
    if name.startswith(LIMIT):
        return True
    case = Case(20_000)
    leaves = [leaf.detach().double().requires_grad_() for leaf in (case.hidden, case.weight)]
    logits = leaves[0] @ leaves[1].T
    loss = re.split("[ ,]", name)[0]
    exact = lopsided.functional.multilabel_loss(logits, case.targets, loss, reduction="sum", backend="eager")
    exact.backward()
    before = case.weight.detach().clone()
    value = make(case)()
    gradient = case.weight.grad if case.weight.grad is not None else (before - case.weight.detach()) / RATE
    found = (value, exact), (case.hidden.grad, leaves[0].grad), (gradient, leaves[1].grad)
    return all(bool((a.detach() - b.detach()).abs().max() <= 2e-3 * b.abs().max()) for a, b in found)  # type: ignore


def peak(name: str, labels: int) -> int:
    """Bytes that a step takes at most, beside what was there before it. Linux with glibc."""
    make = contenders()[name]
    small, case = make(Case(3000)), Case(labels)
    small()  # the first time something is called takes memory of its own
    step = make(case)
    del small
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    step()
    return 1024 * (kilobytes("VmHWM") - before)


def kilobytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def run_case(labels: int, seconds: float) -> list[dict[str, object]]:
    made = contenders()
    right = {name: make for name, make in made.items() if is_right(name, make)}
    case = Case(labels)
    medians = measure({name: make(case) for name, make in right.items()}, seconds)
    rows: list[dict[str, object]] = []
    for name in made:
        row: dict[str, object] = {"labels": labels, "threads": torch.get_num_threads(), "contender": name}
        if name not in medians:
            rows.append(row | {"milliseconds": "wrong, not timed"})
            continue
        command = [sys.executable, __file__, "--peak", name, "--labels", str(labels)]
        bytes_ = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        row |= {"milliseconds": round(1e3 * medians[name], 1), "ratio": round(medians[name] / medians[LIMIT], 3)}
        rows.append(row | {"extra peak MB": round(bytes_ / 1e6, 1)})
        print(row, file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/linear.csv"))
    parser.add_argument("--labels", type=int, nargs="+", default=LABELS)
    parser.add_argument("--seconds", type=float, default=60.0, help="per number of labels, at least 3 rounds")
    parser.add_argument("--peak", help="only print the peak memory of one contender")
    asked = parser.parse_args()
    if asked.peak:
        print(peak(asked.peak, asked.labels[0]))
        return
    rows = [row for labels in asked.labels for row in run_case(labels, asked.seconds)]
    write(asked.out, rows)


if __name__ == "__main__":
    main()
