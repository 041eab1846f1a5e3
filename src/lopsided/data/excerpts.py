"""Makes short texts of what stands in a file, which a terminal shows but never obeys."""

from __future__ import annotations

import unicodedata

LONGEST = 200  # characters of a text or a label that are shown


def printable(text: str, longest: int = LONGEST) -> str:
    """Returns one line of at most `longest` characters, without control characters and invisible ones.

    >>> printable("a\\x1b[31m  red\\u202e\\nline")
    'a [31m red line'
    """
    start = text[: 10 * longest]
    visible = "".join(" " if unicodedata.category(character)[0] in "CZ" else character for character in start)
    line = " ".join(visible.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
