"""Writes names of labels alike, and knows those that a file lists."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lopsided.data.opening import Say, read_lines, shown
from lopsided.data.options import DEFAULT, ReadOptions
from lopsided.data.storage import UserError

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_COMPARED = 100
_SETS_NOTED = 3


class LabelNames:
    """Turns what stands in a file into names of labels: without blanks around, in Unicode's normal form C.

    With a file of names it takes those alone, and a number counts its lines from 0.

    >>> LabelNames().name(" Cafe\\u0301 ", "line 1")
    'Café'
    """

    def __init__(self, options: ReadOptions = DEFAULT) -> None:
        self._file, self._lower_case = options.labels_file, options.lower_case
        self.listed = () if self._file is None else _listed(self._file, options)
        self._known: dict[str, str] = {name: name for name in self.listed}

    def name(self, raw: str, where: str) -> str:
        """Returns the name, "" if it is empty. Raises UserError, with `where`, for one that is not in the file."""
        name = self._known.get(raw)
        if name is None:
            name = self._known[raw] = self._new(raw, where)
        return name

    def _new(self, raw: str, where: str) -> str:
        if not is_text(raw):
            raise UserError(f"{where}: the label {shown(raw)} is not valid text")
        name = normal(raw, self._lower_case)
        if self._file is None or not name or name in self._known:
            return name
        if name.isdecimal() and len(name) < 10 and int(name) < len(self.listed):
            return self.listed[int(name)]
        if name.isdecimal():
            raise UserError(f"{where}: label {shown(name)}, but {self._file} has {len(self.listed)} lines, from 0 on")
        near = difflib.get_close_matches(name[:_LONGEST_COMPARED], self.listed, n=1)
        hint = f"; did you mean {shown(near[0])}?" if near else ""
        raise UserError(f"{where}: the label {shown(name)} is not in {self._file}{hint}")

    def ordered(self, seen: Iterable[str], say: Say) -> tuple[str, ...]:
        """Returns the names of the file, or those that were seen, sorted, numbers by their size; notes near twins."""
        if self.listed:
            return self.listed
        names = sorted_names(seen)
        if twins := near_twins(names):
            sets = [", ".join(map(shown, each)) for each in twins[:_SETS_NOTED]]
            more = f"; and {len(twins) - _SETS_NOTED} more such sets" if len(twins) > _SETS_NOTED else ""
            hint = "" if self._lower_case else "; --lower-case makes one of those that differ by case"
            say(f"labels that differ only by case or blanks: {'; '.join(sets)}{more}{hint}")
        return names


def normal(raw: str, lower_case: bool = False) -> str:
    name = unicodedata.normalize("NFC", raw.strip())
    return " ".join(name.lower().split()) if lower_case else name


def is_text(text: str) -> bool:
    """Tells whether a report can hold a text: it has no NUL and no half of a character."""
    return text.isprintable() or ("\0" not in text and not _LONE_SURROGATE.search(text))


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Sorts names by letter, numbers by size.

    >>> sorted_names({"10", "9"}), sorted_names({"10", "9", "b"})
    (('9', '10'), ('10', '9', 'b'))
    """
    names = list(names)
    if all(name.isascii() and name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name)))
    return tuple(sorted(names))


def without_case_and_blanks(name: str) -> str:
    return "".join(name.casefold().split())


def near_twins(names: Iterable[str], folded: Callable[[str], str] = without_case_and_blanks) -> list[list[str]]:
    """Returns the groups of names that are the same when folded: that differ only by case or blanks.

    >>> near_twins(["Sci-Fi", "sci-fi", "Short Film", "ShortFilm", "Drama"])
    [['Sci-Fi', 'sci-fi'], ['Short Film', 'ShortFilm']]
    """
    alike = defaultdict(list)
    for name in names:
        alike[folded(name)].append(name)
    return [twins for twins in alike.values() if len(twins) > 1]


def _listed(path: Path, options: ReadOptions) -> tuple[str, ...]:
    """Reads the names of a file: one a line, or a JSON list, or an object of names and numbers either way round."""
    lines: Sequence[str] = list(read_lines(path, options))
    if path.suffix == ".json":
        lines = _from_json(path, "".join(lines))
    names = [normal(line, options.lower_case) for line in lines]
    while names and not names[-1]:
        names.pop()
    first: dict[str, int] = {}
    for line, name in enumerate(names, 1):
        if not name:
            raise UserError(f"{path}, line {line}: an empty name")
        if name in first:
            raise UserError(f"{path}, line {line}: {shown(name)} stands in line {first[name]}, too")
        first[name] = line
    if not names:
        raise UserError(f"{path}: no names")
    return tuple(names)


def _by_number(names: dict[str, Any]) -> list[Any] | None:
    """Returns the names of {"0": name, ...} or {name: 0, ...} in the order of their numbers, None if it is neither."""
    if all(isinstance(name, str) for name in names.values()) and set(names) == set(map(str, range(len(names)))):
        return [names[str(number)] for number in range(len(names))]
    numbers = {number: name for name, number in names.items() if isinstance(number, int)}
    return [numbers[number] for number in range(len(names))] if set(numbers) == set(range(len(names))) else None


def _from_json(path: Path, text: str) -> Sequence[str]:
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {str(error)[:60]}") from None
    if isinstance(names, dict):
        names = _by_number(names)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: expected a list of names, got {shown(text)}")
    return names
