"""Finds the sign between the labels of a cell, and asks where two signs may be it."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterable, Sequence

from lopsided.data.opening import shown
from lopsided.data.storage import UserError

USUAL = (",", ";", "|")
_MOST_SIGNS = 50  # that are tried
INSIDE_NAMES = frozenset(":_-. '()\u2019")  # signs that stand in names, too


def split_names(cell: str, separator: str) -> list[str]:
    """Returns the names in a cell; "" separates nothing. Quotation marks around a name do not belong to it.

    >>> split_names(" Short Film; Crime ;", ";"), split_names("a,b", ""), split_names('"a, b", c', ",")
    (['Short Film', 'Crime'], ['a,b'], ['a, b', 'c'])
    """
    names = cell.split(separator) if separator else [cell]
    if '"' in cell and len(separator) == 1:
        with contextlib.suppress(csv.Error):  # of a cell that is no row of a CSV
            names = next(csv.reader([cell], delimiter=separator, skipinitialspace=True), names)
    return [name for name in map(_unquoted, names) if name]


def _unquoted(name: str) -> str:
    name = name.strip()
    return name[1:-1].strip() if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'" else name


def find_separator(where: str, cells: Iterable[str]) -> str:
    """Returns the sign that separates the labels of each cell; "" if every cell is one label.

    Raises UserError if two of `USUAL` occur, or if none does and another sign may be it: if cut by it, cells share
    their parts, so that there are fewer different names than different cells; where the sign may belong to a name, half
    of the parts must be cells of their own, too.

    >>> find_separator("a.csv", ["Drama, Crime", "Comedy"])
    ','
    >>> find_separator("a.csv", ["Drama#Crime", "Drama", "Crime"])
    Traceback (most recent call last):
    lopsided.data.storage.UserError: a.csv: 3 names if each cell is one label, such as 'Drama#Crime'; ...
    """
    different = sorted(set(cells))
    usual = [sign for sign in USUAL if any(sign in cell for cell in different)]
    if len(usual) == 1:
        return usual[0]
    if len(usual) > 1:
        readings = [f"{_count(different, sign)} if cut at {shown(sign)},{_example(different, sign)}" for sign in usual]
        raise UserError(f"{where}: {'; '.join(readings)}; say which with --separator")
    signs = sorted(sign for sign in set().union(*different) if not sign.isalnum() and sign not in '"[]{}')
    for sign in sorted(signs, key=INSIDE_NAMES.__contains__)[:_MOST_SIGNS]:
        if _separates(different, sign):
            example = _example(different, "", sign)
            raise UserError(
                f"{where}: {len(different)} names if each cell is one label,{example}; "
                f"{_count(different, sign)} if {shown(sign)} stands between labels: say --separator {shown(sign)}, or "
                '--separator "" if each cell is one label'
            )
    return ""


def _separates(cells: Sequence[str], sign: str) -> bool:
    """Tells whether a sign may stand between labels; in "-1" it does not."""
    cut = [split_names(cell, sign) for cell in cells]
    parts = {name for names in cut for name in names}
    alone = parts.intersection(cells)
    usual_sign = sign not in INSIDE_NAMES or all(map(str.isdecimal, parts))
    return max(map(len, cut)) > 1 and len(parts) < len(cells) and (usual_sign or 2 * len(alone) >= len(parts))


def _count(cells: Sequence[str], sign: str) -> int:
    return len({name for cell in cells for name in split_names(cell, sign)})


def _example(cells: Sequence[str], sign: str, containing: str = "") -> str:
    """Shows the first name of a cell in which there is more than one."""
    names = split_names(next(cell for cell in cells if (containing or sign) in cell), sign)
    return f" such as {shown(names[0])}" if names else ""
