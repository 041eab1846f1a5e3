"""Makes SVG text that takes its fonts and colours from the page around it, so that it follows dark and light."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter

from lopsided.jobs.numbers import share

INK, MUTED, RULE = "#1d2125", "#5c646d", "#d9dde1"
# keys of the colours in page.css: grey for the baseline, then six of Okabe and Ito, which colour-blind readers can tell
# apart, and more for a comparison of all losses
SERIES = (
    *("#5f6770", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#7b5ea7", "#8c564b", "#9e1b32", "#1b3a6b", "#7a9a01", "#c2189b"),
)
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES)
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.3,
    "axes.unicode_minus": False,  # as in the tables
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.7,
}


class Ticks(Formatter):
    """Writes the numbers beside an axis as the tables have them, with as many digits as tell them apart."""

    def __call__(self, value: float, pos: int | None = None) -> str:
        return share(value)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        digits = next((d for d in range(3) if all(abs(value - round(value, d)) < 1e-9 for value in values)), 3)
        return [share(value, digits) for value in values]


@dataclass(frozen=True)
class Margins:
    """Gives the inches around the axes. They are fixed, because matplotlib takes as long to find them as to draw."""

    left: float = 0.54
    right: float = 0.12
    bottom: float = 0.45
    top: float = 0.08

    def rectangle(self, width: float, height: float) -> tuple[float, float, float, float]:
        """Returns left, bottom, width and height of the axes as shares of the figure."""
        inner_width, inner_height = width - self.left - self.right, height - self.bottom - self.top
        return self.left / width, self.bottom / height, inner_width / width, inner_height / height


@dataclass(frozen=True)
class Drawing:
    """Holds one panel of a figure; the page sets its title."""

    title: str
    svg: Markup


def drawing(
    draw: Callable[[Axes], None], title: str, *, size: tuple[float, float] = (4.6, 2.8), margins: Margins | None = None
) -> Drawing:
    """Draws one panel; the size is in inches. Equal input gives equal output."""
    margins = margins or Margins()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"lopsided {title}"}):
        figure = Figure(figsize=size)
        axes = figure.add_axes(margins.rectangle(*size))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(Ticks())
        draw(axes)
        text = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=metadata, transparent=True)
    return Drawing(title, Markup(_for_the_page(text.getvalue(), title)))  # matplotlib escapes what it is given


def _for_the_page(svg: str, title: str) -> str:
    body = re.sub(r"^.*?<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", r"\1>", svg, count=1, flags=re.DOTALL)
    body = re.sub(r'<defs>\s*<style type="text/css">.*?</style>\s*</defs>', "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'<g id="[\w.]+">', "<g>", body)
    body = body.replace("font-family: 'DejaVu Sans', sans-serif; ", "").replace("xlink:href", "href")
    body = re.sub(r"#[0-9a-f]{6}\b", lambda colour: _variable(colour[0]), body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    return f'<svg role="img" aria-label="{escape(title)}" {body}'


def _variable(colour: str) -> str:
    return f"var({VARIABLES[colour]})" if colour in VARIABLES else colour
