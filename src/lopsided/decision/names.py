"""The names of rules, by which `--decide` chooses one."""

from __future__ import annotations

import re

TUNED = ("per-label", "global", "macro-f1", "expected-f1")
UNTUNED = ("own", "top-K")
TOP = re.compile(r"top-([1-9]\d{0,8})")


def check_name(name: str) -> None:
    """Raises ValueError for anything but the name of a rule."""
    if name not in (*TUNED, "own") and not TOP.fullmatch(name):
        raise ValueError(f"unknown rule {name!r}: known are {', '.join((*TUNED, *UNTUNED))} such as top-5")
