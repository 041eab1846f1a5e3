"""Reads the numbers that people write, with a point or a comma before the fraction."""

from __future__ import annotations

import re

MISSING = frozenset(("", "?", "na", "n/a", "nan", "null", "none"))  # in lower case, where a number could stand
_LONGEST = 1000  # characters
_OTHER = {",": ".", ".": ","}
_WRITTEN = {
    sign: re.compile(rf"[-+]?(?:\d+|[1-9]\d{{0,2}}(?:[{other}]\d{{3}})+)?(?:[{sign}]\d*)?(?:[eE][-+]?\d+)?", re.ASCII)
    for sign, other in _OTHER.items()
}


def number_in(text: str, decimal: str | None = None) -> float | None:
    """Returns the number that a text writes; None if it is none. An underscore, as in 1_000, is no digit.

    decimal: the sign before the fraction, "," or "."; the other one may then stand between groups of three digits. None
    for a point, and nothing between groups. A number with groups does not begin with 0.

    >>> number_in("3.14"), number_in("3,14"), number_in("3,14", ","), number_in("1.234,5", ","), number_in("1,234", ".")
    (3.14, None, 3.14, 1234.5, 1234.0)
    """
    text = text.strip()
    if len(text) > _LONGEST or "_" in text:
        return None
    if decimal is not None:
        if not _WRITTEN[decimal].fullmatch(text):
            return None
        text = text.replace(_OTHER[decimal], "").replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return None
