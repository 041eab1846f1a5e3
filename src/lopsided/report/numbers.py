"""Formats numbers for the terminal and the pages; a dash stands for what is undefined."""

from __future__ import annotations

from lopsided.jobs.schema import Interval


def share(value: float | None) -> str:
    """Formats a share without its zero: .862."""
    return "-" if value is None else f"{value:.3f}".removeprefix("0")


def cell(interval: Interval) -> str:
    """Formats the mean and half its 95 % interval, which one seed does not give: .845 ±.012."""
    if interval.mean is None or interval.low is None:
        return share(interval.mean)
    return f"{share(interval.mean)} ±{share(interval.mean - interval.low)}"


def p_value(p: float | None) -> str:
    """Formats a p-value: 0.034, or <0.001."""
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
