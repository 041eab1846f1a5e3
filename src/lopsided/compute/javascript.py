"""Prints losses as JavaScript, from the curves of which the C library and Triton's kernels are made.

A loss is called with symbols for its settings, so that what it makes of them, such as 1 - alpha, is printed as well.
Where a setting that is 0, None or False leaves other code, there is a variant for each choice.
"""

from __future__ import annotations

import inspect
import itertools
import json
import sys
from collections.abc import Callable, Container, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from lopsided.compute.expressions import Expressions
from lopsided.compute.graph import MOST_TERMS, forget, setting, trace, twins
from lopsided.losses import (
    BALANCED,
    CATALOG,
    SOURCES,
    UNKNOWN,
    UNKNOWN_SOURCES,
    Balanced,
    Curve,
    Formula,
    NoneClass,
    Pairs,
    SideMeans,
    any_loss,
)
from lopsided.losses.entries import SEARCH, Range
from lopsided.losses.names import INSTEAD

_JAVASCRIPT = {
    "z": "z",
    "negate": "-{}",
    "negative abs": "-Math.abs({})",
    "reciprocal": "1 / ({})",
    "reciprocal1p": "1 / (1 + {})",
    "exp": "Math.exp({})",
    "log1p": "Math.log1p({})",
    "log1p_unit": "Math.log1p({})",
    "power": "Math.max({}, 2.2250738585072014e-308) ** {}",  # finite at 0 for every exponent above -1
    "select": "({} ? {} : {})",
    "maximum": "Math.max({}, {})",
    "minimum": "Math.min({}, {})",
    **{op: f"{{}} {op} {{}}" for op in ("+", "-", "*", ">=")},
}
_UNCHECKED = {
    "check_number": lambda name, value, **_: value,
    "check_numbers": lambda name, values: values,
    "check_clip": lambda clip: clip,
    "check_flag": lambda name, value: value,
    "_positive": lambda name, value: value,
    "_share": lambda name, value: value,
    "is_compiling": lambda: True,  # so that nothing looks at numbers
}
_FURTHER = {  # where to show what is not searched for
    "threshold": Range(-4, 4),
    "alpha": Range(0.05, 0.95),
    "power_pos": Range(0.01, 1),
    "power_neg": Range(0.01, 1),
}
_STEP = 0.05  # of a slider
DRAWN: dict[str, Callable[..., Formula | Balanced]] = {**CATALOG, **UNKNOWN, **BALANCED}
_LENGTH = MOST_TERMS[-1]  # of lists; shorter ones are filled up with what stands beyond their ends
_OPTIONAL = ("gamma", "margin")  # settings of curves without which there is other code


@dataclass(frozen=True)
class Control:
    """A setting of a loss, as a page offers it.

    default: a number, a flag, or None of a number, or a list, that may be absent. length: of a list, at most.
    replaces: the settings that are not given beside it.
    """

    name: str
    default: float | bool | None
    low: float = 0
    high: float = 1
    step: float = 1
    length: int = 0
    replaces: tuple[str, ...] = ()


def controls(name: str) -> list[Control]:
    """Returns the settings of a loss, in the order of its signature; not those of weights that are deferred."""
    result = []
    for parameter in inspect.signature(DRAWN[name]).parameters.values():
        if parameter.name in INSTEAD:
            result.append(Control(parameter.name, None, length=_LENGTH, replaces=INSTEAD[parameter.name]))
            continue
        if isinstance(parameter.default, bool):
            result.append(Control(parameter.name, parameter.default))
            continue
        where = SEARCH.get(name, {}).get(parameter.name) or _FURTHER.get(parameter.name)
        if where is None:
            continue
        step = where.low if 0 < where.low < _STEP else 0.005 if where.high - where.low < 0.5 else _STEP
        step = step if round((where.high - where.low) / step, 9).is_integer() else 0.001  # so that the end is reached
        result.append(Control(parameter.name, parameter.default, where.low, where.high, step))
    return result


class _Printer(Expressions):
    def setting(self, name: str, index: int) -> str:
        return f"s.{name}[{index}]" if name in INSTEAD else f"s.{name}"


