"""Prints the results on a terminal."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lopsided.jobs.schema import Evaluation, Results
from lopsided.jobs.score import METRICS
from lopsided.jobs.verdict import in_epochs
from lopsided.losses import CATALOG, PRESETS, SOURCES, Formula
from lopsided.losses.closed_form import posterior_limits
from lopsided.models.heads import own_threshold
from lopsided.report.numbers import cell, p_value, share

_PAIRED_CAPTION = "Effect: the difference in units of its spread over seeds."
_CAPTION = (
    "Mean over seeds ± half its 95 % interval, best mean in bold. Own: the threshold "
    "that the loss implies; tuned: the best on validation, also used for subset accuracy "
    "and Hamming loss; by label: one for each label, tuned for F1."
)


def print_results(results: Results, console: Console) -> None:
    """Prints the table of metrics, the paired differences with verdicts, and the notes."""
    data, seeds = results.data, results.seeds
    console.print(
        f"\n[bold]{escape(data.name)}[/bold]: {data.labels} labels, {data.positives_per_row:.2f} positives a row; "
        f"{in_epochs(results.recipe.epochs) + ', ' if results.recipe else ''}{seeds} seed{'s' * (seeds > 1)}",
        highlight=False,
    )
    console.print(metric_table(results))
    console.print(f"[dim]{_CAPTION}[/dim]", highlight=False)
    console.print(f"\n[bold]{METRICS[results.metric].title}[/bold] against {escape(results.baseline)}, paired")
    console.print(difference_table(results))
    console.print(f"[dim]{_PAIRED_CAPTION}[/dim]", highlight=False)
    for comparison in results.comparisons.values():
        console.print(f"• {comparison.sentence}.", highlight=False, markup=False)
    for note in results.notes:
        console.print(f"[dim]{escape(note)}[/dim]", highlight=False)


def metric_table(results: Results) -> Table:
    table = Table("", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for loss in results.losses:
        table.add_column(escape(loss), justify="right")
    for name in results.known_metrics():
        best, title = results.marked_loss(name), METRICS[name].title
        cells = {loss: cell(entry.metrics[name]) for loss, entry in results.losses.items()}
        table.add_row(title, *(f"[bold]{text}[/bold]" if loss == best else text for loss, text in cells.items()))
    if results.recipe:
        table.add_row("seconds", *(f"{entry.seconds or math.nan:.1f}" for entry in results.losses.values()))
    return table


def difference_table(results: Results) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("loss", "difference", "95 % interval", "effect", "p (Holm)", "verdict"):
        text = name in ("loss", "verdict")
        table.add_column(name, justify="left" if text else "right", no_wrap=not text)
    for loss, c in results.comparisons.items():
        if c.low is None:
            table.add_row(escape(loss), *"----", c.verdict)
            continue
        interval = f"{c.low:+.3f} to {c.high:+.3f}"
        effect = "-" if c.effect_size is None else f"{c.effect_size:+.1f}"
        table.add_row(escape(loss), f"{c.mean:+.3f}", interval, effect, p_value(c.p_holm), c.verdict)
    return table


def print_losses(console: Console) -> None:
    """Prints every loss with its defaults, where it decides, and where it comes from."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("loss and its defaults")
    table.add_column("threshold", justify="right")
    table.add_column("source", no_wrap=True)
    for name, make in CATALOG.items():
        table.add_row(str(make()), _threshold(make()), SOURCES[name])
    for name, loss in PRESETS.items():
        table.add_row(f"{name} = {loss}", _threshold(loss), "preset")
    console.print(table)
    console.print("[dim]Threshold: the logit above which a label is predicted.[/dim]")


def print_loss(loss: Formula, console: Console) -> None:
    """Prints one loss: its formula, its settings, and what its scores mean."""
    name = str(loss).partition("(")[0]
    console.print(f"[bold]{escape(str(loss))}[/bold]\n", highlight=False, soft_wrap=True)
    for paragraph in inspect.cleandoc(CATALOG[name].__doc__ or "").split("\n\n"):
        console.print(" ".join(paragraph.split()), highlight=False, markup=False)
    console.print(f"\nsource: {SOURCES[name]}", highlight=False)
    console.print(f"decision threshold (logit): {_threshold(loss)}", highlight=False)
    if loss.pool.per_label and own_threshold(loss) is not None:
        low, high = posterior_limits(loss)
        console.print(f"logits stand for label probabilities from {low:.3f} to {high:.3f}", highlight=False)


def _threshold(loss: Formula) -> str:
    threshold = own_threshold(loss)
    if threshold is None:
        return "none" if loss.pool.thresholded else "only ranks"
    return f"{threshold:.3f}" if math.isfinite(threshold) else "saturates"


_DECISION_TITLES = {
    "micro_f1": "micro-F1",
    "micro_precision": "micro-precision",
    "micro_recall": "micro-recall",
    "macro_f1": "macro-F1",
    "sample_f1": "F1 of a row",
    "subset_accuracy": "subset accuracy",
    "empty_rows": "rows without a prediction",
    "predicted_per_row": "predicted labels a row",
}


def print_evaluation(evaluation: Evaluation, written: Path, console: Console) -> None:
    """Prints a line per metric: the model, and the popularity baseline; and the file that has them."""
    table = Table("", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(evaluation.loss, justify="right")
    table.add_column("most frequent labels", justify="right")
    titles = {"p": "P", "ndcg": "nDCG", "psp": "PSP", "map": "mAP"}
    for name, value in evaluation.model.items():
        kind, at, k = name.partition("@")
        popular = evaluation.popularity.get(name)
        table.add_row(titles.get(kind, "mAP") + at + k, share(value), "" if popular is None else share(popular))
    console.print(f"\n{evaluation.rows} rows of {evaluation.data}", highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    constants = f"A = {evaluation.propensity.a:g} and B = {evaluation.propensity.b:g}"
    console.print(f"[dim]PSP: propensities of the training label counts, {constants}.[/dim]", highlight=False)
    table = Table("", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"decided: {evaluation.rule}", justify="right")
    for name, value in evaluation.decisions.items():
        table.add_row(_DECISION_TITLES[name], share(value))
    console.print(table)
    console.print(f"results: {written}", highlight=False, markup=False, soft_wrap=True)
