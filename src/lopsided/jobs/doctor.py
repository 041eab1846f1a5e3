"""Tells what runs here, and why: versions, devices, threads, executors."""

from __future__ import annotations

import platform

import torch

from lopsided import __version__
from lopsided.compute.native import run as native
from lopsided.compute.triton import run as triton
from lopsided.jobs.threads import how_they_wait
from lopsided.losses import CATALOG

_REPAIR = (
    "install a C compiler, then: pip install --force-reinstall --no-deps --no-cache-dir lopsided "
    "(or pip install -e . in a checkout)"
)


def findings() -> dict[str, str]:
    """Returns a line per subject, for `lopsided doctor`."""
    loaded = native.library()
    lines = {
        "lopsided": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "torch": f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": f"{torch.get_num_threads()} (torch.set_num_threads or OMP_NUM_THREADS changes that)",
        "waiting": f"{how_they_wait()} (OMP_WAIT_POLICY=ACTIVE or PASSIVE, set before, changes that)",
        "devices": ", ".join(["cpu", *(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))]),
        "executor on GPUs": _on_gpus(),
    }
    if isinstance(loaded, str):
        return lines | {"executor": f"streamed, plain torch: {loaded}", "repair": _REPAIR}
    return lines | {
        "executor": f"native on the CPU: {loaded._name}",
        "native losses": ", ".join(_served()),
        "otherwise": "streamed, plain torch: losses of your own, other devices; eager for backend='eager'",
    }


def _on_gpus() -> str:
    loaded = triton.library()
    if isinstance(loaded, str):
        return f"streamed, plain torch: {loaded}"
    if torch.cuda.is_available() and (reason := triton.failure(torch.device("cuda", torch.cuda.current_device()))):
        return f"streamed, plain torch: {reason}"
    return f"triton {loaded.triton.__version__}{', interpreted on the CPU' if triton.is_interpreted() else ''}"


def _served() -> list[str]:
    row = torch.zeros(1, 2)
    return [name for name, make in CATALOG.items() if native.refusal(make(), row) is None]
