"""Prints the results on a terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.numbers import between, cell, p_value, share, signed
from lopsided.jobs.schema import Results
from lopsided.models.recipe import Recipe
from lopsided.report.headline import answer, command, findings, groups_in_words
from lopsided.report.thresholds import THRESHOLDS, explained, has_thresholds, threshold_rows, what_brings_what

_BY_GROUP = ("map", "macro_f1_labels")
_LONGEST = 13  # characters of a name in a table
_METRICS_WIDTH, _GROUPS_WIDTH = 20, 28  # columns of a terminal for the titles of rows


def print_results(results: Results, console: Console, folder: Path | None = None) -> None:
    """Prints the answer and the command that follows from it, then the tables, the verdicts in words, and the notes."""
    data, names = results.data, short_names(results.losses)
    _say(console, f"\n{answer(results)}", "bold")
    if next_step := command(results, folder):
        console.print(f"  {next_step}", highlight=False, markup=False, soft_wrap=True)
    _say(
        console,
        f"\n{data.name}: {data.labels} labels, {share(data.positives_per_row, 2)} positives a row; "
        f"{_how_trained(results)}; {METRICS[results.metric].title} against {results.reference}, paired",
    )
    console.print(difference_table(results, names))
    for loss in (loss for loss, name in names.items() if name != loss):
        _say(console, f"{names[loss]}: {loss}", "dim")
    _say_each(console, findings(results))
    for models in _beside_each_other(results, names, console.width - _METRICS_WIDTH):
        console.print(metric_table(results, models))
    best = f"{f'Means over {results.repeated}s, the' if results.seeds > 1 else 'The'} best loss in bold."
    _say(console, f"{best} {explained(results)}", "dim")
    if has_thresholds(results):
        console.print(threshold_table(results, names))
    _say_each(console, what_brings_what(results))
    if results.groups:
        for models in _beside_each_other(results, names, console.width - _GROUPS_WIDTH):
            console.print(group_table(results, models))
        _say(console, groups_in_words(results), "dim")
    for note in results.notes:
        _say(console, note, "dim")


def _say(console: Console, line: str, style: str = "") -> None:
    console.print(Text(line, style), highlight=False)


def _say_each(console: Console, sentences: Sequence[str]) -> None:
    for sentence in sentences:
        _say(console, f"• {sentence}.")


def _how_trained(results: Results) -> str:
    if results.is_solved:
        return f"solved, {results.seeds} splits" if results.resplit else "solved"
    seeds = f"{results.seeds} {results.repeated}{'s' * (results.seeds > 1)}"
    return seeds if results.recipe is None else f"{in_epochs(results.recipe)}, {seeds}"


def in_epochs(recipe: Recipe) -> str:
    return f"{recipe.epochs} epoch{'s' * (recipe.epochs > 1)}"


def short_names(losses: Iterable[str]) -> dict[str, str]:
    """Returns for each loss the name that tables have: of a long one the beginning, and a number where others share it.

    >>> short_names(["bce", "asl(gamma_neg=2, clip=0.1)", "asl(gamma_neg=4, clip=0.1)", "focal(gamma=2, alpha=0.5)"])
    {'bce': 'bce', 'asl(gamma_neg=2, clip=0.1)': 'asl#1', 'asl(gamma_neg=4, clip=0.1)': 'asl#2', \
'focal(gamma=2, alpha=0.5)': 'focal'}
    """
    starts = {loss: re.split(r"\W", loss, maxsplit=1)[0][: _LONGEST - 4] for loss in losses}
    shared, names = Counter(starts.values()), dict[str, str]()
    for loss, start in starts.items():
        number = 1 + sum(name.startswith(f"{start}#") for name in names.values())
        names[loss] = loss if len(loss) <= _LONGEST else f"{start}#{number}" if shared[start] > 1 else start
    return names


def _beside_each_other(results: Results, names: Mapping[str, str], width: int) -> Iterator[dict[str, str]]:
    """Yields the losses and baselines whose columns fit in that width, with their names there."""
    part: dict[str, str] = {}
    for model, name in {**names, **{baseline: baseline for baseline in results.baselines}}.items():
        if part and sum(max(len(each), len("1.000")) + 2 for each in (*part.values(), name)) > width:
            yield part
            part = {}
        part[model] = name
    yield part


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, name in enumerate(columns):
        table.add_column(escape(name), justify="right" if number else "left", no_wrap=True)
    return table


def difference_table(results: Results, names: Mapping[str, str]) -> Table:
    table = _table("loss", METRICS[results.metric].title, "difference", "95 % interval", "p (Holm)")
    table.add_column("verdict")
    for loss, entry in results.losses.items():
        c, value = results.comparisons.get(loss), cell(entry.metrics[results.metric])
        told = ("reference", *"   ") if c is None else (c.verdict, signed(c.mean), between(c), p_value(c.p_holm))
        table.add_row(escape(names[loss]), value, *told[1:], told[0])
    for name, baseline in results.baselines.items():
        table.add_row(escape(name), share(baseline.metrics[results.metric]), "", "", "", "baseline", style="dim")
    return table


def metric_table(results: Results, models: Mapping[str, str]) -> Table:
    """models: losses and baselines, with their names."""
    table = _table("", *models.values())
    for name in results.known_metrics():
        best = results.marked_loss(name)
        cells = []
        for model in models:
            if model in results.losses:
                text = share(results.losses[model].metrics[name].mean)
                cells.append(f"[bold]{text}[/bold]" if model == best else text)
            else:
                cells.append(f"[dim]{share(results.baselines[model].metrics[name])}[/dim]")
        table.add_row(METRICS[name].title, *cells)
    if results.recipe:
        trained = {loss: entry.seconds for loss, entry in results.losses.items()}
        trained |= {name: each.seconds for name, each in results.baselines.items()}
        seconds = (trained[model] for model in models)
        table.add_row("seconds", *("-" if each is None else f"{each:.1f}" for each in seconds))
    return table


def threshold_table(results: Results, names: Mapping[str, str]) -> Table:
    table = _table("thresholds and losses", *THRESHOLDS)
    for title, cells in threshold_rows(results, names):
        table.add_row(escape(title), *map(escape, cells))
    return table


def group_table(results: Results, models: Mapping[str, str]) -> Table:
    """Returns a metric of all labels that rank, and one of decisions, of rare, middling and frequent labels.

    models: losses and baselines, with their names.
    """
    table = _table("where it matters", *models.values())
    for name in (name for name in _BY_GROUP if name in results.known_metrics()):
        for group in results.groups:
            values = (share(group.metrics[model][name]) for model in models)
            table.add_row(f"{METRICS[name].title}, {group.name}", *values)
    return table
