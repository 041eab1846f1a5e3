"""Says how the threads of torch wait for each other: asleep, or busy, as OpenMP lets them by default.

Those that wait busily keep a core from whatever has something to do on it: beside other programs on both of two cores,
`fit` of Bibtex had not ended after 300 s, and takes 38 s where they sleep.
"""

from __future__ import annotations

import os
import sys

_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # of the standard, of GNU and of LLVM


def wait_asleep() -> None:
    """Lets threads wait asleep, unless the environment says how they wait, or torch has read that already."""
    if "torch" not in sys.modules and not any(name in os.environ for name in _SETTINGS):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def how_they_wait() -> str:
    """Says what is in force."""
    set_to = [f"{name}={os.environ[name]}" for name in _SETTINGS if name in os.environ]
    return f"threads wait as {', '.join(set_to)} says" if set_to else "threads wait busily, as OpenMP's do by default"
