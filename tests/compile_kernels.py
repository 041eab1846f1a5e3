"""Compiles the Triton kernels, for a GPU that need not be there, for odd shapes and every way of saying labels.

    python tests/compile_kernels.py cuda

Integers that are 1 are constants of the compiler, None is of another type than a tensor: the interpreter sees neither.
"""

import itertools
import sys
from pathlib import Path

import torch
from torch import Tensor
from triton.runtime import driver

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import instructions  # noqa: E402

from lopsided.compute.triton import run as triton  # noqa: E402
from lopsided.losses import formula  # noqa: E402
from tests.batches import batch, said  # noqa: E402

SHAPES = (1, 1), (3, 7), (2, 40_000)
DTYPES = torch.float32, torch.bfloat16, torch.float16
LOSSES = "asl", "zlpr", "softmax", "bp_mll", "lsep", "bce", "hill", "atl", "decoupled", "mean_sat", "hinge_abl", "ncrl"


def compile_case(number: int, rows: int, labels: int, way: int) -> int:
    """One of the ways; loss, dtype and what comes from above change with the number. How many kernels there were."""
    z, y = batch(rows, labels)
    z, loss = z.to(DTYPES[number % 3]), formula(LOSSES[number % len(LOSSES)])
    scales: list[float | Tensor] = [0.5, torch.ones(()), torch.ones(rows)]
    gradient = torch.empty_like(z) if number % 4 else None
    job = triton._Job(z, said(z.double(), y)[way], z.shape, loss, gradient, scales[number % 3])
    return len(instructions.compile_step(job, loss))


def main(target: str, every: int = 1) -> None:
    driver.set_active(instructions.NoGPU(instructions.TARGETS[target]))
    torch.use_deterministic_algorithms(True)  # the first of the tiles
    ways = len(said(*batch(1, 1)))
    cases = list(enumerate(itertools.product(SHAPES, range(ways))))[::every]
    print(sum(compile_case(number, *shape, way) for number, (shape, way) in cases), "kernels compiled")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
