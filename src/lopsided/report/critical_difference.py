"""Draws the critical-difference diagram."""

from __future__ import annotations

from matplotlib.axes import Axes

from lopsided.jobs.numbers import share
from lopsided.metrics.friedman import Ranks
from lopsided.report.plots import beside, short
from lopsided.report.svg import INK, MUTED, SERIES, Drawing, Margins, drawing

_BAR = 0.35  # distance between two bars, in lines of text


def critical_difference(ranks: Ranks) -> Drawing:
    """Draws mean ranks on a line, best at the left; a bar joins losses not shown to differ (Demsar 2006, figure 1)."""
    texts = [f"{short(loss)}  {share(rank, 2)}" for loss, rank in zip(ranks.losses, ranks.mean_ranks, strict=True)]
    half = (len(texts) + 1) // 2
    end = max(len(texts), 1 + ranks.critical_difference) + 0.3
    lines = half + _BAR * len(ranks.groups)

    def draw(axis: Axes) -> None:
        _name(axis, ranks, texts, (0.7, end))
        for number, group in enumerate(ranks.groups, 1):
            best, worst = (ranks.mean_ranks[ranks.losses.index(loss)] for loss in (group[0], group[-1]))
            axis.plot((best - 0.03, worst + 0.03), (_BAR * number, _BAR * number), color=SERIES[1], lw=4)
        reach = 1 + ranks.critical_difference
        axis.set(xlim=(0.7, end), ylim=(lines + 0.6, -2.6))
        axis.plot((1, reach), (-1.6, -1.6), "|-", color=INK, lw=1.2)
        axis.text((1 + reach) / 2, -1.85, f"CD = {share(ranks.critical_difference, 2)}", ha="center")
        axis.set(yticks=[], xticks=range(1, len(texts) + 1))
        axis.spines["bottom"].set(position=("data", 0), color=INK)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="x", pad=-18, color=INK)

    margins = Margins(beside(texts[:half]), beside(texts[half:]), bottom=0.05)
    return drawing(draw, "mean ranks, best at the left", size=(6.6, 0.28 * lines + 1), margins=margins)


def _name(axis: Axes, ranks: Ranks, texts: list[str], ends: tuple[float, float]) -> None:
    """Writes the names: the better half at the left, the others at the right, each on a line of its own."""
    count, first = len(texts), _BAR * len(ranks.groups) + 0.75
    for place, (text, rank) in enumerate(zip(texts, ranks.mean_ranks, strict=True)):
        left = place < (count + 1) // 2
        end, side, gap = (ends[0], "right", -4) if left else (ends[1], "left", 4)
        depth = first + (place if left else count - 1 - place)
        axis.plot((rank, rank, end), (0, depth, depth), color=MUTED, lw=1)
        axis.annotate(text, (end, depth), (gap, 0), textcoords="offset points", ha=side, va="center")
