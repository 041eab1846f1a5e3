"""The Triton executor without a GPU: its tests by the interpreter, and its kernels compiled for GPUs elsewhere."""

import csv
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lopsided.compute import choose
from lopsided.compute.triton import printer
from lopsided.compute.triton import run as triton
from lopsided.jobs.doctor import findings
from lopsided.losses import CATALOG

ROOT = Path(__file__).parents[2]


def _has_triton() -> bool:
    try:
        return tuple(map(int, version("triton").split(".")[:2])) >= triton.OLDEST
    except PackageNotFoundError:
        return False


needs_triton = pytest.mark.skipif(not _has_triton(), reason="a Triton that serves is not installed")


def run(*arguments: str, **environment: str) -> str:
    line = [sys.executable, *arguments]
    result = subprocess.run(line, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
@needs_triton
def test_all_that_the_interpreter_can_run() -> None:
    """In a process of its own: whether Triton interprets is decided for good when it is imported."""
    files = "tests/compute/test_triton.py", "tests/compute/test_triton_kernels.py"
    options = ["-q", "-p", "no:cacheprovider", "-p", "tests.patched_once", *files]
    assert " passed" in run("-m", "pytest", *options, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("target", ["cuda", "hip"])
def test_kernels_compile_for_gpus_that_are_not_here(target: str) -> None:
    """NVIDIA's sm_90 and AMD's gfx942; some of the cases."""
    assert "kernels compiled" in run("tests/compile_kernels.py", target, "8")


@pytest.mark.slow
@needs_triton
def test_loops_keep_what_they_compute_in_registers() -> None:
    text = run("benchmarks/instructions.py", "--losses", "asl", "zlpr", "--quick")
    lines = list(csv.DictReader(text.splitlines()))
    assert {(line["loss"], line["targets"]) for line in lines} == set(product(("asl", "zlpr"), ("uint8", "sparse")))
    for line in lines:
        assert int(line["spilled"]) <= 16, line
        assert 5 < float(line["instructions"]) < 90, line


def test_the_printed_curves_are_those_of_today() -> None:
    printed = (ROOT / "src/lopsided/compute/triton/curves.py").read_text()
    assert printed == printer.print_all(), "run: python -m lopsided.compute.triton.printer"


@needs_triton
def test_an_old_triton_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triton.__version__", "3.6.0")
    triton.library.cache_clear()
    try:
        assert triton.library() == "Triton 3.6.0 is older than 3.7"
    finally:
        triton.library.cache_clear()


def test_a_loss_on_a_gpu_is_left_to_plain_torch_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "library", lambda: "Triton is not installed (pip install triton)")
    assert findings()["executor on GPUs"] == "streamed, plain torch: Triton is not installed (pip install triton)"
    for name in CATALOG:
        assert not triton.serves(name, "cuda")
    assert "Triton is not installed" in str(triton.refusal(CATALOG["asl"](), torch.zeros(1, 2)))


@needs_triton
def test_where_kernels_cannot_be_built_plain_torch_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a C compiler or the headers of Python, which Triton needs when it runs."""

    class Broken(dict[tuple[int], object]):
        def __missing__(self, grid: tuple[int]) -> object:
            raise RuntimeError("Failed to find C compiler")

    loss, z = CATALOG["asl"](), torch.zeros(1, 2)
    monkeypatch.setattr(triton, "library", lambda: SimpleNamespace(rescale=Broken()))
    monkeypatch.setattr(triton, "DEVICES", ("cpu",))
    monkeypatch.setattr(triton, "_failures", {})
    monkeypatch.setattr(triton, "_is_captured", lambda: True)
    assert triton.refusal(loss, z) is None
    monkeypatch.setattr(triton, "_is_captured", lambda: False)
    assert triton.refusal(loss, z) == "Triton cannot run a kernel on cpu: Failed to find C compiler"
    assert choose("auto", loss, z).NAME == "streamed"
    with pytest.raises(RuntimeError, match=r"backend='triton' cannot run: .* Failed to find C compiler"):
        choose("triton", loss, z)


@needs_triton
def test_every_loss_of_the_catalog_is_served_on_gpus() -> None:
    assert all(triton.serves(name, "cuda") for name in CATALOG)
    assert not triton.serves("asl", "cpu")
    assert not triton.serves("", "cuda")
    assert triton.refusal(CATALOG["asl"](), torch.zeros(1, 2)) == "it serves GPUs, and the logits are on cpu"
    assert findings()["executor on GPUs"].startswith("triton 3")
