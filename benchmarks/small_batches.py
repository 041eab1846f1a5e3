"""Times all losses on 256 rows of 80 labels, whatever is said of the labels, against torch's own BCE; writes a CSV.

    python benchmarks/small_batches.py && python benchmarks/tables.py

For so few logits Python and autograd take as long as the loss. Contenders of a loss take turns with torch's BCE as in
`run.py`; forward and backward, reduced to the mean, one thread. What differs from the eager executor in float64 is not
timed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contenders import Case
from run import Rows, measure, run_parts, step
from tables import SMALL_LOSSES
from torch import Tensor, nn

import lopsided
from lopsided import SparseTargets

CASE = Case(256, 80, torch.float32, "float")
Function = Callable[[Tensor], Tensor]


def said(z: Tensor, y: Tensor) -> dict[str, tuple[Tensor | SparseTargets, dict[str, Any]]]:
    """What is said of the labels -> targets, and keywords of `multilabel_loss`, in the order of the table."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.rand(z.shape[1:], generator=generator) + 0.5
    known = torch.rand(z.shape, generator=generator) < 0.9
    listed = SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in y])
    row_weight = torch.rand(z.shape[:1], generator=generator)
    return {
        "targets": (y, {}),
        "sparse targets": (listed, {}),
        "mask": (y, {"mask": known}),
        "weight": (y, {"weight": weight}),
        "pos_weight": (y, {"pos_weight": weight}),
        "row_weight": (y, {"row_weight": row_weight}),
        "NaN": (y.masked_fill(~known, torch.nan), {}),
    }


def is_right(function: Function, reference: Function, z: Tensor) -> bool:
    """Does it give the value and the gradient of the reference in float64?"""
    leaf, exact = z.clone().requires_grad_(), z.double().requires_grad_()
    value, expected = function(leaf), reference(exact)
    value.backward()
    expected.backward()
    assert leaf.grad is not None
    assert exact.grad is not None
    worst = (leaf.grad.double() - exact.grad).abs().max() / exact.grad.abs().max()
    return bool((value - expected).abs() / expected < 1e-5) and bool(worst < 1e-5)


def run_loss(loss: str, seconds: float) -> Rows:
    z, y = CASE.make()
    steps = {"torch bce": step(partial(nn.functional.binary_cross_entropy_with_logits, target=y), z, True)}
    wrong = []
    for what, (targets, options) in said(z, y).items():
        if loss == "two_way" and what == "row_weight":
            continue  # it compares rows
        function, reference = (
            partial(lopsided.functional.multilabel_loss, targets=targets, loss=loss, backend=backend, **options)
            for backend in ("auto", "eager")
        )
        if is_right(function, reference, z):
            steps[what] = step(function, z, True)
        else:
            wrong.append(what)
    medians = measure(steps, seconds)
    shared = {"case": str(CASE), "loss": loss}
    rows: Rows = [
        shared
        | {"said": what, "microseconds": round(1e6 * median, 1)}
        | {"ratio to torch bce": round(median / medians["torch bce"], 2)}
        for what, median in medians.items()
    ]
    return rows + [{**shared, "said": what, "microseconds": "wrong, not timed"} for what in wrong]


if __name__ == "__main__":
    run_parts(__doc__, Path("benchmarks/results/small_batches.csv"), SMALL_LOSSES, run_loss)
