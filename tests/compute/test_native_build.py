"""The C library as it is printed and compiled."""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lopsided.compute import graph
from lopsided.compute.native import printer, sources
from lopsided.compute.native import run as native
from lopsided.losses import CATALOG, formula
from lopsided.targets import Supervision
from tests.batches import batch
from tests.compute.test_native import compare

ROOT = Path(__file__).parents[2]


def test_the_printed_curves_are_those_of_today() -> None:
    assert (ROOT / "csrc/curves.inc").read_text() == printer.print_all(), (
        "run: python -m lopsided.compute.native.printer"
    )


def test_branching_on_a_logit_cannot_be_printed() -> None:
    with pytest.raises(TypeError, match="may branch on its settings, not on z"):
        bool(graph.Z >= 0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="compiles with cc")
@pytest.mark.parametrize("flags", [("-O2",), ("-O2", "-march=native")], ids=["baseline", "this processor"])
def test_elementary_functions_are_within_four_units_in_the_last_place(tmp_path: Path, flags: tuple[str, ...]) -> None:
    program = tmp_path / "ulps"
    compile_c(program, *flags, "-fno-math-errno", "-fno-trapping-math", f"-I{ROOT / 'csrc'}", source="tests/ulps.c")
    lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
    worst = {name: float(error) for name, error in map(str.split, lines)}
    assert len(worst) == 5
    assert max(worst.values()) <= 4, worst


def compile_c(path: Path, *flags: str, source: str = "csrc/lopsided.c") -> None:
    try:
        command = ["cc", "-std=gnu11", "-fopenmp", *flags, str(ROOT / source), "-o", str(path), "-lm"]
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no C compiler here")


def built(tmp_path: Path, *flags: str) -> ctypes.CDLL:
    """The library compiled here, as no clone for a better processor."""
    path = tmp_path / "baseline.so"
    compile_c(path, "-O2", "-shared", "-fPIC", *flags)
    return ctypes.CDLL(str(path))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="compiles with cc")
def test_the_baseline_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline = built(tmp_path, "-DLOPSIDED_BASELINE")
    monkeypatch.setattr(native, "library", lambda: baseline)
    z, y = batch(5, 530)
    for name in CATALOG:
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            compare(formula(name), z.to(dtype), Supervision(y))


def test_a_library_of_other_sources_is_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that was built before a line was changed: its numbers may be wrong, and nothing else tells."""
    if isinstance(native.library(), str):
        pytest.skip("no C library")
    shutil.copytree(ROOT / "csrc", tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    assert not isinstance(native.library.__wrapped__(), str)
    with (tmp_path / "rows.h").open("a") as file:
        file.write("// changed")
    assert native.library.__wrapped__() == native.STALE
    monkeypatch.setattr(native, "_built_from", lambda loaded: sources.digest())
    assert not isinstance(native.library.__wrapped__(), str)


def test_an_installed_library_has_no_sources_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FOLDER", tmp_path / "csrc")
    assert sources.digest() is None
    assert native.library.__wrapped__() != native.STALE
