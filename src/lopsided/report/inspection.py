"""Prints the results of `lopsided inspect`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lopsided.jobs.folder import ComparisonFolder, RunFolder
from lopsided.jobs.inspect import Values, diagnostics
from lopsided.jobs.numbers import share

if TYPE_CHECKING:
    from lopsided.jobs.inspect_missing import Inspection

_SHOWN = 20  # suspects printed


def print_suspects(inspection: Inspection, console: Console) -> None:
    """Prints the first suspects, their labels and texts without markup, and where the rest stands."""
    suspects = inspection.suspects
    with_texts = any(inspection.texts)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, expand=with_texts)
    table.add_column("row", justify="right")
    table.add_column("suspected label", max_width=30, overflow="ellipsis", no_wrap=True)
    table.add_column("probability", justify="right")
    discards = math.isfinite(inspection.discarded_above)
    if discards:
        table.add_column("discarded")
    if with_texts:
        table.add_column("text", overflow="ellipsis", no_wrap=True, ratio=1)  # what the others leave
    for place in range(min(_SHOWN, len(suspects))):
        cells: list[Text | str] = [
            str(int(suspects.row[place]) + 1),
            Text(inspection.labels[place]),
            share(float(suspects.probability[place])),
        ]
        cells += ["yes" if suspects.discarded[place] else "no"] * discards
        cells += [Text(inspection.texts[place])] * with_texts
        table.add_row(*cells)
    console.print(f"\nnegatives that look like forgotten positives, by {escape(inspection.loss)}", highlight=False)
    console.print(table)
    if discards:
        number = int(suspects.discarded.sum())
        console.print(
            f"[dim]{number} of {len(suspects)} suspects lie above logit {share(inspection.discarded_above, 2)}, where "
            "the loss begins to discard negatives as mislabelled.[/dim]",
            highlight=False,
        )
    console.print(f"\nsuspects: {inspection.written}", highlight=False, markup=False, soft_wrap=True)


QUANTITIES: dict[str, Callable[[Values], float]] = {
    "p+ - p-": lambda v: v["p_positive"] - v["p_negative"],
    "gradient: pos.": lambda v: v["gradient_positive"],
    "hard negatives": lambda v: v["gradient_hard"],
    "easy negatives": lambda v: 1 - v["gradient_positive"] - v["gradient_hard"],
    "effective gamma": lambda v: v["effective_gamma"],
    "logit of pos.": lambda v: v["logit_positive"],
    "logit of neg.": lambda v: v["logit_negative"],
    "dead labels": lambda v: v["dead_labels"],
}


_CAPTION = (
    "p+, p-: mean probability given to the right answer. Gradient: shares of its absolute sum on the logits; hard is "
    "p > .5. Effective gamma: a negative's gradient ~ p^(1 + gamma). Dead labels: never decided on validation."
)


def print_diagnostics(folder: RunFolder | ComparisonFolder, console: Console) -> None:
    """Prints how the training went: see `lopsided.jobs.inspect.diagnostics`."""
    title, columns = diagnostics(folder)
    table = Table("", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for loss in columns:
        table.add_column(escape(loss), justify="right")
    for name, quantity in QUANTITIES.items():
        table.add_row(name, *("→".join(map(_number, map(quantity, values))) for values in columns.values()))
    console.print(f"\n[bold]{escape(folder.config.name)}[/bold]: {title}", highlight=False)
    console.print(table)
    console.print(f"[dim]{_CAPTION}[/dim]", highlight=False)


def _number(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() else share(value, 2)
