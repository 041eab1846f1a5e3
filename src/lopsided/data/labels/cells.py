"""Reads one cell of labels: a list as people and programs write it, or the value of a label."""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, TypeVar

from lopsided.data.numbers import MISSING, number_in
from lopsided.data.options import ReadOptions

_PAIRS = {"[": "]", "(": ")", "{": "}"}
_ITEM = re.compile(r"""\s*(?:('[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*")|([^\s,'"\[\](){}]+))\s*,?""")
_CALL = re.compile(
    r"[\w.]{1,40}\(([\[{(].*[\]})])(?:,\s*\w{1,40}=[^,()]{1,40})*\)", re.DOTALL
)  # array([1, 0], dtype=int8)
_CONSTANTS = {"None": None, "null": None, "True": True, "False": False, "true": True, "false": False}
_NOTHING = ("set()", "frozenset()")
_LONGEST_NUMBER = 40
_NO_ITEM = object()
_MOST_KNOWN = 10_000  # cells whose values are held
NAN = math.nan
T = TypeVar("T")


class Choices(list[Any]):
    """Holds several labels of a row, of which Label Studio writes a single one as a plain name."""


class Values:
    """Says what a cell means that holds the value of one label: a number in [0, 1], NaN if unknown, None if neither.

    >>> values = Values(ReadOptions(unknown=("-1",)))
    >>> [values(cell) for cell in ("1", "no", "0.7", " ? ", None, -1, "Crime")]
    [1.0, 0.0, 0.7, nan, nan, nan, None]
    """

    def __init__(self, options: ReadOptions) -> None:
        self._words: dict[str, float] = dict.fromkeys(MISSING, NAN)
        self._words |= dict.fromkeys(("0", "false", "f", "no", "n"), 0.0)
        self._words |= dict.fromkeys(("1", "true", "t", "yes", "y"), 1.0)
        self._decimal = options.decimal
        self.numbers: dict[float, float] = {}
        self._known: dict[Any, float | None] = {}
        for words, value in ((options.unknown, NAN), (options.negative, 0.0), (options.positive, 1.0)):
            self._words |= {word.strip().lower(): value for word in words}
            self.numbers |= {number: value for number in map(number_in, words) if number is not None}

    def __call__(self, cell: Any) -> float | None:
        try:
            return self._known[cell]
        except KeyError:
            value = self._value(cell)
        except TypeError:  # a list or a dictionary
            return None
        if len(self._known) < _MOST_KNOWN:
            self._known[cell] = value
        return value

    def _value(self, cell: Any) -> float | None:
        if cell is None:
            return NAN
        if isinstance(cell, str):
            word = cell.strip().lower()
            if word in self._words:
                return self._words[word]
            cell = number_in(word, self._decimal)
        if not isinstance(cell, int | float):
            return None
        if cell in self.numbers:
            return self.numbers[cell]
        return float(cell) if 0 <= cell <= 1 or cell != cell else None


def first_rows(cells: Sequence[Any]) -> Iterable[tuple[int, Any]]:
    """Returns the different cells, each with the row in which it stands first; all cells where some are lists.

    >>> first_rows(["a", "b", "a"]), first_rows([["a"], ["a"]])
    ([(0, 'a'), (1, 'b')], [(0, ['a']), (1, ['a'])])
    """
    if not _are_alike(cells):
        return list(enumerate(cells))
    first = dict(
        zip(reversed(cells), range(len(cells) - 1, -1, -1), strict=True)
    )  # the last to be set is the first row
    return sorted(((row, cell) for cell, row in first.items()), key=itemgetter(0))


def for_each(function: Callable[[Any], T], cells: Sequence[Any]) -> list[T]:
    """Calls a function with each cell, of those that are alike with one."""
    if not _are_alike(cells):
        return list(map(function, cells))
    results = {cell: function(cell) for cell in set(cells)}
    return [results[cell] for cell in cells]


def _are_alike(cells: Sequence[Any]) -> bool:
    """Tells whether cells that are equal are the same: True is 1, and lists have no hash."""
    types = set(map(type, cells))
    return types <= {str, type(None)} or types <= {int, float, type(None)} or types <= {bool, type(None)}


def unpacked(cell: Any) -> Any:
    """Returns the list or dictionary that a cell is or writes: JSON, Python's notation or numpy's; else the cell.

    >>> unpacked("['Short Film', 'Crime']"), unpacked("[1 0 0.]"), unpacked('{"choices": ["A"]}'), unpacked("[sic")
    (['Short Film', 'Crime'], [1, 0, 0.0], ['A'], '[sic')
    """
    if isinstance(cell, str):
        text = cell.strip()
        call = _CALL.fullmatch(text) if text.endswith(")") else None
        text = call[1] if call else "[]" if text in _NOTHING else text
        if text[:1] not in _PAIRS or not text.endswith(_PAIRS[text[0]]):
            return cell
        written = _from_json(text)
        cell = _from_items(text) if written is None else written
    if isinstance(cell, dict) and set(cell) == {"choices"} and isinstance(cell["choices"], list):
        return Choices(cell["choices"])
    if isinstance(cell, list) and cell and all(isinstance(item, dict) for item in cell):
        return _scored(cell)
    return cell


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _from_items(text: str) -> Any:
    """Reads Python's and numpy's lists, tuples and sets, item by item, since Python joins 'a' 'b' to 'ab'."""
    if text[0] == "{" and ":" in text:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return text
    inner, place = text[1:-1].strip(), 0
    items: list[Any] = []
    while place < len(inner):
        match = _ITEM.match(inner, place)
        if match is None:
            return text
        item = _quoted(match[1]) if match[1] else _bare(match[2])
        if item is _NO_ITEM:
            return text
        items.append(item)
        place = match.end()
    return items


def _quoted(text: str) -> Any:
    if "\\" not in text:
        return text[1:-1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes that mean nothing
            return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return _NO_ITEM


def _bare(word: str) -> Any:
    """Returns the number or constant that stands without quotation marks."""
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    if word.isdecimal() and len(word) <= _LONGEST_NUMBER:
        return int(word)
    number = number_in(word)
    return _NO_ITEM if number is None else number


def _scored(items: list[dict[str, Any]]) -> Any:
    """Returns {name: value} of [{"label": name, "score": value}, ...], as pipelines and spaCy 2 write it."""
    for name in ("label", "name"):
        for value in ("score", "value"):
            if all(set(item) == {name, value} for item in items):
                return {item[name]: item[value] for item in items if isinstance(item[name], str)}
    return items
