"""The register of the losses: what an entry of the catalog says, and how it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lopsided.losses import curves
from lopsided.losses.formulas import Curve, Formula, Setting
from lopsided.losses.pools import Pool


@dataclass(frozen=True)
class Range:
    """Where to look for the value of a hyperparameter."""

    low: float
    high: float
    log: bool = False  # search the orders of magnitude evenly

    def at(self, share: float) -> float:
        """Returns the value at a share, in [0, 1], of the way from low to high."""
        return self.low * (self.high / self.low) ** share if self.log else self.low + share * (self.high - self.low)

    def rounded(self, value: float) -> float:
        """Returns what a person would copy: four digits of an order of magnitude, else three places after the point."""
        return float(f"{value:.4g}") if self.log else round(value, 3)


CATALOG: dict[str, Callable[..., Formula]] = {}
SOURCES: dict[str, str] = {}
SEARCH: dict[str, dict[str, Range]] = {}  # of every loss, around the values of the papers and of the official codes

LEARNING_RATE = Range(10**-0.5, 10**0.5, log=True)  # for every loss: times the best rate of a coarse ladder


def entry(name: str, source: str, **search: Range) -> Callable[[Callable[..., Formula]], Callable[..., Formula]]:
    """Registers a loss: its name, its source, and the ranges of the hyperparameters that are worth tuning."""

    def register(make: Callable[..., Formula]) -> Callable[..., Formula]:
        CATALOG[name], SOURCES[name], SEARCH[name] = make, source, search
        return make

    return register


def named(name: str, positive: Curve, negative: Curve, pool: Pool, **settings: object) -> Formula:
    """Returns a formula with its name, which shows the settings that are not None."""
    return Formula(positive, negative, pool, named=shown(name, **settings))


def shown(name: str, **settings: object) -> str:
    """Returns a name with the settings that are not None, as `lopsided.losses.formula` reads it."""
    listed = ", ".join(f"{key}={_show(value)}" for key, value in settings.items() if value is not None)
    return f"{name}({listed})" if listed else name


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_show, value))}{',' * (len(value) == 1)})"
    return repr(value).removesuffix(".0")


def curve_of(function: Callable[..., curves.Values], **settings: Setting) -> Curve:
    """Returns a curve without settings at their neutral value: equal losses are equal values, ASL(0, 0, 0) and BCE."""
    neutral = {"scale": 1.0} if function in (curves.polynomial_positive, curves.polynomial_negative) else {}
    effective = {key: value for key, value in settings.items() if value and value != neutral.get(key)}
    if "gamma" not in effective:
        effective.pop("detach", None)
    return Curve(function, tuple(effective.items()))
