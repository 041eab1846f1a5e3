"""Checks of settings: numbers and flags, no tensors. What came, what was expected. And whom a warning is for."""

from __future__ import annotations

import difflib
import math
import numbers
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lopsided.losses.formulas import Formula

SMALLEST_CLIP = 0.001


def is_compiling() -> bool:
    """Tells whether a graph is being made; never before torch is imported."""
    return "torch" in sys.modules and bool(sys.modules["torch"].compiler.is_compiling())


def check_thresholded(formula: Formula) -> None:
    """Raises ValueError for losses that have no threshold, as they only rank labels among each other."""
    if not formula.pool.thresholded:
        raise ValueError(f"{formula} only ranks the labels of a row: tune a threshold on validation data")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns the names nearest to one that is not known, as the end of a message; nothing if none is near.

    >>> did_you_mean("assl", ["asl", "bce"])
    ": did you mean 'asl'?"
    """
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    return f": did you mean {' or '.join(map(repr, near))}?" if near else ""


def _shown(value: object) -> str:
    """Shows what came in place of a number: of a tensor or an array its shape."""
    shape = getattr(value, "shape", None)
    if shape is None or not len(shape):
        return repr(value)[:60]
    return (
        f"a {type(value).__name__} of shape {tuple(shape)}: make the loss first, then call it with logits and targets"
    )


def check_number(name: str, value: float, low: float = -math.inf, high: float = math.inf) -> float:
    """Returns `value` as a float; raises TypeError or ValueError unless it is a finite number in [low, high)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (-math.inf < number < math.inf and low <= number < high):  # dynamo knows no isfinite of symbols
        bounds = f"in [{low:g}, {high:g})" if low > -math.inf else "finite"
        raise ValueError(f"{name} must be {bounds}, got {number:g}")
    if not is_compiling():
        return number
    from torch.fx.experimental.symbolic_shapes import guard_scalar  # imports sympy, as every compiler has already

    return float(guard_scalar(number))  # a setting is a constant of the graph: another value is another graph


def check_numbers(name: str, values: Iterable[float]) -> tuple[float, ...]:
    """Returns `values` as finite floats."""
    if not isinstance(values, list | tuple):
        raise TypeError(f"{name} must be numbers such as (1, 0.5), got {values!r}")
    return tuple(check_number(f"{name}[{index}]", value) for index, value in enumerate(values))


def check_clip(clip: float) -> float:
    """Returns a margin in [0, 1). Tiny ones are refused: they change nothing, and 1 - clip would round."""
    margin = check_number("clip", clip, low=0, high=1)
    if 0 < margin < SMALLEST_CLIP:
        raise ValueError(f"clip must be 0 or at least {SMALLEST_CLIP:g}, got {margin:g}")
    return margin


def check_flag(name: str, value: bool) -> bool:
    """Returns `value`; raises TypeError, with its name, unless it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def stacklevel_of_user() -> int:
    """Counts the frames up to the first one outside this library and torch, for `warnings.warn` in the caller."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("lopsided", "torch"):
        frame, level = frame.f_back, level + 1
    return level
