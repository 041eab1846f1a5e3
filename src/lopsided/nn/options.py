"""What every loss takes beside logits and targets, and its checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypedDict, TypeVar, get_type_hints

from torch import Tensor

from lopsided.compute import check_backend
from lopsided.losses.checks import check_number, did_you_mean
from lopsided.targets.checks import check_tensor

F = TypeVar("F", bound=Callable[..., Any])
REDUCTIONS = ("none", "mean", "batchmean", "sum")
SOFT_TARGETS = ("mixture", "product")


class Options(TypedDict, total=False):
    """The options of every loss that are fixed before a batch is seen; `multilabel_loss` says what each does."""

    weight: Tensor | None
    pos_weight: Tensor | None
    ignore_index: int | None
    label_smoothing: float
    soft_targets: str
    label_dim: int
    threshold_logit: int | None
    reduction: str
    backend: str
    inplace: bool


DEFAULTS = Options(
    weight=None,
    pos_weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    soft_targets="mixture",
    label_dim=-1,
    threshold_logit=None,
    reduction="mean",
    backend="auto",
    inplace=False,
)


def show_options(function: F) -> F:
    """Returns the same function, whose `inspect.signature` and `help` list the options instead of `**options`."""
    signature = inspect.signature(function)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "options"]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS[name], annotation=kind)  # type: ignore[literal-required]
        for name, kind in get_type_hints(Options).items()
    ]
    function.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return function


def check_options(
    reduction: str,
    soft_targets: str,
    label_smoothing: float,
    label_dim: int,
    ignore_index: int | None,
    threshold_logit: int | None = None,
) -> None:
    """Raises TypeError or ValueError for the first option that is out of range."""
    integers = {"label_dim": label_dim, "ignore_index": ignore_index, "threshold_logit": threshold_logit}
    for name, value in integers.items():
        if type(value) is not int and value is not None:
            raise TypeError(f"{name} must be an integer, got {value!r}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}; got {reduction!r}")
    if soft_targets not in SOFT_TARGETS:
        raise ValueError(f"soft_targets must be 'mixture' or 'product', got {soft_targets!r}")
    if label_smoothing != 0 or type(label_smoothing) is not float:
        check_number("label_smoothing", label_smoothing, low=0, high=1)


def complete_options(options: Options, of: Callable[..., object] | None = None) -> Options:
    """Returns the options, completed by defaults. Raises TypeError for unknown ones, ValueError for values.

    of: what is called with them, whose own settings may have been meant.
    """
    for name in options:
        if name not in DEFAULTS:
            known = list(DEFAULTS if of is None else inspect.signature(of).parameters)
            raise TypeError(f"unexpected option {name!r}{did_you_mean(name, known)} (known: {', '.join(known)})")
        if name.endswith("weight") and options[name] is not None:  # type: ignore[literal-required]
            check_tensor(name, options[name])  # type: ignore[literal-required]
    settings = DEFAULTS | options
    check_backend(settings["backend"])
    check_options(
        settings["reduction"],
        settings["soft_targets"],
        settings["label_smoothing"],
        settings["label_dim"],
        settings["ignore_index"],
        settings["threshold_logit"],
    )
    return settings
