"""Losses that are made from the counts of the training labels: a formula, and what the counts do to it.

For a label with n positives in N training rows, before the formula

    z' = scale (z - kappa log(N / n - 1) - y D),   D = margin (smallest n / n)^(1/4)

and the label weighs (1 - beta) / (1 - beta^n), or, in a row with the labels P,

    alpha + sigmoid(steepness (r - middle)),   r = (1 / n) / sum_{j in P} 1 / n_j.

Factors that are the same for all labels and rows, which the official codes have besides, are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lopsided.losses import curves
from lopsided.losses.checks import check_number
from lopsided.losses.entries import SEARCH, Range, curve_of, shown
from lopsided.losses.formulas import Formula
from lopsided.losses.pools import Sum


@dataclass(frozen=True)
class Rebalancing:
    """Says how the weight of an entry follows from r, the share that its label has in the sampling of its row."""

    alpha: float
    steepness: float
    middle: float


@dataclass(frozen=True)
class Balanced:
    """Says what the counts do; the symbols are those of the module.

    deferred: the weights by beta count only once they are switched on, as late in training.
    """

    name: str  # with all settings
    source: str
    formula: Formula
    kappa: float = 0.0
    margin: float = 0.0
    scale: float = 1.0
    beta: float | None = None
    deferred: bool = False
    rebalancing: Rebalancing | None = None

    def __str__(self) -> str:
        return self.name


BALANCED: dict[str, Callable[..., Balanced]] = {}


def _entry(**search: Range) -> Callable[[Callable[..., Balanced]], Callable[..., Balanced]]:
    """Registers a loss, with the ranges of the hyperparameters that are worth tuning."""

    def register(make: Callable[..., Balanced]) -> Callable[..., Balanced]:
        BALANCED[make.__name__], SEARCH[make.__name__] = make, search
        return make

    return register


_GAMMA, _BETA = {"gamma": Range(0, 5)}, {"beta": Range(0, 0.999)}
_MAPPING = {"alpha": Range(0, 1), "steepness": Range(1, 20), "middle": Range(0, 1)}
_REGULARISED = {"kappa": Range(0, 0.2), "tolerance": Range(1, 10, log=True)}
_HUANG, _WU = "arXiv 2109.04712", "arXiv 2007.09654"


@_entry(**_BETA, **_GAMMA)
def cb(beta: float = 0.9, gamma: float = 2.0) -> Balanced:
    """CB: focal loss, labels weighed by (1 - beta) / (1 - beta^n). Cui et al. 2019, eq. 2."""
    beta, gamma = _share("beta", beta), check_number("gamma", gamma, low=0)
    return Balanced(shown("cb", beta=beta, gamma=gamma), _HUANG, _focal(gamma), beta=beta)


@_entry(**_MAPPING, **_GAMMA)
def rebalanced(alpha: float = 0.1, steepness: float = 10.0, middle: float = 0.9, gamma: float = 2.0) -> Balanced:
    """R-FL: focal loss, entries weighed by what sampling rows by labels would do to them. Wu et al. 2020.

    With gamma 0 it is R-BCE.
    """
    mapping, gamma = _mapping(alpha, steepness, middle), check_number("gamma", gamma, low=0)
    name = shown("rebalanced", **vars(mapping), gamma=gamma)
    return Balanced(name, _WU, _focal(gamma), rebalancing=mapping)


@_entry(**_REGULARISED, **_GAMMA)
def ntr(kappa: float = 0.05, tolerance: float = 2.0, gamma: float = 2.0) -> Balanced:
    """NTR-FL: focal loss, negatives stretched by the tolerance, logits moved by kappa. Wu et al. 2020."""
    kappa, tolerance, gamma = _regularised(kappa, tolerance, gamma)
    name = shown("ntr", kappa=kappa, tolerance=tolerance, gamma=gamma)
    return Balanced(name, _WU, _focal(gamma, tolerance), kappa)


@_entry(**_BETA, **_REGULARISED, **_GAMMA)
def cb_ntr(beta: float = 0.9, kappa: float = 0.05, tolerance: float = 2.0, gamma: float = 2.0) -> Balanced:
    """CB-NTR: the weights of cb, and the rest of ntr. Huang et al. 2021."""
    beta, (kappa, tolerance, gamma) = _share("beta", beta), _regularised(kappa, tolerance, gamma)
    name = shown("cb_ntr", beta=beta, kappa=kappa, tolerance=tolerance, gamma=gamma)
    return Balanced(name, _HUANG, _focal(gamma, tolerance), kappa, beta=beta)


@_entry(**_MAPPING, **_REGULARISED, **_GAMMA)
def db(
    alpha: float = 0.1,
    steepness: float = 10.0,
    middle: float = 0.9,
    kappa: float = 0.05,
    tolerance: float = 2.0,
    gamma: float = 2.0,
) -> Balanced:
    """DB: the weights of rebalanced, and the rest of ntr. Wu et al. 2020, with the settings of Huang et al. 2021.

    With gamma 0 it is DB-0FL.
    """
    mapping, (kappa, tolerance, gamma) = _mapping(alpha, steepness, middle), _regularised(kappa, tolerance, gamma)
    name = shown("db", **vars(mapping), kappa=kappa, tolerance=tolerance, gamma=gamma)
    return Balanced(name, _WU, _focal(gamma, tolerance), kappa, rebalancing=mapping)


@_entry(margin=Range(0, 1), scale=Range(1, 64, log=True))
def ldam(margin: float = 0.5, scale: float = 30.0, beta: float = 0.9999) -> Balanced:
    """LDAM: cross-entropy of scale (z - y D), D = margin (smallest n / n)^(1/4). Cao et al. 2019.

    The paper has a softmax; this is its form with a sigmoid for each label. The weights by beta are those of its
    deferred re-weighting, DRW.
    """
    margin, scale = check_number("margin", margin, low=0), check_number("scale", scale, low=0.001)
    beta = _share("beta", beta)
    name = shown("ldam", margin=margin, scale=scale, beta=beta)
    return Balanced(name, "arXiv 1906.07413", _focal(0.0), margin=margin, scale=scale, beta=beta, deferred=True)


def _focal(gamma: float, tolerance: float = 1.0) -> Formula:
    """Returns focal loss without its alpha, the negatives stretched."""
    positive = curve_of(curves.polynomial_positive, gamma=gamma)
    if tolerance == 1:
        return Formula(positive, curve_of(curves.polynomial_negative, gamma=gamma), Sum())
    return Formula(positive, curve_of(curves.tolerant_negative, scale=tolerance, gamma=gamma), Sum())


def _regularised(kappa: float, tolerance: float, gamma: float) -> tuple[float, float, float]:
    tolerance = check_number("tolerance", tolerance, low=0.001, high=1000)
    return check_number("kappa", kappa, low=0), tolerance, check_number("gamma", gamma, low=0)


def _mapping(alpha: float, steepness: float, middle: float) -> Rebalancing:
    steepness = check_number("steepness", steepness, low=0.001)
    return Rebalancing(check_number("alpha", alpha, low=0), steepness, check_number("middle", middle))


def _share(name: str, value: float) -> float:
    return check_number(name, value, low=0, high=1)
