"""Compiles the Triton kernels for a GPU that need not be there, and counts the instructions of their loops.

    python benchmarks/instructions.py --out benchmarks/results/gpu_instructions.csv

For sm_90 the loops are disassembled. Where a loop takes more instructions for an element than the GPU can issue while
it copies as many bytes, the copy is no limit any more: "issue bound" is the share of the copy's speed that is left, for
an H200 (132 multiprocessors, 128 instructions of a thread each clock at 1.755 GHz, copies at 4.3 TB/s). It is
arithmetic, no measurement: latencies, cache misses and launches come on top. "positives" says whether the tile has one.
For AMD's gfx942 only registers are looked at.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import triton
from run import environment
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

import lopsided
from lopsided import SparseTargets
from lopsided.compute.triton import run as executor
from lopsided.losses import CATALOG, Formula, Sum
from lopsided.targets import Supervision

TARGETS = {"cuda": GPUTarget("cuda", 90, 32), "hip": GPUTarget("hip", "gfx942", 64)}
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
ISSUED, COPIED = 132 * 128 * 1.755e9, 4.3e12  # instructions of threads, and bytes, in a second
SHAPE = 64, 131_072
LOSSES = "bce", "focal", "asl", "apl", "zlpr", "atl", "mean_sat", "hinge_abl", "decoupled", "ncrl"
BYTES = {"float32": 4, "bfloat16": 2, "uint8": 1, "sparse": 0}


class NoGPU:
    """As much of a driver as compiling asks for."""

    def __init__(self, target: GPUTarget) -> None:
        self.get_current_target = lambda: target
        self.get_current_device = lambda: 0
        self.get_current_stream = lambda device=None: 0


class Compiling:
    """A kernel that is compiled where it should be launched."""

    def __init__(self, kernel: Any, made: list[tuple[str, Any]]) -> None:
        self.kernel, self.made, self.__name__ = kernel, made, kernel.__name__

    def __getitem__(self, grid: Any) -> Any:
        return lambda *given, **options: self.made.append(
            (self.__name__, self.kernel.warmup(*given, grid=grid, **options))
        )


def compile_kernels(name: str, logits: str, targets: str) -> list[tuple[str, Any]]:
    """(kernel, what the compiler made) of all that a step launches."""
    z = torch.empty(SHAPE, dtype=getattr(torch, logits))
    labels = Supervision(torch.empty(SHAPE, dtype=getattr(torch, targets))) if targets != "sparse" else None
    labels = labels or Supervision.of(SparseTargets(torch.zeros(SHAPE[0] + 1, dtype=torch.long), torch.zeros(8).long()))
    loss = lopsided.losses.formula(name)
    return compile_step(executor._Job(z, labels, z.shape, loss, torch.empty_like(z), 1.0), loss)


def compile_step(job: Any, loss: Formula) -> list[tuple[str, Any]]:
    """The same for a job of the executor."""
    made: list[tuple[str, Any]] = []
    names = "sum_rows", "fold_rows", "finish_rows"
    kernels = {each: Compiling(getattr(job.kernels, each), made) for each in names}
    job.kernels = SimpleNamespace(How=job.kernels.How, **kernels)
    if isinstance(loss.pool, Sum):
        job.sum()
    else:
        job.finish(job.fold_whole())
    return made


def disassemble(cubin: bytes) -> tuple[list[str], dict[str, int], str]:
    """Instructions, the place of each label among them, and what resources are used."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = _output(TOOLS / "nvdisasm", "-c", file.name)
        resources = _output(TOOLS / "cuobjdump", "--dump-resource-usage", file.name)
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if found := re.match(r"(\.L\w+):", line):
            labels[found[1]] = len(instructions)
        elif found := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?);", line):
            instructions.append(found[1])
    return instructions, labels, resources


def _output(*line: Any) -> str:
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout


def longest_even_loop(cubin: bytes) -> tuple[int, int]:
    """Instructions of the first loop over whole tiles, and how many of them a tile without a positive leaves out."""
    instructions, labels, _ = disassemble(cubin)
    jumps = [(at, re.search(r"BRA.*`\((\.L\w+)\)", text)) for at, text in enumerate(instructions)]
    known = [(at, labels[found[1]]) for at, found in jumps if found and found[1] in labels]
    loops = [(back, at) for at, back in known if back < at - 100]
    start, end = min(loops, key=lambda loop: (loop[0], -loop[1]))
    skips = [to - at for at, to in known if start <= at < to <= end]
    inner = sum(at - back + 1 for at, back in known if start < back <= at < end)
    count, left_out = end - start + 1 - inner, max(skips, default=0)
    assert 0 <= left_out < count, "this disassembly is laid out in another way than those of Triton 3.7"
    return count, left_out


def describe(name: str, logits: str, targets: str, target: str) -> list[dict[str, object]]:
    tile = executor.TILES[0]
    each = tile.elements // (32 * tile.warps)
    rows: list[dict[str, object]] = []
    for kernel, made in compile_kernels(name, logits, targets):
        row: dict[str, object] = {"loss": name, "logits": logits, "targets": targets, "kernel": kernel}
        if target == "hip":
            spilled = re.search(r"\.vgpr_spill_count:\s+(\d+)", made.asm["amdgcn"])
            rows.append(row | {"spilled": int(spilled[1]) if spilled else "unknown"})
            continue
        usage = {key: int(number) for key, number in re.findall(r"(\w+):(\d+)", disassemble(made.asm["cubin"])[2])}
        row |= {"registers": usage["REG"], "spilled": usage["LOCAL"] + usage["STACK"]}
        count, left_out = longest_even_loop(made.asm["cubin"])
        moved = BYTES[logits] * (1 if kernel == "fold_rows" else 2) + BYTES[targets]
        for positives, number in (("some", count), ("none", count - left_out)) if left_out > 50 else (("any", count),):
            bound = (moved / COPIED) / (number / each / ISSUED)
            row |= {"positives": positives, "instructions": round(number / each, 1), "bytes": moved}
            rows.append(row | {"issue bound": round(min(bound, 1), 2)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a CSV, else it is printed")
    parser.add_argument("--target", choices=list(TARGETS), default="cuda")
    parser.add_argument("--losses", nargs="+", default=LOSSES, choices=list(CATALOG))
    parser.add_argument("--quick", action="store_true", help="bfloat16 logits only")
    asked = parser.parse_args()
    driver.set_active(NoGPU(TARGETS[asked.target]))
    torch.use_deterministic_algorithms(True)  # the first of the tiles
    rows: list[dict[str, object]] = []
    for name, logits in itertools.product(asked.losses, ("bfloat16",) if asked.quick else ("bfloat16", "float32")):
        for targets in ("uint8", "sparse", *(() if asked.quick else ("float32",))):
            rows += describe(name, logits, targets, asked.target)
    columns = ["loss", "logits", "targets", "kernel", "registers", "spilled", "positives", "instructions", "bytes"]
    columns += ["issue bound"]
    shared = {"triton": triton.__version__, "target": asked.target, "commit": environment()["commit"]}
    with asked.out.open("w", newline="") if asked.out else sys.stdout as file:
        writer = csv.DictWriter(file, [*columns, *shared], restval="")
        writer.writeheader()
        writer.writerows(row | shared for row in rows)


if __name__ == "__main__":
    main()
