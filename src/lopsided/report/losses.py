"""Prints the losses on a terminal: all in a table, or what one of them is."""

from __future__ import annotations

import inspect
import math

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lopsided.jobs.numbers import share
from lopsided.losses import BALANCED, CATALOG, PRESETS, SOURCES, UNKNOWN, UNKNOWN_SOURCES, Balanced, Formula
from lopsided.losses.closed_form import posterior_limits
from lopsided.models.heads import own_threshold


def print_losses(console: Console) -> None:
    """Prints every loss with its defaults, where it decides, and where it comes from."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("loss and its defaults")
    table.add_column("threshold", justify="right")
    table.add_column("source", no_wrap=True)
    for name, make in CATALOG.items():
        table.add_row(str(make()), _threshold(make()), SOURCES[name])
    for name, make in UNKNOWN.items():
        table.add_row(str(make()), _threshold(make()), UNKNOWN_SOURCES[name])
    for balanced in (make() for make in BALANCED.values()):
        table.add_row(str(balanced), "tuned", balanced.source)
    for name, loss in PRESETS.items():
        table.add_row(f"{name} = {loss}", _threshold(loss), "preset")
    console.print(table)
    told = "Threshold: the logit above which a label is predicted; tuned where a loss is made from label counts."
    console.print(f"[dim]{told}[/dim]")


def print_loss(loss: Formula | Balanced, console: Console) -> None:
    """Prints one loss: its formula, its settings, and what its scores mean."""
    name = str(loss).partition("(")[0]
    make = (BALANCED | CATALOG | UNKNOWN)[name]
    console.print(f"[bold]{escape(str(loss))}[/bold]\n", highlight=False, soft_wrap=True)
    for paragraph in inspect.cleandoc(make.__doc__ or "").split("\n\n"):
        console.print(" ".join(paragraph.split()), highlight=False, markup=False)
    console.print(
        f"\nsource: {loss.source if isinstance(loss, Balanced) else (SOURCES | UNKNOWN_SOURCES)[name]}", highlight=False
    )
    if isinstance(loss, Balanced):
        console.print("made from the counts of the training labels; thresholds are tuned", highlight=False)
        return
    console.print(f"decision threshold (logit): {_threshold(loss)}", highlight=False)
    if loss.pool.per_label and own_threshold(loss) is not None:
        low, high = (share(float(limit)) for limit in posterior_limits(loss))
        console.print(f"logits stand for label probabilities from {low} to {high}", highlight=False)


def _threshold(loss: Formula) -> str:
    threshold = own_threshold(loss)
    if threshold is None:
        return "none" if loss.pool.thresholded else "only ranks"
    return share(threshold) if math.isfinite(threshold) else "saturates"
