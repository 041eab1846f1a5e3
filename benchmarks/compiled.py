"""Times a training step with the loss in the compiled graph against one with the loss outside; writes a CSV.

    python benchmarks/compiled.py && python benchmarks/tables.py

The step is forward and backward of a linear layer of 256 inputs and a loss, on one thread. Contenders take turns as in
`run.py`. Beside it the loss alone, compiled and not: what torch adds to any compiled function weighs in so little work.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import torch
from contenders import Case
from run import Rows, Step, measure, run_parts, step
from torch import Tensor, nn

import lopsided

CASES = [Case(256, 80, torch.float32, "float"), Case(128, 10_000, torch.float32, "float")]
LOSSES = ("torch bce", "bce", "asl", "zlpr", "lsep", "two_way")


def criterion_of(loss: str) -> nn.Module:
    return nn.BCEWithLogitsLoss() if loss == "torch bce" else lopsided.MultiLabelLoss(loss)


def steps(loss: str, case: Case) -> dict[str, Step]:
    (z, y), criterion = case.make(), criterion_of(loss)
    layer, x = nn.Linear(256, case.labels), torch.randn(case.rows, 256)
    compiled = torch.compile(layer, dynamic=False)

    def of(z: Tensor) -> Tensor:
        value: Tensor = criterion(z, y)
        return value

    def train(function: Callable[[Tensor], Tensor]) -> Step:
        def run() -> None:
            layer.zero_grad()
            function(x).backward()

        return run

    return {
        "loss outside": train(lambda x: of(compiled(x))),
        "loss inside": train(torch.compile(lambda x: of(layer(x)), dynamic=False)),
        "alone": step(of, z, True),
        "alone, compiled": step(torch.compile(of, dynamic=False), z, True),
    }


def breaks(loss: str, case: Case) -> int:
    z, y = case.make()
    return int(torch._dynamo.explain(criterion_of(loss))(z.requires_grad_(), y).graph_break_count)


def run_loss(part: tuple[Case, str], seconds: float) -> Rows:
    case, loss = part
    torch.compiler.reset()
    found = measure(steps(loss, case), seconds)
    torch.compiler.reset()
    times: dict[str, object] = {f"{name} us": round(1e6 * median, 1) for name, median in found.items()}
    ratios: dict[str, object] = {
        "inside to outside": round(found["loss inside"] / found["loss outside"], 2),
        "compiled to alone": round(found["alone, compiled"] / found["alone"], 2),
    }
    return [{"case": str(case), "loss": loss, "graph breaks": breaks(loss, case), **times, **ratios}]


if __name__ == "__main__":
    run_parts(__doc__, Path("benchmarks/results/compiled.csv"), itertools.product(CASES, LOSSES), run_loss)
