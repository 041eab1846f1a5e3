"""The losses by name: source, equation, defaults, and every known difference from the official code."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from lopsided.losses import curves
from lopsided.losses.checks import check_clip, check_flag, check_number, check_numbers, is_compiling
from lopsided.losses.entries import Range, curve_of, entry, named
from lopsided.losses.formulas import Formula
from lopsided.losses.pools import LogSumExp, MeanPairs, Pairs, Softmax, Sum, TwoWayPairs

_ASYMMETRIC = {"gamma_neg": Range(0, 8), "gamma_pos": Range(0, 2), "clip": Range(0, 0.3)}
_POLYNOMIAL = {"epsilon_pos": Range(-1, 1), "epsilon_pos_pow": Range(-3, 0)}  # all of them monotone
_LAMB = {"lamb": Range(1.5, 3)}


@entry("bce", "torch.nn.BCEWithLogitsLoss")
def binary_cross_entropy() -> Formula:
    """-y log p - (1-y) log(1-p), p = sigmoid(z)."""
    return named("bce", curve_of(curves.polynomial_positive), curve_of(curves.polynomial_negative), Sum())


@entry("soft_margin", "torch.nn.MultiLabelSoftMarginLoss")
def soft_margin() -> Formula:
    """log(1 + e^-z) for positives, log(1 + e^z) for negatives: binary cross-entropy under another name."""
    formula = binary_cross_entropy()
    return named("soft_margin", formula.positive, formula.negative, formula.pool)


@entry("squared_hinge", "LIBLINEAR, JMLR 2008")
def squared_hinge() -> Formula:
    """max(0, 1 - z)^2 for positives, max(0, 1 + z)^2 for negatives. Fan et al. 2008, section 2: the L2-loss SVM.

    Differs from the official code: value and slope stop growing where a label is missed by 2^14.
    """
    return named(
        "squared_hinge", curve_of(curves.squared_hinge, scale=-1.0), curve_of(curves.squared_hinge, scale=1.0), Sum()
    )


@entry("focal", "arXiv 1708.02002", gamma=Range(0, 5))
def focal(gamma: float = 2.0, alpha: float | None = None, detach_focus: bool = False) -> Formula:
    """-alpha y (1-p)^g log p - (1-alpha) (1-y) p^g log(1-p). Lin et al. 2017, eq. 5; without alpha eq. 4."""
    gamma = check_number("gamma", gamma, low=0)
    formula = asymmetric(gamma, gamma, 0.0, detach_focus, alpha)
    sides = formula.positive, formula.negative, formula.pool
    alpha = None if alpha is None else _share("alpha", alpha)
    return named("focal", *sides, gamma=gamma, alpha=alpha, detach_focus=detach_focus)


@entry("asl", "arXiv 2009.14119", **_ASYMMETRIC)
def asymmetric(
    gamma_neg: float = 4.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    detach_focus: bool = True,
    alpha: float | None = None,
) -> Formula:
    """ASL: -y (1-p)^g+ log p - (1-y) p_m^g- log(1-p_m), p_m = max(p - clip, 0). `alpha` as in `focal`.

    Defaults are the paper's and those of the official training script; the official class defaults to
    gamma_pos=1. `detach_focus=True`, as in that script, stops the gradient at the focusing weights.
    Differs from the official code: no eps clamp, so a badly missed positive keeps its gradient; soft targets mix
    the two terms; grad mode is left alone.
    """
    gammas, margin = _gammas(gamma_neg, gamma_pos), check_clip(clip)
    check_flag("detach_focus", detach_focus)
    alpha = None if alpha is None else _share("alpha", alpha)
    up, down = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    return named(
        "asl",
        curve_of(curves.polynomial_positive, gamma=gammas["gamma_pos"], scale=up, detach=detach_focus),
        curve_of(curves.polynomial_negative, gamma=gammas["gamma_neg"], margin=margin, scale=down, detach=detach_focus),
        Sum(),
        **gammas,
        clip=margin,
        detach_focus=detach_focus,
        alpha=alpha,
    )


@entry("apl", "arXiv 2304.05361", **_ASYMMETRIC, **_POLYNOMIAL, epsilon_neg=Range(-1, 0))
def asymmetric_polynomial(
    gamma_neg: float = 4.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    epsilon_pos: float = 1.0,
    epsilon_neg: float = 0.0,
    epsilon_pos_pow: float = -2.5,
    detach_focus: bool = True,
    alphas: Sequence[float] | None = None,
    betas: Sequence[float] | None = None,
    monotone: bool = True,
) -> Formula:
    """APL: ASL with its leading Taylor coefficients changed; epsilons with the signs of the official code.

    Positives: (1-p)^g+ (-log p - epsilon_pos (1-p) - epsilon_pos_pow/2 (1-p)^2). Negatives: p_m^g- (-log(1-p_m) -
    epsilon_neg (1-p_m)), which holds the official constant -epsilon_neg. `alphas` take the place of the epsilons of
    the positives, `betas` of the negatives: coefficients of (1-p)^m and p_m^n, 1/m and 1/n beyond the last; no
    constant. Settings that push a label the wrong way are refused unless `monotone=False`.
    Differs from the official code as ASL does; there the epsilons are fixed inside the class.
    """
    gammas, margin = _gammas(gamma_neg, gamma_pos), check_clip(clip)
    check_flag("detach_focus", detach_focus)
    check_flag("monotone", monotone)
    positive, shown_positive = _positive_terms(epsilon_pos, epsilon_pos_pow, alphas)
    negative, constant, shown_negative = _negative_terms(epsilon_neg, betas)
    formula = named(
        "apl",
        curve_of(curves.polynomial_positive, gamma=gammas["gamma_pos"], terms=positive, detach=detach_focus),
        curve_of(
            curves.polynomial_negative,
            gamma=gammas["gamma_neg"],
            margin=margin,
            terms=negative,
            constant=constant,
            detach=detach_focus,
        ),
        Sum(),
        **gammas,
        clip=margin,
        **shown_positive,
        **shown_negative,
        detach_focus=detach_focus,
        monotone=None if monotone else False,
    )
    if monotone and not is_compiling():
        _check_monotone(formula)
    return formula


@entry("hill", "arXiv 2112.07368", gamma=Range(0, 4), margin=Range(0, 2), **_LAMB)
def hill(gamma: float = 2.0, margin: float = 1.0, lamb: float = 1.5) -> Formula:
    """Hill: positives -(1-p)^g log p at p = sigmoid(z - margin), negatives p^2 (lamb - p). Zhang et al. 2021.

    lamb >= 1.5 keeps the negatives monotone. Differs from the official code: no log(0), so no infinite value.
    """
    gamma, margin = check_number("gamma", gamma, low=0), check_number("margin", margin)
    peak = check_number("lamb", lamb, low=1.5)
    return named(
        "hill",
        curve_of(curves.polynomial_positive, gamma=gamma, shift=margin),
        curve_of(curves.hill_negative, peak=peak),
        Sum(),
        gamma=gamma,
        margin=margin,
        lamb=peak,
    )


@entry("ral", "arXiv 2308.05542", **_ASYMMETRIC, **_POLYNOMIAL, **_LAMB)
def robust_asymmetric(
    gamma_neg: float = 4.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    lamb: float = 1.5,
    epsilon_pos: float = 1.0,
    epsilon_pos_pow: float = -2.5,
    detach_focus: bool = False,
) -> Formula:
    """RAL: APL's positives; ASL's negatives times (lamb - p) p^2 (lamb - (1 - p_m)). Park et al. 2023.

    As in the official code, which leaves the focusing weights attached; without its log clamp and with its
    epsilon_neg at 0. lamb >= 1.5 keeps the negatives monotone.
    """
    gammas, margin = _gammas(gamma_neg, gamma_pos), check_clip(clip)
    check_flag("detach_focus", detach_focus)
    peak = check_number("lamb", lamb, low=1.5)
    terms, shown = _positive_terms(epsilon_pos, epsilon_pos_pow, None)
    formula = named(
        "ral",
        curve_of(curves.polynomial_positive, gamma=gammas["gamma_pos"], terms=terms, detach=detach_focus),
        curve_of(curves.robust_negative, gamma=gammas["gamma_neg"], margin=margin, peak=peak, detach=detach_focus),
        Sum(),
        **gammas,
        clip=margin,
        lamb=peak,
        **shown,
        detach_focus=detach_focus,
    )
    if not is_compiling():
        _check_monotone(formula)
    return formula


@entry("zlpr", "arXiv 2208.02955", scale=Range(0.25, 4, log=True), margin=Range(0, 2))
def zlpr(threshold: float = 0.0, scale: float = 1.0, margin: float = 0.0) -> Formula:
    """ZLPR: log(1 + sum_neg e^(s (z-t+m))) + log(1 + sum_pos e^(-s (z-t-m))), decided at t.

    The paper has threshold t = 0, scale s = 1 and margin m = 0; scale and margin are those of circle loss (arXiv
    2002.10857, eq. 1) applied to both sides. Soft targets: log(1 + sum_l y_l e^-z_l) + log(1 + sum_l (1-y_l) e^z_l).
    """
    threshold = check_number("threshold", threshold, low=-1000, high=1000)
    scale, margin = _positive("scale", scale), check_number("margin", margin, low=-1000, high=1000)
    return named(
        "zlpr",
        curve_of(curves.exponent, scale=-scale, shift=threshold + margin),
        curve_of(curves.exponent, scale=scale, shift=threshold - margin),
        LogSumExp(),
        threshold=threshold,
        scale=scale,
        margin=margin,
    )


@entry("lsep", "arXiv 1704.03135")
def lsep() -> Formula:
    """LSEP: log(1 + sum_pos sum_neg e^(z_neg - z_pos)): ranks, without a threshold. Li et al. 2017, eq. 4."""
    return named("lsep", curve_of(curves.exponent, scale=-1.0), curve_of(curves.exponent, scale=1.0), Pairs())


@entry(
    "two_way",
    "Kobayashi, CVPR 2023",
    temperature_pos=Range(0.5, 8, log=True),
    temperature_neg=Range(0.5, 8, log=True),
)
def two_way(temperature_pos: float = 4.0, temperature_neg: float = 1.0) -> Formula:
    """Two-way loss: softplus(T- log sum_neg e^(z/T-) + T+ log sum_pos e^(-z/T+)), by rows plus by labels.

    Each way is averaged over the rows, or labels, that have a positive. Differs from the official code: masked
    entries count exactly nothing (there e^-100), and a batch without positives gives 0 instead of NaN.
    """
    up, down = _positive("temperature_pos", temperature_pos), _positive("temperature_neg", temperature_neg)
    return named(
        "two_way",
        curve_of(curves.exponent, scale=-1 / up),
        curve_of(curves.exponent, scale=1 / down),
        TwoWayPairs(up, down),
        temperature_pos=up,
        temperature_neg=down,
    )


@entry("bp_mll", "Zhang & Zhou, TKDE 2006")
def bp_mll() -> Formula:
    """BP-MLL: mean over the pairs of a row of e^(c_neg - c_pos), c = tanh(z). Eq. 3.

    Rows without a pair cost nothing, as rows that the paper leaves out.
    """
    return named(
        "bp_mll",
        curve_of(curves.bounded_exponent, scale=-1.0),
        curve_of(curves.bounded_exponent, scale=1.0),
        MeanPairs(),
    )


@entry("softmax", "arXiv 1805.00932")
def softmax() -> Formula:
    """Softmax cross entropy against the uniform distribution over the positives. Mahajan et al. 2018, section 2.1."""
    side = curve_of(curves.exponent, scale=1.0)
    return named("softmax", side, side, Softmax())


def _gammas(gamma_neg: float, gamma_pos: float) -> dict[str, float]:
    return {
        "gamma_neg": check_number("gamma_neg", gamma_neg, low=0),
        "gamma_pos": check_number("gamma_pos", gamma_pos, low=0),
    }


def _positive(name: str, value: float) -> float:
    number = check_number(name, value, low=0)
    if number < 1e-3:
        raise ValueError(f"{name} must be at least 0.001, got {number:g}")
    return number


def _share(name: str, value: float) -> float:
    number = check_number(name, value)
    if not 0 < number < 1:
        raise ValueError(f"{name} must be in (0, 1), got {number:g}")
    return number


_Shown = dict[str, object]


def _positive_terms(first: float, second: float, alphas: Sequence[float] | None) -> tuple[tuple[float, ...], _Shown]:
    """Returns what is added to the Taylor coefficients 1/m of -log p in powers of 1 - p."""
    if alphas is not None:
        if (first, second) != (1.0, -2.5):
            raise ValueError("give alphas or epsilon_pos and epsilon_pos_pow, not both")
        alphas = check_numbers("alphas", alphas)
        return _trim(alpha - 1 / order for order, alpha in enumerate(alphas, start=1)), {"alphas": alphas}
    first, second = check_number("epsilon_pos", first), check_number("epsilon_pos_pow", second)
    return _trim((-first, -second / 2)), {"epsilon_pos": first, "epsilon_pos_pow": second}


def _negative_terms(first: float, betas: Sequence[float] | None) -> tuple[tuple[float, ...], float, _Shown]:
    """Returns the same for -log(1-r) in powers of r, and the official constant."""
    if betas is not None:
        if first != 0:
            raise ValueError("give betas or epsilon_neg, not both")
        betas = check_numbers("betas", betas)
        return _trim(beta - 1 / order for order, beta in enumerate(betas, start=1)), 0.0, {"betas": betas}
    first = check_number("epsilon_neg", first)
    return _trim((first,)), -first, {"epsilon_neg": first}


def _trim(terms: Iterable[float]) -> tuple[float, ...]:
    coefficients = list(terms)
    while coefficients and coefficients[-1] == 0:
        coefficients.pop()
    return tuple(coefficients)


@functools.lru_cache
def _check_monotone(formula: Formula) -> None:
    """Refuses settings whose slope has the wrong sign by more than 1e-9 of what cross-entropy would have there."""
    import torch

    z = torch.linspace(-25, 25, 5001, dtype=torch.float64, device="cpu")
    for side, curve, sign, p in (
        ("positive", formula.positive, -1, torch.sigmoid(-z)),
        ("negative", formula.negative, 1, torch.sigmoid(z)),
    ):
        wrong = -sign * torch.as_tensor(curve(z)[1], device=z.device) > 1e-9 * p ** (1 + curve.setting("gamma"))
        if wrong.any():
            at = torch.sigmoid(z[wrong.nonzero()[0]]).item()
            raise ValueError(
                f"{formula} would train {side} labels the wrong way, at p = {at:.3g} for one: its slope changes sign "
                "there. epsilon_pos <= 1 with epsilon_pos_pow <= 0 is safe; for apl also alphas and betas >= 0, and -1 "
                "<= epsilon_neg <= 0 (above 0 with detach_focus=True), and monotone=False allows such a loss for study"
            )
