"""Formats what was measured for lines, tables, axes and pages alike; a dash stands for what is undefined.

Settings, such as a rate, are written as a person would type them instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lopsided.jobs.schema import Interval


def share(value: float | None, digits: int = 3) -> str:
    """Formats a share, a difference of shares, or a threshold, without a zero before the point: .862, -.004, 1.379.

    >>> share(0.8617), share(-0.0041), share(-0.0001), share(1.0), share(math.nan), share(2.5, 1)
    ('.862', '-.004', '.000', '1.000', '-', '2.5')
    """
    if value is None or math.isnan(value):
        return "-"
    text = f"{abs(value):.{digits}f}"
    text = text.removeprefix("0") if digits else text
    return f"-{text}" if value < 0 and float(text) else text


def loss_value(value: float) -> str:
    """Formats the value of a loss, which has no scale, in four digits: .3533, 17.02.

    >>> loss_value(0.35331), loss_value(17.0161), loss_value(0.00001234)
    ('.3533', '17.02', '1.234e-05')
    """
    return f"{value:.4g}".removeprefix("0")


def signed(value: float | None, digits: int = 3) -> str:
    """Formats a difference with its sign, if it has one in so many digits.

    >>> signed(0.8617), signed(0.0001), signed(-0.0001)
    ('+.862', '.000', '.000')
    """
    text = share(value, digits)
    return f"+{text}" if value is not None and value > 0 and float(text) else text


def between(interval: Interval) -> str:
    """Formats a 95 % interval of a difference: -.004 to +.031."""
    return "-" if interval.low is None else f"{signed(interval.low)} to {signed(interval.high)}"


def cell(interval: Interval) -> str:
    """Formats the mean and its 95 % interval, which one seed does not give: .845 ±.012."""
    return f"{share(interval.mean)} {around(interval)}".strip()


def around(interval: Interval) -> str:
    """Formats an interval beside its mean: half of it, or both ends where the scale cuts one.

    >>> around(Interval(mean=0.845, low=0.833, high=0.857)), around(Interval(mean=0.98, low=0.83, high=1.0))
    ('±.012', '(.830 to 1.000)')
    """
    if interval.mean is None or interval.low is None or interval.high is None:
        return ""
    below, above = interval.mean - interval.low, interval.high - interval.mean
    whole = math.isclose(below, above, abs_tol=1e-9)
    return f"±{share(below)}" if whole else f"({share(interval.low)} to {share(interval.high)})"


def settings_in_words(values: Mapping[str, float]) -> str:
    """Lists settings for people.

    >>> settings_in_words({"gamma_neg": 2.0, "learning_rate": 0.00949})
    'gamma neg 2, learning rate 0.00949'
    """
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in values.items())


def p_value(p: float | None) -> str:
    """Formats a p-value: .034, or <.001."""
    return "<.001" if p is not None and p < 0.001 else share(p)
