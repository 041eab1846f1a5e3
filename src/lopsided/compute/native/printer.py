"""Prints the curves as C: `python -m lopsided.compute.native.printer` writes `csrc/curves.inc`.

A C curve works on a tile of logits in L1 and writes value and slope of each. A loop is cut wherever exp, log1p or a
power is needed, since one long body stalls on its own dependencies: each loop then does one of them.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lopsided.compute.graph import HEAVY, RECIPROCALS, Node, in_order, is_uniform, kernels, trace


def _loops(outputs: Sequence[Any]) -> Iterator[tuple[list[Node], list[Node], list[Node], list[Node]]]:
    """Returns (powers, computed, read, stored) of each loop.

    Powers are made by a call on the whole tile before the loop. What crosses loops lies in L1: heavy results, their
    arguments, and reciprocals without another below them. All else is cheap, and computed again where it is needed.
    """
    nodes = [n for n in in_order(outputs) if not is_uniform(n)]
    level: dict[Node, int] = {}
    for n in nodes:
        level[n] = (n.op in HEAVY) + max((level.get(a, 0) for a in n.args if isinstance(a, Node)), default=0)
    handed = {n for n in nodes if n.op in RECIPROCALS and not any(a.op in RECIPROCALS for a in in_order(n.args))}
    for n in nodes:
        if n.op in HEAVY:
            handed |= {n, *(_bare(a) for a in n.args if not is_uniform(a))}
    home = {n: max(level[n] - 1, 0) for n in nodes if n in handed}
    last = max(level.values(), default=0)
    powers: list[Node] = []
    for number in range(last + 1):
        mine = [n for n in home if home[n] == number]
        powers += [n for n in mine if n.op == "power"]
        roots = [n for n in mine if n.op != "power"] if number < last else list(outputs)
        if not roots:
            continue  # nothing but powers, which the next loop can wait for as well
        computed: dict[Node, None] = {}
        read: dict[Node, None] = {}
        _collect(roots, number, home, computed, read)
        yield powers, list(computed), list(read), roots if number < last else []
        powers = []


def _bare(n: Node) -> Node:
    """Returns the node without its sign, which is cheaper to change than to carry."""
    return n.args[0] if n.op == "negate" else n


def _collect(
    roots: Iterable[Any], number: int, home: dict[Node, int], computed: dict[Node, None], read: dict[Node, None]
) -> None:
    """Collects what loop `number` computes, and what it reads from earlier ones."""
    for n in roots:
        if is_uniform(n) or n in computed or n in read:
            continue
        if home.get(n, number) < number or n.op == "power":
            read[n] = None
        else:
            _collect(n.args, number, home, computed, read)
            computed[n] = None


_C = {
    "z": "z[i]",
    "negate": "-{}",
    "negative abs": "NEGATIVE_ABS({})",
    "reciprocal": "1 / {}",
    "exp": "EXP({})",
    "log1p": "LOG1P({})",
    "log1p_unit": "LOG1P_UNIT({})",
    "reciprocal1p": "RECIPROCAL1P({})",
    "select": "SELECT({}, {}, {})",
    **{op: f"{{}} {op} {{}}" for op in ("+", "-", "*", ">=")},
}


class _Printer:
    """Names nodes in the order in which they are printed, so that the text depends on the curve alone."""

    def __init__(self) -> None:
        self._names: dict[Node, str] = {}

    def name(self, n: Any) -> str:
        if not isinstance(n, Node):
            return f"(REAL){float(n)!r}"
        if n.op == "setting":
            return f"s->terms[{n.args[1]}]" if n.args[0] == "terms" else f"s->{n.args[0]}"
        return self._names.setdefault(n, f"v{len(self._names)}")

    def line(self, n: Node) -> str:
        kind = "TRUTH" if n.op == ">=" else "REAL"
        return f"const {kind} {self.name(n)} = {_C[n.op].format(*map(self.name, n.args))};"


def print_kernel(name: str, outputs: Sequence[Any]) -> str:
    """Returns one C function: a tile of logits to values and slopes."""
    printer, stages = _Printer(), list(_loops(outputs))
    read = dict.fromkeys(itertools.chain.from_iterable(stage[2] for stage in stages))
    tiles = dict.fromkeys(itertools.chain(read, (a for stage in stages for n in stage[0] for a in n.args[:1])))
    crossing = {n: f"tile{index}" for index, n in enumerate(tiles)}
    text = [f"KERNEL({name}) {{", "  REAL sum = 0;"]
    text += [f"  ALIGNED REAL {', '.join(f'{tile}[TILE + 16]' for tile in crossing.values())};"] if crossing else []
    text += [f"  {printer.line(n)}" for n in in_order(outputs) if is_uniform(n) and n.op != "setting"]
    for powers, computed, from_tiles, stored in stages:
        for n in powers:
            text.append(f"  POWER({crossing[n.args[0]]}, {printer.name(n.args[1])}, {crossing[n]}, m);")
        lines = [f"const REAL {printer.name(n)} = {crossing[n]}[i];" for n in from_tiles]
        lines += [printer.line(n) for n in computed]
        lines += [f"{crossing[n]}[i] = {printer.name(n)};" for n in stored if n in crossing]
        if not stored:
            value, slope = map(printer.name, outputs)
            lines += ["const TRUTH counts = w[i] > 0;", f"const REAL cost = SELECT(counts, w[i] * {value}, 0);"]
            lines += [f"value[i] = cost, sum += cost, slope[i] = SELECT(counts, w[i] * {slope}, 0);"]
        text += [] if stored else ["#pragma omp simd reduction(+ : sum)"]
        text += ["  for (long i = 0; i < m; i++) {", *(f"    {line}" for line in lines), "  }"]
    return "\n".join([*text, "  return sum;", "}"])


def print_all() -> str:
    """Returns the whole file: every kernel, and the table by which they are found."""
    listed = list(kernels())
    parts = [print_kernel(name, trace(curve, settings)) for name, curve, settings in listed]
    table = " \\\n".join(["#define KERNELS", *(f"  ENTRY({name})" for name, _, _ in listed)])
    head = "// Printed from src/lopsided/losses/curves.py by `python -m lopsided.compute.native.printer`. Do not edit."
    return "\n\n".join([head, *parts, f"#ifndef KERNELS\n{table}\n#endif"]) + "\n"


def main() -> None:
    """Writes the file named on the command line, `csrc/curves.inc` if none is."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[4] / "csrc/curves.inc"
    path.write_text(print_all())


if __name__ == "__main__":
    main()