class _Loss:
    """One loss, made of symbols."""

    def __init__(self, name: str) -> None:
        self.controls = controls(name)
        make = DRAWN[name]
        self._make: Callable[..., Formula | Balanced] = twins(sys.modules[make.__module__], _UNCHECKED)[make.__name__]
        self.deciding = [each for each in self.controls if self._decides(each)]

    def formula(self, absent: Container[str] = ()) -> Formula:
        made = self._made(absent)
        return made.formula if isinstance(made, Balanced) else made

    def _made(self, absent: Container[str] = ()) -> Formula | Balanced:
        forget()  # so that the text of a curve does not depend on what was printed before
        replaced = {name for each in self.controls if each.name not in absent for name in each.replaces}
        given = [each for each in self.controls if each.name not in replaced]
        return self._make(**{each.name: _symbol(each, each.name not in absent) for each in given})

    def _decides(self, control: Control) -> bool:
        """Tells whether other code is there where it is 0, None or False."""
        if control.default is None or isinstance(control.default, bool):
            return control.name != "monotone"  # which only refuses settings
        return control.low <= 0 and bool(_optional(self.formula()) - _optional(self.formula({control.name})))

    def variants(self) -> Iterator[tuple[str, list[str]]]:
        """Returns the code of both curves for each choice of what is there: the names that are, with commas."""
        names = [each.name for each in self.deciding]
        for count in range(len(names) + 1):
            for absent in itertools.combinations(names, count):
                present = ",".join(name for name in names if name not in absent)
                yield present, [_print(self.formula(absent).positive), _print(self.formula(absent).negative)]

    def powers(self) -> str:
        """Returns the code of the two numbers that the pool has: powers, or a margin or clip, 0 for none, twice."""
        pool = self.formula().pool
        exponents = (pool.power_pos, pool.power_neg) if isinstance(pool, Pairs) else (1.0, 1.0)
        if isinstance(pool, SideMeans):
            exponents = (pool.margin or 0.0,) * 2
        if isinstance(pool, NoneClass):
            exponents = (pool.clip,) * 2
        return f"(s) => [{', '.join(map(_Printer(exponents, _JAVASCRIPT).name, exponents))}]"

    def counted(self) -> str:
        """Returns the code of what the label counts do, with the names of `Balanced`; null for other losses."""
        made = self._made()
        if not isinstance(made, Balanced):
            return "null"
        numbers = {"kappa": made.kappa, "margin": made.margin, "scale": made.scale}
        numbers["beta"] = 0.0 if made.beta is None or made.deferred else made.beta
        numbers |= {} if made.rebalancing is None else vars(made.rebalancing)
        printer = _Printer(list(numbers.values()), _JAVASCRIPT)
        return f"(s) => ({{{', '.join(f'{name}: {printer.name(each)}' for name, each in numbers.items())}}})"


def _symbol(control: Control, present: bool) -> Any:
    if isinstance(control.default, bool):
        return present
    if control.length:
        return tuple(setting(control.name, index) for index in range(control.length)) if present else None
    return setting(control.name) if present else None if control.default is None else 0.0


def _optional(formula: Formula) -> set[tuple[int, str]]:
    sides = enumerate((formula.positive, formula.negative))
    return {(side, key) for side, curve in sides for key, _ in curve.settings if key in _OPTIONAL}


def _print(curve: Curve) -> str:
    outputs = trace(curve.name, dict(curve.settings), sys.modules[curve.function.__module__])
    printer = _Printer(outputs, _JAVASCRIPT)
    lines = [*(f"const {line};" for line in printer.lines), f"return [{', '.join(map(printer.name, outputs))}];"]
    return "(z, s) => {\n  " + "\n  ".join(lines) + "\n}"


def print_all() -> str:
    """Returns two constants: `curves`, functions of a logit and settings to [value, slope], and `losses` by name.

    A loss says which settings it has, which of them decide on its variant, and the places of its two curves by variant.
    """
    curves: dict[str, int] = {}
    parts = []
    for name in DRAWN:
        loss, usual = _Loss(name), any_loss(name)
        pool = usual.formula.pool if isinstance(usual, Balanced) else usual.pool
        variants = {key: [curves.setdefault(text, len(curves)) for text in sides] for key, sides in loss.variants()}
        told = {
            "source": usual.source if isinstance(usual, Balanced) else (SOURCES | UNKNOWN_SOURCES)[name],
            "other": "an unknown label" if name in UNKNOWN else "a negative",
            "controls": [asdict(each) for each in loss.controls],
            "deciding": [each.name for each in loss.deciding],
            "variants": variants,
            "pool": type(pool).__name__,
            "alone": pool.per_label,
            "thresholded": pool.thresholded,
        }
        parts.append(f"  {name}: {{...{json.dumps(told)}, powers: {loss.powers()}, counted: {loss.counted()}}},")
    return "\n".join(["const curves = [", *(f"{text}," for text in curves), "];", "const losses = {", *parts, "};\n"])
