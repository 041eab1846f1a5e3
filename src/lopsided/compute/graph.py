"""Graphs of the curves, which the printers for C and for Triton write as code: a curve is called with a symbolic logit.

Settings are arguments of the printed code, but whether a setting is there at all is decided here, because the curves
branch on that.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator
from functools import cache
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from lopsided.losses import curves
from lopsided.losses.entries import curve_of
from lopsided.losses.families import EXPONENTS
from lopsided.losses.formulas import Curve, Formula
from lopsided.losses.none_class import NoneClass
from lopsided.losses.pools import Sum

HEAVY = ("exp", "reciprocal1p", "log1p", "log1p_unit", "power")
SETTINGS = ("gamma", "margin", "shift", "scale", "constant", "peak")
FACTORED = ("polynomial_positive", "polynomial_negative")  # their scale is a factor, which weights take over
RECIPROCALS = ("reciprocal", "reciprocal1p")
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
        if is_uniform(self):
            return True  # that a setting is there was decided when it was made
        raise TypeError("a curve may branch on its settings, not on z: use select")


node = cache(Node)
Z = node("z")


def setting(name: str, index: int = 0) -> Node:
    """Returns the node of a setting, which is an argument of the printed code."""
    return node("setting", name, index)


def forget() -> None:
    """Forgets all nodes but z: what was traced before would decide in which order the terms of a sum are printed."""
    node.cache_clear()


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
    """Tells whether two selects choose between the same two, in opposite order."""
    both = isinstance(a, Node) and isinstance(b, Node) and a.op == b.op == "select"
    return both and a.args == (b.args[0], b.args[2], b.args[1])


# ---- the vocabulary of the curves, for nodes


def _select(condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, bool):  # of numbers
        return a if condition else b
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
    "exp": lambda x: node("exp", x),
    "log1p": lambda x: node("log1p", x),
}


def trace(curve: str, settings: dict[str, Any], module: ModuleType = curves) -> tuple[Any, Any]:
    """Returns value and slope of a curve as nodes. module: where it stands; it may call those of `curves`."""
    called = SimpleNamespace(**twins(curves, _VOCABULARY))
    value, slope = twins(module, {**_VOCABULARY, "curves": called})[curve](Z, **settings)
    return value, slope


def twins(module: ModuleType, instead: dict[str, Any]) -> dict[str, Any]:
    """Returns what a module holds, with other things in the place of some; its functions see those as well."""
    space = {**vars(module), **instead}
    for name, function in vars(module).items():
        if name not in instead and isinstance(function, FunctionType) and function.__module__ == module.__name__:
            twin = FunctionType(function.__code__, space, name, function.__defaults__, function.__closure__)
            twin.__kwdefaults__ = function.__kwdefaults__
            space[name] = twin
    return space


# ---- which kernels there are


def kernels() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Returns (name, curve, settings) of every kernel; the name says which settings are there."""
    forget()
    focus: list[tuple[str, ...]] = [(), ("gamma",), ("gamma", "detach")]
    for given, terms in itertools.product(focus, MOST_TERMS):
        yield _kernel("polynomial_positive", given, ("shift",), terms, ())
        for margin in ((), ("margin",)):
            yield _kernel("polynomial_negative", (*margin, *given), (), terms, ("constant",) if terms else ())
    for given in focus:
        for name in ("", "margin"):
            yield _kernel("robust_negative", (*filter(None, (name,)), *given), ("peak",), 0, ())
    yield _kernel("hill_negative", (), ("peak",), 0, ())
    yield _kernel("tolerant_negative", (), ("scale",), 0, ())
    yield _kernel("tolerant_negative", ("gamma",), ("scale",), 0, ())
    yield _kernel("confidence_negative", ("gamma",), (), 0, ())
    yield _kernel("confidence_negative", (), (), 0, ("gamma",))
    yield _kernel("exponent", (), ("scale", "shift"), 0, ())
    yield _kernel("bounded_exponent", (), ("scale",), 0, ())
    yield _kernel("hinge", (), ("scale",), 0, ())
    yield _kernel("squared_hinge", (), ("scale",), 0, ())


@cache
def _names() -> frozenset[str]:
    return frozenset(name for name, _, _ in kernels())


class Printed(NamedTuple):
    """How a printed curve is called."""

    name: str
    settings: tuple[float, ...]  # in the order of SETTINGS, then the Taylor terms
    factor: float


def printed(curve: Curve) -> Printed | None:
    """Returns None if it is not printed, as curves of one's own are not."""
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


def printed_sides(formula: Formula) -> tuple[Printed, Printed] | None:
    """Returns both curves of a loop; None if one is not printed, or has a factor that the pool does not take.

    Of a row with a none class they are what a label costs: its loop takes the mean of the logits themselves.
    """
    sides = formula.positive, formula.negative
    if isinstance(formula.pool, NoneClass):
        if sides != EXPONENTS:
            return None
        sides = Curve(curves.polynomial_positive), curve_of(curves.polynomial_negative, margin=formula.pool.clip)
    positive, negative = map(printed, sides)
    if positive is None or negative is None:
        return None
    plain = positive.factor == negative.factor == 1
    return (positive, negative) if plain or isinstance(formula.pool, Sum) else None


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
    """Returns every node below the roots, arguments first."""
    seen: dict[Node, None] = {}

    def visit(n: Any) -> None:
        if isinstance(n, Node) and n not in seen:
            for argument in n.args:
                visit(argument)
            seen[n] = None

    for root in roots:
        visit(root)
    return list(seen)


def is_uniform(n: Any) -> bool:
    """Tells whether it is the same for all logits."""
    return not isinstance(n, Node) or n.op == "setting" or (n.op != "z" and all(map(is_uniform, n.args)))
