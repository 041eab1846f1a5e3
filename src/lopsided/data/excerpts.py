"""Makes short texts of what stands in a file, which a terminal, a spreadsheet or a page shows but never obeys."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 200  # characters of a text or a label that are shown
_OBEYED = re.compile(  # control characters, marks of direction, ends of lines in Unicode, halves of characters
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb]"
)
_HALF = re.compile("[\ud800-\udfff]")  # a byte of a file's name that is no text, for instance
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")  # what a spreadsheet would run, however wide the sign


def visible(text: str) -> str:
    """Returns the text without the characters that a terminal obeys, but for line ends and tabs; ? is half of one.

    >>> visible("a\\x1b[31m red\\u202e\\n")
    'a[31m red\\n'
    """
    return text if text.isascii() and text.isprintable() else _OBEYED.sub("", _HALF.sub("?", text))


def printable(text: str, longest: int = LONGEST) -> str:
    """Returns one line of at most `longest` characters, without control characters and invisible ones.

    >>> printable("a\\x1b[31m  red\\u202e\\nline")
    'a [31m red line'
    """
    start = text[: 10 * longest]
    shown = "".join(" " if unicodedata.category(character)[0] in "CZ" else character for character in start)
    line = " ".join(shown.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def cell(text: str) -> str:
    """Returns the text with an apostrophe before it where a spreadsheet would run it as a formula.

    >>> cell("=1+1"), cell("plain")
    ("'=1+1", 'plain')
    """
    return "'" + text if _FORMULA.match(text) else text


def escaped(json_text: str) -> str:
    r"""Returns JSON with escapes for the characters that a terminal obeys; it means the same.

    >>> escaped('["a\u202e"]')
    '["a\\u202e"]'
    """
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", json_text)
