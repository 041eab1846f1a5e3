"""From the traced curves to Triton: the same graphs as for C, printed without cuts, since a GPU hides their latency.

`python -m lopsided.compute.triton.printer` writes `curves.py`; a test fails when the
checked-in file is stale.

Settings are constants of the compiler, in the order of `SETTINGS` and then the Taylor terms. What positives and
negatives share, the compiler finds again: both are inlined in one kernel.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lopsided.compute.expressions import Expressions
from lopsided.compute.graph import SETTINGS, is_uniform, kernels, trace

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
    "maximum": "maximum({}, {})",
    "minimum": "minimum({}, {})",
    **{op: f"{{}} {op} {{}}" for op in ("+", "-", "*", ">=")},
}


class _Printer(Expressions):
    def setting(self, name: str, index: int) -> str:
        return f"s[{len(SETTINGS) + index if name == 'terms' else SETTINGS.index(name)}]"


def print_curve(name: str, outputs: Sequence[Any]) -> str:
    """Returns one device function: a tile of logits to values and slopes."""
    printer = _Printer(outputs, _TRITON)
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
