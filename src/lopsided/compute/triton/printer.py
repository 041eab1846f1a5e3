"""From the traced curves to Triton: the same graphs as for C, printed without cuts, since a GPU hides their latency.

`python -m lopsided.compute.triton.printer` writes `curves.py`; a test fails when the
checked-in file is stale.

Settings are constants of the compiler, in the order of `SETTINGS` and then the Taylor terms. What positives and
negatives share, the compiler finds again: both are inlined in one kernel.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lopsided.compute.graph import SETTINGS, Node, in_order, is_uniform, kernels, trace

_LONGEST = 60  # characters of an expression that is written where it is used

_HEAD = '''\
"""Printed from `lopsided/losses/curves.py` by `python -m lopsided.compute.triton.printer`. Do not edit.

Each maps a tile of float32 logits to values and slopes; s are the settings, constants of the compiler.
"""

import triton
import triton.language as tl

from lopsided.compute.triton.math import exp, log1p, log1p_unit, maximum, minimum, power, reciprocal'''

_TRITON = {
    "z": "z",
    "negate": "-{}",
    "negative abs": "-tl.abs({})",
    "reciprocal": "reciprocal({})",
    "reciprocal1p": "reciprocal(1.0 + {})",
    "exp": "exp({})",
    "log1p": "log1p({})",
    "log1p_unit": "log1p_unit({})",
    "power": "power({}, {})",
    "select": "tl.where({}, {}, {})",
    **{op: f"{{}} {op} {{}}" for op in ("+", "-", "*", ">=")},
}
_INFIX = ("+", "-", "*", ">=", "negate", "negative abs")  # need parentheses where they are used


class _Printer:
    """Names what is used more than once, or long, in the order in which it is needed."""

    def __init__(self, outputs: Sequence[Any]) -> None:
        nodes = in_order(outputs)
        self._uses = Counter(a for n in nodes for a in n.args if isinstance(a, Node))
        self._text: dict[Node, str] = {}
        self.lines: list[str] = []
        for n in nodes:
            self._text[n] = self._express(n)

    def name(self, n: Any) -> str:
        return self._text[n] if isinstance(n, Node) else repr(float(n))

    def _express(self, n: Node) -> str:
        if n.op == "setting":
            name, index = n.args
            return f"s[{len(SETTINGS) + index if name == 'terms' else SETTINGS.index(name)}]"
        text = _bound(n, self.name) or _TRITON[n.op].format(*map(self.name, n.args))
        if n.op == "z" or (self._uses[n] == 1 and len(text) <= _LONGEST):
            return f"({text})" if n.op in _INFIX else text
        self.lines.append(f"v{len(self.lines)} = {text}")
        return f"v{len(self.lines) - 1}"


def _bound(n: Node, name: Callable[[Any], str]) -> str | None:
    """Prints a select that is a maximum or a minimum as such: one instruction on a GPU."""
    if n.op != "select" or n.args[0].op != ">=":
        return None
    (low, high), chosen, other = n.args[0].args, n.args[1], n.args[2]
    if (low, high) == (chosen, other):
        return f"maximum({name(high)}, {name(low)})"
    return f"minimum({name(low)}, {name(high)})" if (high, low) == (chosen, other) else None


def print_curve(name: str, outputs: Sequence[Any]) -> str:
    """Returns one device function: a tile of logits to values and slopes."""
    printer = _Printer(outputs)
    full = "tl.full(z.shape, {}, tl.float32)"
    results = [full.format(printer.name(n)) if is_uniform(n) else printer.name(n) for n in outputs]
    body = [f"def {name}(z, s: tl.constexpr):", *printer.lines, f"return {', '.join(results)}"]
    return "@triton.jit\n" + "\n    ".join(body)


def print_all() -> str:
    """Returns the whole file: every curve, and the function that finds them by name."""
    listed = list(kernels())
    curves = [print_curve(name, trace(curve, settings)) for name, curve, settings in listed]
    choice = [
        f"{'el' if index else ''}if CURVE == {name!r}:\n        value, slope = {name}(z, s)".replace("'", '"')
        for index, (name, _, _) in enumerate(listed)
    ]
    head = "@triton.jit\ndef evaluate(z, CURVE: tl.constexpr, s: tl.constexpr):"
    return "\n\n\n".join([_HEAD, *curves, "\n    ".join([head, *choice, "return value, slope"])]) + "\n"


def main() -> None:
    """Writes the file named on the command line, `curves.py` beside this one if none is."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("curves.py")
    path.write_text(print_all())


if __name__ == "__main__":
    main()
