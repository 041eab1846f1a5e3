"""The names of rules, by which `--decide` chooses one."""

from __future__ import annotations

import re

TUNED = ("per-label", "global", "macro-f1", "expected-f1")
UNTUNED = ("own", "top-K")
TOP = re.compile(r"top-([1-9]\d{0,8})")
F_BETA = re.compile(r"f(\d{1,3}(?:\.\d{1,3})?)")  # f2 weighs recall twice as much as precision, f0.5 half as much


def is_tuned(name: str | None) -> bool:
    """Tells whether the rule of that name is made from validation rows.

    >>> is_tuned("global"), is_tuned("f2"), is_tuned("top-5")
    (True, True, False)
    """
    return name is not None and (name in TUNED or F_BETA.fullmatch(name) is not None)


def check_name(name: str) -> None:
    """Raises ValueError for anything but the name of a rule."""
    if name != "own" and not is_tuned(name) and not TOP.fullmatch(name):
        raise ValueError(
            f"unknown rule {name!r}: known are {', '.join((*TUNED, *UNTUNED))} such as top-5, and fB such as f2, which "
            "misses fewer labels, or f0.5, which predicts fewer wrong ones"
        )
