"""The string form of losses: `asl(gamma_neg=2, clip=0)`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TypeVar

from lopsided.losses import families as families  # which puts its losses into the catalog
from lopsided.losses.catalog import asymmetric
from lopsided.losses.checks import check_number, did_you_mean, is_compiling
from lopsided.losses.entries import CATALOG, SEARCH, Range
from lopsided.losses.formulas import Formula
from lopsided.losses.frequencies import BALANCED, Balanced
from lopsided.losses.unknown import UNKNOWN

T = TypeVar("T")

PRESETS: dict[str, Formula] = {
    "asl_paper": asymmetric(4, 0, 0.05, detach_focus=True),  # the paper's recipe, the official training script
    "asl_official": asymmetric(4, 1, 0.05, detach_focus=True),  # class AsymmetricLoss
    "asl_optimized": asymmetric(4, 1, 0.05, detach_focus=False),  # class AsymmetricLossOptimized
    "asl_timm": asymmetric(4, 1, 0.05, detach_focus=False),
    "asl_mmpretrain": asymmetric(4, 0, 0.05, detach_focus=False),
}

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_SPAN = re.compile(rf"(\w+)\s*=\s*({_NUMBER})\.\.({_NUMBER})(?=\s*[,)])")
_LONGEST = 4000
_NUMBERS = r"\(\s*[\w.+-]*(\s*,\s*[\w.+-]+)*\s*,?\s*\)"
_SETTING = rf"\w+\s*=\s*([\w.+-]+|{_NUMBERS})"
_SPEC = re.compile(rf"\s*\w+\s*(\(\s*({_SETTING}(\s*,\s*{_SETTING})*\s*,?)?\s*\))?\s*", re.ASCII)


@dataclass(frozen=True)
class Span:
    """Holds the values of a setting that moves with the epochs of a training, in the first and in the last."""

    start: float
    end: float

    def __repr__(self) -> str:
        return f"{self.start!r}..{self.end!r}"


def formula(spec: str, **settings: object) -> Formula:
    """Makes the loss that a string such as ``"bce"`` or ``"asl(gamma_neg=2, clip=0)"`` names, with more settings.

    Raises ValueError, with the nearest known name, for anything else.

    >>> formula("asl(gamma_neg=0, clip=0)") == formula("asl", gamma_neg=0, clip=0) == formula("bce")
    True
    >>> print(formula("zlpr(scale=2)"))
    zlpr(threshold=0, scale=2, margin=0)
    """
    name, arguments = read(spec, settings)
    if name in PRESETS:
        if arguments:
            raise ValueError(f"{name} takes no settings: it is {PRESETS[name]}")
        return PRESETS[name]
    if name in BALANCED:
        raise ValueError(
            f"{name} is made from the counts of the training labels, so its name alone says nothing of curves or of a "
            f"threshold: take lopsided.BalancedLoss({spec!r}, counts, rows), or LinearHead(..., counts=, rows=)"
        )
    for setting, value in arguments.items():
        if isinstance(value, Span):
            raise ValueError(
                f"{setting}={value} is a schedule, which the commands train by: in a loop of your own, take "
                "lopsided.losses.between for the loss of each epoch"
            )
    makers = CATALOG | UNKNOWN
    if name not in makers:
        known = [*makers, *PRESETS, *BALANCED]
        listed = f" (known: {', '.join(known)})"
        raise ValueError(f"unknown loss {name!r}{did_you_mean(name, known) or listed}")
    return _made(makers[name], spec, arguments)


def between(start: str, end: str, share: float) -> Formula:
    """Makes the loss a share of the way from one to another of the same name: a schedule, asked for in each epoch.

    Settings that only one of them gives are its defaults in the other. Raises ValueError for losses of two names, and
    for settings other than numbers that differ.

    >>> print(between("asl(gamma_neg=0)", "asl(gamma_neg=4)", 0.5))
    asl(gamma_neg=2, gamma_pos=0, clip=0.05, detach_focus=True)
    """
    (name, first), (other, last) = read(start), read(end)
    if name != other:
        raise ValueError(f"a schedule goes between settings of one loss, got {name} and {other}")
    share = check_number("share", share)
    settings: dict[str, object] = {}
    for setting in first | last:
        usual = inspect.signature((CATALOG | UNKNOWN)[name]).parameters[setting].default
        one, two = first.get(setting, usual), last.get(setting, usual)
        if one != two:
            low, high = check_number(setting, one), check_number(setting, two)  # type: ignore[arg-type]
            settings[setting] = low + (high - low) * min(max(share, 0.0), 1.0)
        else:
            settings[setting] = one
    return formula(name, **settings)


def split_threshold(spec: str) -> tuple[str, object]:
    """Returns a spec without its `threshold_logit`, which is an option of any loss, and that; None where it has none.

    >>> split_threshold("asl(clip=0, threshold_logit=0)")
    ('asl(clip=0)', 0)
    """
    name, given = read(spec)
    place = given.pop("threshold_logit", None)
    return with_settings(name, given), place


def ends(spec: str) -> tuple[str, str]:
    """Returns the loss of the first and of the last epoch, by name; the same where no setting moves.

    >>> ends("wan(weight=0.05..1)")
    ('wan(weight=0.05)', 'wan(weight=1)')
    """
    name, given = read(spec)
    start = {setting: value.start if isinstance(value, Span) else value for setting, value in given.items()}
    end = {setting: value.end if isinstance(value, Span) else value for setting, value in given.items()}
    return with_settings(name, start), with_settings(name, end)


def balanced(spec: str, **settings: object) -> Balanced:
    """Makes the loss that a string such as ``"db"`` or ``"db(gamma=0)"`` names: one of those made from label counts.

    Raises ValueError for anything else.

    >>> print(balanced("cb(beta=0.99)"))
    cb(beta=0.99, gamma=2)
    """
    name, given = read(spec)
    if name not in BALANCED:
        raise ValueError(f"{name!r} is not made from label counts: those are {', '.join(BALANCED)}")
    return _made(BALANCED[name], spec, given | settings)


def any_loss(spec: str) -> Formula | Balanced:
    """Makes the loss that a string names, be it one of curves alone, or one made from label counts.

    Raises ValueError for anything else.

    >>> print(any_loss("bce"), any_loss("cb"))
    bce cb(beta=0.9, gamma=2)
    """
    return balanced(spec) if read(spec)[0] in BALANCED else formula(spec)


def _made(make: Callable[..., T], spec: str, arguments: dict[str, object]) -> T:
    accepted = list(inspect.signature(make).parameters)
    shown = f"its settings are: {', '.join(accepted) or 'none'}"
    for name in arguments:
        if name not in accepted:
            raise ValueError(f"the loss {spec!r} has no setting {name!r}{did_you_mean(name, accepted)} ({shown})")
    try:
        return make(**arguments)
    except TypeError as error:
        raise ValueError(f"cannot make the loss {spec!r}: {error}; {shown}") from None


_read: dict[str, Formula] = {}  # names that compiled graphs hold


def _remember(spec: str) -> None:
    _read[spec] = formula(spec)


# What torch.compiler.assume_constant_result does, but that would import all of dynamo: a name is read when the graph is
# made. The formula comes from a dictionary, since dynamo does not see all of an object that a function returns.
_remember._dynamo_marked_constant = True  # type: ignore[attr-defined]


_named = lru_cache(maxsize=1024)(formula)  # formulas are values, and to read a name takes as long as a small loss


def as_formula(loss: Formula | str) -> Formula:
    """Returns a loss as it is, or by its name."""
    if isinstance(loss, str):
        if not is_compiling():
            return _named(loss)
        _remember(loss)
        return _read[loss]
    if not isinstance(loss, Formula):
        raise TypeError(
            f"loss must be a lopsided Formula or its name, got {type(loss).__name__}: of a module, pass its formula"
        )
    return loss


def read(spec: str, more: Mapping[str, object] = MappingProxyType({})) -> tuple[str, dict[str, object]]:
    """Returns the name in a spec, and its settings with more, which need not be those of any loss; `a..b` is a `Span`.

    >>> read("asl(gamma_neg=2, clip=0)")
    ('asl', {'gamma_neg': 2, 'clip': 0})
    """
    spans = {name: Span(*map(ast.literal_eval, both)) for name, *both in _SPAN.findall(spec[:_LONGEST])}
    try:
        if len(spec) > _LONGEST or not _SPEC.fullmatch(" ".join(spec.split())):
            raise SyntaxError
        call = ast.parse(_SPAN.sub(r"\1=\2", spec.strip()), mode="eval").body
        name, keywords = (call.func, call.keywords) if isinstance(call, ast.Call) else (call, [])
        if not isinstance(name, ast.Name) or (isinstance(call, ast.Call) and call.args):
            raise SyntaxError
        settings = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in keywords}
    except (SyntaxError, ValueError):
        raise ValueError(f"cannot read the loss {spec[:60]!r}: write one name or name(setting=number, ...)") from None
    if len(settings) < len(keywords):
        raise ValueError(f"a setting is given twice in the loss {spec[:60]!r}")
    for setting in settings.keys() & more:
        raise ValueError(f"{setting} is given twice: in {spec!r} and as a keyword")
    return name.id, {**settings, **spans, **more}


def split_specs(text: str) -> tuple[str, ...]:
    """Splits a list of losses at the commas outside parentheses.

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


