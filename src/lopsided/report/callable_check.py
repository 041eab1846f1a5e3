"""Prints and draws the result of `lopsided check`."""

from __future__ import annotations

import textwrap
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lopsided.data.excerpts import printable
from lopsided.testing import Examination

_LONGEST = 300  # characters of what code of the user raised
_STYLES = {"ok": "dim", "note": "yellow", "fault": "bold red"}


def print_examination(examination: Examination, console: Console) -> None:
    """Prints the verdict, a line for each finding, and the loss to use instead."""
    console.print(Text(examination.verdict, style="bold"), soft_wrap=True)
    table = Table("", "", "finding", box=SIMPLE_HEAD, pad_edge=False)
    for finding in examination.findings:
        status = Text(finding.status, style=_STYLES[finding.status])
        table.add_row(finding.subject, status, Text(printable(finding.text, _LONGEST)))
    console.print(table)
    if examination.instead:
        console.print(Text(f"instead: {examination.instead}"), soft_wrap=True)


def save_examination_plot(examination: Examination, path: Path) -> None:
    """Writes the gradients of positives and negatives, and those of the nearest published loss, as a picture."""
    from lopsided.report.loss_plot import NEGATIVE, POSITIVE, drawn

    published = examination.match.published
    with drawn(path, 9, 3.6) as figure:
        for axis, side, known, colour in zip(
            figure.subplots(1, 2), examination.sides, published, (POSITIVE, NEGATIVE), strict=True
        ):
            axis.axhline(0, color="#999999", lw=0.8)
            axis.plot(
                known.logits,
                known.gradient,
                color="#555555",
                ls=":",
                lw=1.6,
                label=str(examination.match.candidate.loss),
            )
            axis.plot(side.logits, side.gradient, color=colour, lw=1.8, label=examination.name)
            axis.set(title=f"gradient on {side.name}", xlabel="logit")
            axis.grid(alpha=0.3)
        lines = figure.axes[1].get_legend_handles_labels()
        figure.legend(*lines, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
        figure.suptitle(textwrap.fill(examination.verdict, 120), fontsize=9)
