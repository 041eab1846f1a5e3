"""What may be tuned: the hyperparameters of the losses, and where good values lie."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from lopsided.losses.catalog import CATALOG
from lopsided.losses.spec import read


@dataclass(frozen=True)
class Range:
    low: float
    high: float
    log: bool = False  # search the orders of magnitude evenly


LEARNING_RATE = Range(0.1, 10.0, log=True)  # times the rate that was asked for; for every loss

_ASYMMETRIC = {"gamma_neg": Range(0, 8), "gamma_pos": Range(0, 2), "clip": Range(0, 0.3)}
_POLYNOMIAL = {"epsilon_pos": Range(-1, 1), "epsilon_pos_pow": Range(-3, 0)}  # all of them monotone

# around the values of the papers and of the official codes; a loss that is not here has nothing to tune
SEARCH: dict[str, dict[str, Range]] = {
    "focal": {"gamma": Range(0, 5)},
    "asl": _ASYMMETRIC,
    "apl": _ASYMMETRIC | _POLYNOMIAL | {"epsilon_neg": Range(-1, 0)},
    "hill": {"gamma": Range(0, 4), "margin": Range(0, 2), "lamb": Range(1.5, 3)},
    "ral": _ASYMMETRIC | _POLYNOMIAL | {"lamb": Range(1.5, 3)},
    "zlpr": {"scale": Range(0.25, 4, log=True), "margin": Range(0, 2)},
    "two_way": {"temperature_pos": Range(0.5, 8, log=True), "temperature_neg": Range(0.5, 8, log=True)},
}

_INSTEAD = {"alphas": ("epsilon_pos", "epsilon_pos_pow"), "betas": ("epsilon_neg",)}  # one or the others, not both


def ranges(spec: str) -> dict[str, Range]:
    """The hyperparameters of a loss that its spec leaves open, and where to look for each.

    >>> ranges("asl(gamma_pos=0, clip=0)")
    {'gamma_neg': Range(low=0, high=8, log=False)}
    >>> ranges("bce")
    {}
    """
    name, given = read(spec)
    fixed = {*given, *(setting for instead in given for setting in _INSTEAD.get(instead, ()))}
    return {setting: where for setting, where in SEARCH.get(name, {}).items() if setting not in fixed}


def defaults(spec: str) -> dict[str, float]:
    """What the hyperparameters that may be tuned are if nobody tunes them.

    >>> defaults("asl(gamma_neg=2)")
    {'gamma_pos': 0.0, 'clip': 0.05}
    """
    name, _ = read(spec)
    return {setting: inspect.signature(CATALOG[name]).parameters[setting].default for setting in ranges(spec)}


def with_settings(spec: str, settings: dict[str, float]) -> str:
    """A spec with more settings, which it must not have yet.

    >>> with_settings("asl(clip=0)", {"gamma_neg": 2.5})
    'asl(clip=0, gamma_neg=2.5)'
    """
    name, given = read(spec)
    shown = ", ".join(f"{setting}={value!r}" for setting, value in (given | settings).items())
    return f"{name}({shown})" if shown else name
