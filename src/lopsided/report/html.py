"""Writes pages that need no other file or network; every text in them is escaped.

Two walls against hostile names and texts: every value passes Jinja's autoescaping, and the page's own policy refuses
every script but the one whose hash it names, and everything from elsewhere. No data are embedded as JSON.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lopsided.data.storage import damaged, write_text
from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.folder import ComparisonFolder, Histories
from lopsided.jobs.numbers import around, between, cell, p_value, settings_in_words, share, signed
from lopsided.jobs.schema import Details, Results
from lopsided.jobs.verdict import AHEAD, BEHIND, BETTER, WORSE
from lopsided.report import plots
from lopsided.report.changes import label_changes
from lopsided.report.headline import answer, command, findings, groups_in_words, headline
from lopsided.report.methods import methods
from lopsided.report.svg import Drawing
from lopsided.report.thresholds import THRESHOLDS, explained, has_thresholds, threshold_rows, what_brings_what

_BY_GROUP = ("map", "auroc", "micro_f1", "macro_f1", "macro_f1_labels")
_KINDS = {BETTER: "ahead", AHEAD: "ahead", WORSE: "behind", BEHIND: "behind"}


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of a finished run folder from its files, to report.html in it or to `out`; returns the path."""
    run = ComparisonFolder.open(folder)
    path = out or folder / "report.html"
    write_text(path, page(run.read_results(), run.read_details(), run))
    return path


def page(results: Results, details: Details, run: ComparisonFolder | None = None) -> str:
    """Returns the page of a verdict. run: None where the models were trained elsewhere."""
    losses, folder = list(results.losses), None if run is None else run.path
    histories: Histories = {} if run is None else _histories(run, results)
    trials = [] if run is None else run.read_trials()
    return render(
        "report.html.j2",
        results=results,
        details=details,
        settings={} if run is None else _settings(run),
        headline=headline(results),
        answer=answer(results),
        command=command(results, folder),
        findings=findings(results),
        metric=METRICS[results.metric],
        rows=[_metric_row(results, name) for name in results.known_metrics()],
        threshold_kinds=list(THRESHOLDS),
        thresholds=threshold_rows(results, {loss: loss for loss in losses}) if has_thresholds(results) else [],
        brought=what_brings_what(results),
        explained=explained(results),
        group_metrics=[(METRICS[name].title, name) for name in _BY_GROUP if name in results.known_metrics()],
        readings=[each for each in plots.READINGS if any(each in found for found in details.reliability.values())],
        stages={trial.stage for trial in trials},
        groups_in_words=groups_in_words(results) if results.groups else "",
        changes=label_changes(results, details),
        methods=methods(results),
        series=plots.series(losses, results.reference),
        plots=_plots(results, histories, details) | {"ladder": plots.ladder(results, trials, histories)},
    )


def _histories(run: ComparisonFolder, results: Results) -> Histories:
    histories = run.read_histories()
    if {*histories} != {*results.losses}:
        problem = ValueError(
            f"its losses are {', '.join(histories)}; those of results.json {', '.join(results.losses)}"
        )
        raise damaged(run.path / "history.csv", problem, run.repair)
    return histories


def _settings(run: ComparisonFolder) -> dict[str, object]:
    settings = {
        name: value for name, value in run.config if value not in (None, (), [], False, 0.0) or name == "data_seed"
    }
    return settings | {f"SHA-256 of {name}": digest for name, digest in run.data_sha256.items()}


def render(template: str, **values: Any) -> str:
    """Renders a page from one of the templates beside this file."""
    environment = Environment(
        loader=PackageLoader("lopsided", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "name": _breakable,
        "setting": _setting,
        "short": share,
        "signed": signed,
        "between": between,
        "p": p_value,
        "in_words": settings_in_words,
    }
    script, style = ((files("lopsided.report") / name).read_text("utf-8") for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(
        script=Markup(script),
        style=Markup(style),
        script_hash=digest,
        kinds=_KINDS,
        **values,
    )
    return page.encode("utf-8", "replace").decode()  # a file's name, or a text, may hold what UTF-8 cannot


def _breakable(name: str) -> Markup:
    """Lets a long name be broken where it reads well."""
    places = r"(?<=\()" if "(" in name else r"(?<=[_/])"
    return Markup(re.sub(places, "<wbr>", str(escape(name))))


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _plots(results: Results, histories: Histories, details: Details) -> dict[str, list[Drawing]]:
    return {
        "differences": plots.differences(results),
        "training": plots.training(results, histories) if histories else [],
        "diagnostics": plots.diagnostics(results, histories) if histories else [],
        "gradients": plots.gradients(results, details) if any(details.gradients.values()) else [],
        "decisions": plots.decisions(results, details),
        "reliability": plots.reliability(results, details),
    }


def metric_cells(results: Results, name: str, losses: Sequence[str]) -> list[tuple[str, bool]]:
    """Returns (text, is best) of each loss."""
    best = results.marked_loss(name)
    return [(cell(results.losses[loss].metrics[name]), loss == best) for loss in losses]


def _metric_row(results: Results, name: str) -> tuple[str, list[tuple[tuple[str, str], bool]], list[str]]:
    """Returns the title, of each loss (mean, its interval) and whether it is best, and the baselines' values."""
    best = results.marked_loss(name)
    cells = []
    for loss, entry in results.losses.items():
        cells.append(((share(entry.metrics[name].mean), around(entry.metrics[name])), loss == best))
    return METRICS[name].title, cells, [share(each.metrics[name]) for each in results.baselines.values()]
