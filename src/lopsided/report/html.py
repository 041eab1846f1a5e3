"""Writes pages that need no other file or network; every text in them is escaped.

Two walls against hostile names and texts: every value passes Jinja's autoescaping, and the page's own policy refuses
every script but the one whose hash it names, and everything from elsewhere. No data are embedded as JSON.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lopsided.data.storage import write_text
from lopsided.jobs.folder import ComparisonFolder, Histories
from lopsided.jobs.schema import Details, Results, damaged
from lopsided.jobs.score import METRICS
from lopsided.jobs.verdict import AHEAD, BEHIND, BETTER, WORSE
from lopsided.report import plots
from lopsided.report.headline import answer, command, findings, headline
from lopsided.report.numbers import cell, p_value, share
from lopsided.report.svg import Drawing

_KINDS = {BETTER: "ahead", AHEAD: "ahead", WORSE: "behind", BEHIND: "behind"}


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of a finished run folder from its files, to report.html in it or to `out`; returns the path."""
    run = ComparisonFolder.open(folder, check_data=False)
    results, details = run.read_results(), run.read_details()
    losses, histories = list(results.losses), run.read_histories()
    if {*histories} != {*losses}:
        problem = ValueError(f"its losses are {', '.join(histories)}; those of results.json {', '.join(losses)}")
        raise damaged(folder / "history.csv", problem, run.repair)
    settings = {name: value for name, value in run.config if value is not None}
    digests = {f"SHA-256 of {name}": digest for name, digest in run.data_sha256.items()}
    path = out or folder / "report.html"
    write_text(path, page(results, details, histories, settings | digests, folder))
    return path


def page(
    results: Results,
    details: Details,
    histories: Histories | None = None,
    settings: Mapping[str, object] | None = None,
    folder: Path | None = None,
) -> str:
    """Returns the page of a verdict. histories, settings, folder: None where the models were trained elsewhere."""
    losses = list(results.losses)
    return render(
        "report.html.j2",
        results=results,
        details=details,
        settings=settings or {},
        headline=headline(results),
        answer=answer(results),
        command=command(results, folder),
        findings=findings(results),
        metric=METRICS[results.metric],
        rows=[(METRICS[name].title, metric_cells(results, name, losses)) for name in results.known_metrics()],
        series=plots.series(losses, results.reference),
        plots=_plots(results, histories or {}, details),
    )


def render(template: str, **values: Any) -> str:
    """Renders a page from one of the templates beside this file."""
    environment = Environment(
        loader=PackageLoader("lopsided", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = share
    script, style = ((files("lopsided.report") / name).read_text("utf-8") for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(
        script=Markup(script),
        style=Markup(style),
        script_hash=digest,
        kinds=_KINDS,
        p_value=p_value,
        readings=plots.READINGS,
        **values,
    )
    return page.encode("utf-8", "replace").decode()  # a file's name, or a text, may hold what UTF-8 cannot


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
