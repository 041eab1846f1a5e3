"""Formats numbers for the terminal and the pages, each kind one way; a dash stands for what is undefined."""

from __future__ import annotations

from lopsided.jobs.schema import Interval


def share(value: float | None) -> str:
    """Formats a share, or a difference of shares, without its zero: .862, -.004.

    >>> share(0.8617), share(-0.0041), share(-0.0001), share(1.0)
    ('.862', '-.004', '.000', '1.000')
    """
    if value is None:
        return "-"
    text = f"{abs(value):.3f}".removeprefix("0")
    return f"-{text}" if value < 0 and float(text) else text


def signed(value: float | None) -> str:
    """Formats a difference with its sign: +.862."""
    return f"+{share(value)}" if value is not None and value > 0 else share(value)


def between(interval: Interval) -> str:
    """Formats a 95 % interval of a difference: -.004 to +.031."""
    return "-" if interval.low is None else f"{signed(interval.low)} to {signed(interval.high)}"


def cell(interval: Interval) -> str:
    """Formats the mean and half its 95 % interval, which one seed does not give: .845 ±.012."""
    if interval.mean is None or interval.low is None:
        return share(interval.mean)
    return f"{share(interval.mean)} ±{share(interval.mean - interval.low)}"


def p_value(p: float | None) -> str:
    """Formats a p-value: .034, or <.001."""
    return "<.001" if p is not None and p < 0.001 else share(p)
