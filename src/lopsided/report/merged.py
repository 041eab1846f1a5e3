"""Makes one page over finished runs of several data sets: which loss ranks best, and is that more than luck?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lopsided.data.storage import UserError, write_text
from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.folder import ComparisonFolder
from lopsided.jobs.numbers import p_value, share
from lopsided.jobs.schema import Results
from lopsided.metrics.friedman import Ranks, rank_losses
from lopsided.report import plots
from lopsided.report.critical_difference import critical_difference
from lopsided.report.headline import headline, ranks_headline
from lopsided.report.html import metric_cells, render


@dataclass(frozen=True)
class Finished:
    """Holds a run with its results; `name` tells it from the others on the page."""

    folder: ComparisonFolder
    results: Results
    name: str


def read_finished(paths: Sequence[Path]) -> list[Finished]:
    """Reads the runs in these folders. Raises UserError for one that is not finished, or is no comparison."""
    folders = [ComparisonFolder.open(path) for path in paths]
    names = [folder.config.name for folder in folders]
    return [
        Finished(folder, folder.read_results(), name if names.count(name) == 1 else f"{name} ({folder.path})")
        for folder, name in zip(folders, names, strict=True)
    ]


def write_merged_report(paths: Sequence[Path], out: Path) -> Path:
    """Writes a page over two or more finished runs, of different data but of the same losses and metric, to `out`."""
    runs = read_finished(paths)
    _check_comparable(runs)
    first = runs[0].results
    losses, metric = list(first.losses), first.metric
    means = [[run.results.losses[loss].metrics[metric].mean for loss in losses] for run in runs]
    try:
        values = [[math.nan if mean is None else mean for mean in row] for row in means]
        ranks = rank_losses(values, losses, higher_is_better=METRICS[metric].higher_is_better)
    except ValueError as error:
        raise UserError(f"{METRICS[metric].title} cannot be ranked: {error}") from None
    page = render(
        "merged.html.j2",
        headline=ranks_headline(ranks, metric),
        metric=METRICS[metric],
        runs=runs,
        ranks=ranks,
        rows=[(run.name, metric_cells(run.results, metric, losses)) for run in runs],
        mean_ranks=[ranks.mean_ranks[ranks.losses.index(loss)] for loss in losses],
        verdicts=[(run.name, headline(run.results)) for run in runs],
        series=plots.series(losses, first.reference),
        diagram=critical_difference(ranks),
        tests=_tests(ranks),
    )
    write_text(out, page)
    return out


def _check_comparable(runs: Sequence[Finished]) -> None:
    first, *others = runs
    for run in others:
        for what, one, other in (
            ("losses", sorted(first.results.losses), sorted(run.results.losses)),
            ("metric", first.results.metric, run.results.metric),
        ):
            if one != other:
                told = [", ".join(value) if isinstance(value, list) else value for value in (one, other)]
                raise UserError(
                    f"{run.folder.path}: its {what}: {told[1]}, but {first.folder.path}: {told[0]}; ranks need the "
                    "same losses and metric on every data set, so compare those, or leave one folder out"
                )
    for number, run in enumerate(runs):
        for earlier in runs[:number]:
            if run.folder.config.data == earlier.folder.config.data:
                raise UserError(
                    f"{earlier.folder.path} and {run.folder.path} are of the same data, {run.folder.config.data}; "
                    "ranks are taken over different data sets, so leave one out"
                )


def _tests(ranks: Ranks) -> list[tuple[str, str, str]]:
    """Returns (test, statistic, p-value) of each test."""
    return [
        ("Friedman, chi-squared", share(ranks.friedman, 2), p_value(ranks.friedman_p)),
        ("Iman and Davenport, F", share(ranks.iman_davenport, 2), p_value(ranks.iman_davenport_p)),
        ("Either, ranks shuffled within data sets", "", p_value(ranks.permutation_p)),
    ]
