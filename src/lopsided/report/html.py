"""Pages: self-contained, readable offline, with nothing in them that was not escaped.

Two walls against hostile names and texts: every value passes Jinja's autoescaping, and the page's own policy refuses
every script but the one whose hash it names, and everything from elsewhere. No data are embedded as JSON.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lopsided.errors import UserError
from lopsided.evaluation.summary import METRICS
from lopsided.files import write_text
from lopsided.report import plots
from lopsided.report.headline import headline
from lopsided.report.svg import Drawing
from lopsided.tables import best_loss, cell, p_value

_KINDS = {"better": "ahead", "ahead so far": "ahead", "worse": "behind", "behind so far": "behind"}


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a finished run folder from its files, to report.html in it or to `out`; returns the path."""
    results = read_json(folder / "results.json")
    details = _read_if_there(folder / "details.json")
    histories = read_histories(folder / "metrics.csv")
    page = render(
        "report.html.j2",
        results=results,
        details=details,
        config=_read_if_there(folder / "config.json"),
        headline=headline(results),
        metric=METRICS[results["metric"]],
        rows=_metric_rows(results),
        series=plots.series(list(results["losses"]), results["baseline"]),
        plots=_plots(results, histories, details),
    )
    path = out or folder / "report.html"
    write_text(path, page)
    return path


def render(template: str, **values: Any) -> str:
    """A page from one of the templates beside this file."""
    environment = Environment(
        loader=PackageLoader("lopsided", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = _number
    script, style = ((files("lopsided.report") / name).read_text() for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        script=Markup(script),
        style=Markup(style),
        script_hash=digest,
        kinds=_KINDS,
        p_value=p_value,
        readings=plots.READINGS,
        **values,
    )


def _plots(results: dict[str, Any], histories: plots.Histories, details: dict[str, Any]) -> dict[str, list[Drawing]]:
    drawn = {
        "differences": plots.differences(results),
        "training": plots.training(results, histories),
        "diagnostics": plots.diagnostics(results, histories),
    }
    if details:
        drawn["decisions"] = plots.decisions(results, details)
        drawn["gradients"] = plots.gradients(results, details)
        drawn["reliability"] = plots.reliability(results, details)
    return drawn


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file of a run holds. Raises UserError for a damaged one."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); write it again with: lopsided compare {path.parent}") from None
    return content


def read_histories(path: Path) -> plots.Histories:
    """metrics.csv by loss, seed and column."""
    histories: plots.Histories = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                history = histories.setdefault(row.pop("loss"), {}).setdefault(int(row.pop("seed")), {})
                for column, value in row.items():
                    history.setdefault(column, []).append(float(value) if value else math.nan)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); write it again with: lopsided compare {path.parent}") from None
    return histories


def _metric_rows(results: dict[str, Any]) -> list[tuple[str, list[tuple[str, bool]]]]:
    """(title, (text, is best) per loss) per metric."""
    rows = []
    for name in next(iter(results["losses"].values()))["metrics"]:
        best = best_loss(results, name)
        cells = [(cell(entry["metrics"][name]), loss == best) for loss, entry in results["losses"].items()]
        rows.append((METRICS[name].title, cells))
    return rows


def _number(value: float | None) -> str:
    """.862, or a dash for what is undefined."""
    return "-" if value is None else f"{value:.3f}".removeprefix("0")
