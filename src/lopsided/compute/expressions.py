"""Prints traced curves as expressions of Python, in one of several dialects: Triton's, and that of `jax.numpy`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lopsided.compute.graph import Node, in_order

_LONGEST = 60  # characters of an expression that is written where it is used
_INFIX = ("+", "-", "*", ">=", "negate", "negative abs")  # need parentheses where they are used


class Expressions:
    """Names what is used more than once, or long, in the order in which it is needed.

    dialect: how each operation is written, with {} for what it is applied to; a select that is a maximum or a minimum
    is written as such, where the dialect has one.
    """

    def __init__(self, outputs: Sequence[Any], dialect: Mapping[str, str]) -> None:
        nodes = in_order(outputs)
        self._dialect = dialect
        self._uses = Counter(a for n in nodes for a in n.args if isinstance(a, Node))
        self._text: dict[Node, str] = {}
        self.lines: list[str] = []
        for n in nodes:
            self._text[n] = self._express(n)

    def name(self, n: Any) -> str:
        return self._text[n] if isinstance(n, Node) else repr(float(n))

    def setting(self, name: str, index: int) -> str:
        """Returns how a setting is written that is an argument of the printed code."""
        raise NotImplementedError

    def _express(self, n: Node) -> str:
        if n.op == "setting":
            return self.setting(*n.args)
        op, args = _bound(n)
        text = self._dialect[op].format(*map(self.name, args))
        if n.op == "z" or (self._uses[n] == 1 and len(text) <= _LONGEST):
            return f"({text})" if n.op in _INFIX else text
        self.lines.append(f"v{len(self.lines)} = {text}")
        return f"v{len(self.lines) - 1}"


def _bound(n: Node) -> tuple[str, Sequence[Any]]:
    """Returns the operation and its arguments; of a select that is a maximum or a minimum, those: one instruction."""
    if n.op != "select" or n.args[0].op != ">=":
        return n.op, n.args
    (low, high), chosen, other = n.args[0].args, n.args[1], n.args[2]
    if (low, high) == (chosen, other):
        return "maximum", (high, low)
    return ("minimum", (low, high)) if (high, low) == (chosen, other) else (n.op, n.args)