INSTEAD = {"alphas": ("epsilon_pos", "epsilon_pos_pow"), "betas": ("epsilon_neg",)}  # one or the others, not both


def ranges(spec: str) -> dict[str, Range]:
    """Returns the hyperparameters of a loss that its spec leaves open, and where to look for each.

    >>> ranges("asl(gamma_pos=0, clip=0)")
    {'gamma_neg': Range(low=0, high=8, log=False)}
    >>> ranges("bce")
    {}
    """
    name, given = read(spec)
    fixed = {*given, *(setting for instead in given for setting in INSTEAD.get(instead, ()))}
    return {setting: where for setting, where in SEARCH.get(name, {}).items() if setting not in fixed}


def defaults(spec: str) -> dict[str, float]:
    """Returns what the hyperparameters that may be tuned are if nobody tunes them.

    >>> defaults("asl(gamma_neg=2)")
    {'gamma_pos': 0.0, 'clip': 0.05}
    """
    name, _ = read(spec)
    makers: dict[str, Callable[..., object]] = {**CATALOG, **UNKNOWN, **BALANCED}
    return {setting: inspect.signature(makers[name]).parameters[setting].default for setting in ranges(spec)}


def with_settings(spec: str, settings: Mapping[str, object]) -> str:
    """Returns a spec with more settings, which it must not have yet.

    >>> with_settings("asl(clip=0)", {"gamma_neg": 2.5})
    'asl(clip=0, gamma_neg=2.5)'
    """
    name, given = read(spec, settings)
    shown = ", ".join(f"{setting}={value!r}" for setting, value in given.items())
    return f"{name}({shown})" if shown else name
