"""From curves in Python to curves in C: trace them with a symbolic logit, share what is common, cut into short loops.

`python -m lopsided.compute.retarget` writes `csrc/curves.inc`; a test fails when the checked-in file is stale.

A C curve works on a tile of logits in L1 and writes value and slope of each. Settings are arguments at run time, but
whether a setting is there at all is decided here, because the Python curves branch on that. A loop is cut wherever
exp, log1p or a power is needed, since one long body stalls on its own dependencies: each loop then does one of them.
"""

from __future__ import annotations

import itertools
import operator
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

from lopsided.losses import curves
from lopsided.losses.loss import Curve

HEAVY = ("exp", "reciprocal1p", "log1p", "log1p_unit", "power")
SETTINGS = ("gamma", "margin", "shift", "scale", "constant", "peak")
FACTORED = ("polynomial_positive", "polynomial_negative")  # their scale is a factor, which weights take over
_RECIPROCALS = ("reciprocal", "reciprocal1p")
MOST_TERMS = (0, 2, 8)  # Taylor terms of the kernels; fewer are filled up with zeros
_FOLD = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_serial = itertools.count()


class Node:
    """An operation on nodes and numbers. Equal operations are one object, so common subexpressions are shared."""

    def __init__(self, op: str, *args: Any) -> None:
        self.op, self.args, self.serial = op, args, next(_serial)

    def __add__(self, other: Any) -> Any:
        return _arithmetic("+", self, other)

    def __radd__(self, other: Any) -> Any:
        return _arithmetic("+", other, self)

    def __sub__(self, other: Any) -> Any:
        return _arithmetic("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _arithmetic("-", other, self)

    def __mul__(self, other: Any) -> Any:
        return _arithmetic("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _arithmetic("*", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self * (1 / other)

    def __rtruediv__(self, other: Any) -> Any:
        return other * node("reciprocal", self)

    def __neg__(self) -> Any:
        return self.args[0] if self.op == "negate" else node("negate", self)

    def __ge__(self, other: Any) -> Any:
        return node(">=", self, other)

    def __le__(self, other: Any) -> Any:
        return node(">=", other, self)

    def __bool__(self) -> bool:
        if self.op == "setting":
            return True  # that it is there was decided when it was made
        raise TypeError("a curve may branch on its settings, not on z: use select")


node = cache(Node)
Z = node("z")


def setting(name: str, index: int = 0) -> Node:
    return node("setting", name, index)


def _arithmetic(op: str, a: Any, b: Any) -> Any:
    if not (isinstance(a, Node) or isinstance(b, Node)):
        return _FOLD[op](a, b)
    if op in "+*" and isinstance(b, Node) and (not isinstance(a, Node) or a.serial > b.serial):
        a, b = b, a  # commutative: in one order, a number last
    if (op, b) in (("+", 0), ("-", 0), ("*", 1)):
        return a
    if op == "*" and not isinstance(b, Node) and b == 0:
        return 0.0
    if op == "*" and isinstance(a, Node) and a.op == "negate":
        return -(a.args[0] * b)
    if op == "*" and isinstance(b, Node) and b.op == "negate":
        return -(a * b.args[0])
    if op == "*" and _swapped(a, b):
        return a.args[1] * a.args[2]  # p q is the same on both sides of 0
    return node(op, a, b)


def _swapped(a: Any, b: Any) -> bool:
    """Do two selects choose between the same two, in opposite order?"""
    both = isinstance(a, Node) and isinstance(b, Node) and a.op == b.op == "select"
    return both and a.args == (b.args[0], b.args[2], b.args[1])


# ---- the vocabulary of the curves, for nodes


def _select(condition: Any, a: Any, b: Any) -> Any:
    return a if a is b else node("select", condition, a, b)


def _maximum(x: Any, floor: float) -> Any:
    return _select(node(">=", floor, x), floor, x)  # in this order a NaN of x comes through


def _logistic(z: Node) -> tuple[Any, Any]:
    e = node("exp", node("negative abs", z))
    r = node("reciprocal1p", e)
    return _select(z >= 0, r, e * r), _select(z >= 0, e * r, r)


def _softplus(z: Node) -> Any:
    mirrored = z.op == "negate"
    z = z.args[0] if mirrored else z  # so that both share what they have in common
    log = node("log1p_unit", node("exp", node("negative abs", z)))  # a NaN comes through it
    return log - _select(z >= 0, 0.0, z) if mirrored else log + _select(z >= 0, z, 0.0)


def _power(x: Any, gamma: Any) -> Any:
    return 1.0 if not isinstance(gamma, Node) and gamma == 0 else node("power", x, gamma)


_VOCABULARY = {
    "logistic": _logistic,
    "softplus": _softplus,
    "power": _power,
    "maximum": _maximum,
    "select": _select,
    "log1p": lambda x: node("log1p", x),
}


def trace(curve: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Value and slope of a curve as nodes. Its helpers see the vocabulary of nodes as well."""
    space = {**vars(curves), **_VOCABULARY}
    for name, function in list(vars(curves).items()):
        if isinstance(function, FunctionType) and function.__module__ == curves.__name__:
            twin = FunctionType(function.__code__, space, name, function.__defaults__, function.__closure__)
            twin.__kwdefaults__ = function.__kwdefaults__
            space[name] = twin
    value, slope = space[curve](Z, **settings)
    return value, slope


# ---- which kernels there are


def kernels() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name, curve, settings) of every kernel; the name says which settings are there."""
    focus: list[tuple[str, ...]] = [(), ("gamma",), ("gamma", "detach")]
    for given, terms in itertools.product(focus, MOST_TERMS):
        yield _kernel("polynomial_positive", given, ("shift",), terms, ())
        for margin in ((), ("margin",)):
            yield _kernel("polynomial_negative", (*margin, *given), (), terms, ("constant",) if terms else ())
    for given in focus:
        for name in ("", "margin"):
            yield _kernel("robust_negative", (*filter(None, (name,)), *given), ("peak",), 0, ())
    yield _kernel("hill_negative", (), ("peak",), 0, ())
    yield _kernel("confidence_negative", ("gamma",), (), 0, ())
    yield _kernel("confidence_negative", (), (), 0, ("gamma",))
    yield _kernel("exponent", (), ("scale", "shift"), 0, ())
    yield _kernel("bounded_exponent", (), ("scale",), 0, ())


@cache
def _names() -> frozenset[str]:
    return frozenset(name for name, _, _ in kernels())


class Printed(NamedTuple):
    """How a printed curve is called."""

    name: str
    settings: tuple[float, ...]  # in the order of SETTINGS, then the Taylor terms
    factor: float


def printed(curve: Curve) -> Printed | None:
    """None if it is not printed, as curves of one's own are not."""
    function = getattr(curve.function, "__name__", "")
    if getattr(curves, function, None) is not curve.function:
        return None
    given: dict[str, Any] = dict(curve.settings)
    terms = given.pop("terms", ())
    length = next((most for most in MOST_TERMS if len(terms) <= most), None)
    if length is None or (given.get("constant") and not length):
        return None
    present = [name for name in ("margin", "gamma") if given.get(name)]
    present += ["detach"] if given.get("gamma") and given.get("detach") else []
    name = "_".join([function, *present, *([f"{length}terms"] if length else [])])
    if name not in _names():
        return None
    factor = float(given.pop("scale", 1.0)) if function in FACTORED else 1.0
    settings = (*(float(given.get(key, 0.0)) for key in SETTINGS), *map(float, terms))
    return Printed(name, settings + (0.0,) * (len(SETTINGS) + MOST_TERMS[-1] - len(settings)), factor)


def _kernel(
    curve: str, given: Iterable[str], always: Iterable[str], terms: int, more: Iterable[str]
) -> tuple[str, str, dict[str, Any]]:
    given = tuple(given)
    name = "_".join([curve, *given, *([f"{terms}terms"] if terms else [])])
    settings: dict[str, Any] = {key: setting(key) for key in (*given, *always, *more) if key != "detach"}
    if "detach" in given:
        settings["detach"] = True
    if terms:
        settings["terms"] = tuple(setting("terms", index) for index in range(terms))
    return name, curve, settings


# ---- printing


def in_order(roots: Iterable[Any]) -> list[Node]:
    """Every node below the roots, arguments first."""
    seen: dict[Node, None] = {}

    def visit(n: Any) -> None:
        if isinstance(n, Node) and n not in seen:
            for argument in n.args:
                visit(argument)
            seen[n] = None

    for root in roots:
        visit(root)
    return list(seen)


def _loops(outputs: Sequence[Any]) -> Iterator[tuple[list[Node], list[Node], list[Node], list[Node]]]:
    """(powers, computed, read, stored) of each loop.

    Powers are made by a call on the whole tile before the loop. What crosses loops lies in L1: heavy results, their
    arguments, and reciprocals without another below them. All else is cheap, and computed again where it is needed.
    """
    nodes = [n for n in in_order(outputs) if not is_uniform(n)]
    level: dict[Node, int] = {}
    for n in nodes:
        level[n] = (n.op in HEAVY) + max((level.get(a, 0) for a in n.args if isinstance(a, Node)), default=0)
    handed = {n for n in nodes if n.op in _RECIPROCALS and not any(a.op in _RECIPROCALS for a in in_order(n.args))}
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
    """Without its sign, which is cheaper to change than to carry."""
    return n.args[0] if n.op == "negate" else n


def _collect(
    roots: Iterable[Any], number: int, home: dict[Node, int], computed: dict[Node, None], read: dict[Node, None]
) -> None:
    """What loop `number` computes, and what it reads from earlier ones."""
    for n in roots:
        if is_uniform(n) or n in computed or n in read:
            continue
        if home.get(n, number) < number or n.op == "power":
            read[n] = None
        else:
            _collect(n.args, number, home, computed, read)
            computed[n] = None


def is_uniform(n: Any) -> bool:
    """Is it the same for all logits?"""
    return not isinstance(n, Node) or n.op == "setting" or (n.op != "z" and all(map(is_uniform, n.args)))


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
    """One C function: a tile of logits to values and slopes."""
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
    """The whole file: every kernel, and the table by which they are found."""
    listed = list(kernels())
    parts = [print_kernel(name, trace(curve, settings)) for name, curve, settings in listed]
    table = " \\\n".join(["#define KERNELS", *(f"  ENTRY({name})" for name, _, _ in listed)])
    head = "// Printed from src/lopsided/losses/curves.py by `python -m lopsided.compute.retarget`. Do not edit."
    return "\n\n".join([head, *parts, f"#ifndef KERNELS\n{table}\n#endif"]) + "\n"


def main() -> None:
    """Write the file named on the command line, `csrc/curves.inc` if none is."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[3] / "csrc/curves.inc"
    path.write_text(print_all())


if __name__ == "__main__":
    main()
