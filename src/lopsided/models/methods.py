"""Names what may be trained on a body: a loss on label scores, one made from label counts too, or label powerset."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lopsided.losses import Balanced, Formula, balanced, formula, is_balanced

_POWERSET = re.compile(r"\s*powerset\s*(\(\s*(max_sets\s*=\s*(\d{1,9})\s*)?\))?\s*")
_MAX_SETS = 1000


@dataclass(frozen=True)
class Powerset:
    """Names label powerset as one of the things to compare: the most frequent label sets are classes of a softmax."""

    max_sets: int = _MAX_SETS

    def __str__(self) -> str:
        return f"powerset(max_sets={self.max_sets})"


Method = Formula | Balanced | Powerset


def parse_method(spec: str) -> Method:
    """Reads a loss by name, such as "asl" or "db", or "powerset" or "powerset(max_sets=200)".

    >>> print(parse_method("powerset"))
    powerset(max_sets=1000)
    """
    if not spec.strip().startswith("powerset"):
        return balanced(spec) if is_balanced(spec) else formula(spec)
    match = _POWERSET.fullmatch(spec)
    if match is None or match[3] == "0":
        raise ValueError(f"cannot read {spec[:60]!r}: write powerset or powerset(max_sets=N) with N > 0")
    return Powerset(int(match[3] or _MAX_SETS))
