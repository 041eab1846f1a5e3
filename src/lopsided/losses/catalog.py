"""The losses by name: source, equation, defaults, and every known difference from the official code."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable

from lopsided.checks import check_clip, check_flag, check_number
from lopsided.losses.curves import identity, negation, polynomial_negative, polynomial_positive
from lopsided.losses.loss import Curve, CurveFunction, Loss
from lopsided.losses.pools import LogSumExp, Sum


def binary_cross_entropy() -> Loss:
    """-y log p - (1-y) log(1-p), summed over the labels of a row."""
    return _separable()


def focal(gamma: float = 2.0, detach_focus: bool = False) -> Loss:
    """-y (1-p)^g log p - (1-y) p^g log(1-p). Lin et al. 2017, arXiv 1708.02002, eq. 4 (without alpha)."""
    gamma = check_number("gamma", gamma, low=0)
    return _separable(gamma_neg=gamma, gamma_pos=gamma, detach_focus=detach_focus)


def asymmetric(gamma_neg: float = 4.0, gamma_pos: float = 0.0, clip: float = 0.05, detach_focus: bool = True) -> Loss:
    """ASL: -y (1-p)^g+ log p - (1-y) p_m^g- log(1-p_m), p_m = max(p - clip, 0). arXiv 2009.14119.

    Defaults are the paper's and those of the official training script; the official class defaults to
    gamma_pos=1. `detach_focus=True`, as in the published training, stops the gradient at the focusing weights.
    Differs from the official code: no eps clamp, so a badly missed positive keeps its gradient; soft targets mix
    the two terms; grad mode is left alone.
    """
    return _separable(
        gamma_neg=check_number("gamma_neg", gamma_neg, low=0),
        gamma_pos=check_number("gamma_pos", gamma_pos, low=0),
        margin=check_clip(clip),
        detach_focus=detach_focus,
    )


def asymmetric_polynomial(
    gamma_neg: float = 4.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    epsilon_pos: float = 1.0,
    epsilon_neg: float = 0.0,
    epsilon_pos_pow: float = -2.5,
    detach_focus: bool = True,
) -> Loss:
    """APL: ASL with its leading Taylor coefficients changed. arXiv 2304.05361; signs as in the official code.

    Positives: (1-p)^g+ (-log p - epsilon_pos (1-p) - epsilon_pos_pow/2 (1-p)^2), so the first two coefficients
    are 1 - epsilon_pos and (1 - epsilon_pos_pow)/2. Negatives: p_m^g- (-log(1-p_m) - epsilon_neg (1-p_m)).
    Differs from the official code as ASL does; there the epsilons are fixed inside the class.
    """
    return _separable(
        gamma_neg=check_number("gamma_neg", gamma_neg, low=0),
        gamma_pos=check_number("gamma_pos", gamma_pos, low=0),
        margin=check_clip(clip),
        first_pos=check_number("epsilon_pos", epsilon_pos),
        second_pos=check_number("epsilon_pos_pow", epsilon_pos_pow),
        first_neg=check_number("epsilon_neg", epsilon_neg),
        detach_focus=detach_focus,
    )


def zlpr() -> Loss:
    """ZLPR: log(1 + sum_neg e^z) + log(1 + sum_pos e^-z), decided at 0. arXiv 2208.02955.

    Soft targets: log(1 + sum_l t_l e^-z_l) + log(1 + sum_l (1-t_l) e^z_l).
    """
    return Loss(Curve(negation), Curve(identity), LogSumExp)


def _separable(
    *,
    gamma_neg: float = 0.0,
    gamma_pos: float = 0.0,
    margin: float = 0.0,
    first_pos: float = 0.0,
    second_pos: float = 0.0,
    first_neg: float = 0.0,
    detach_focus: bool = False,
) -> Loss:
    """Settings at 0 are left out, so that equal losses are equal values: ASL(0, 0, 0) is BCE."""
    check_flag("detach_focus", detach_focus)

    def curve(function: CurveFunction, **settings: float) -> Curve:
        detach = float(detach_focus and settings["gamma"] > 0)
        return Curve(function, tuple((key, x) for key, x in (settings | {"detach": detach}).items() if x))

    return Loss(
        curve(polynomial_positive, gamma=gamma_pos, first=first_pos, second=second_pos),
        curve(polynomial_negative, gamma=gamma_neg, margin=margin, first=first_neg),
        Sum,
    )


CATALOG: dict[str, Callable[..., Loss]] = {
    "bce": binary_cross_entropy,
    "focal": focal,
    "asl": asymmetric,
    "apl": asymmetric_polynomial,
    "zlpr": zlpr,
}


_LONGEST_SPEC = 200
_SPEC = re.compile(r"\s*\w+\s*(\((\s*\w+\s*=\s*[\w.+-]+\s*,?)*\))?\s*", re.ASCII)


def parse(spec: str) -> Loss:
    """The loss that a string such as ``"bce"`` or ``"asl(gamma_neg=2, clip=0)"`` names.

    Raises ValueError, with the nearest known name, for anything else.

    >>> parse("asl(gamma_neg=0, clip=0)") == parse("bce")
    True
    """
    try:
        if len(spec) > _LONGEST_SPEC or not _SPEC.fullmatch(spec):
            raise SyntaxError
        call = ast.parse(spec.strip(), mode="eval").body
        name, keywords = (call.func, call.keywords) if isinstance(call, ast.Call) else (call, [])
        if not isinstance(name, ast.Name) or (isinstance(call, ast.Call) and call.args):
            raise SyntaxError
        arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in keywords}
    except (SyntaxError, ValueError):
        raise ValueError(f"cannot read the loss {spec[:60]!r}: write a name or name(setting=number, ...)") from None
    if name.id not in CATALOG:
        near = difflib.get_close_matches(name.id.lower(), CATALOG, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else "choose from"
        raise ValueError(f"unknown loss {name.id!r}: {hint} (known: {', '.join(CATALOG)})")
    try:
        return CATALOG[name.id](**arguments)
    except TypeError as error:
        raise ValueError(f"cannot make the loss {spec!r}: {error}") from None


def split_specs(text: str) -> tuple[str, ...]:
    """Split a list of losses at the commas outside parentheses.

    >>> split_specs("bce, asl(gamma_neg=2, clip=0)")
    ('bce', 'asl(gamma_neg=2, clip=0)')
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return tuple(part.strip() for part in parts if part.strip())
