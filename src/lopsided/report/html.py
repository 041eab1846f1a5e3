"""report.html: self-contained, readable offline."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lopsided.evaluation.summary import METRICS
from lopsided.files import write_text
from lopsided.report import plots
from lopsided.tables import best_loss, cell, p_value


def write_report(folder: Path) -> Path:
    """Write report.html from results.json and metrics.csv of a finished run folder; returns its path."""
    results = json.loads((folder / "results.json").read_text())
    histories = read_histories(folder / "metrics.csv")
    environment = Environment(
        loader=PackageLoader("lopsided", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        results=results,
        metric=METRICS[results["metric"]],
        rows=_metric_rows(results),
        p_value=p_value,
        colours=plots.colours(results),
        plots={
            "metric": Markup(plots.metric_intervals(results)),
            "difference": Markup(plots.difference_intervals(results)),
            "training": Markup(plots.training_curves(results, histories)),
            "confidence": Markup(plots.confidence_curves(results, histories)),
            "gradient": Markup(plots.gradient_curves(results)),
        },
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def read_histories(path: Path) -> plots.Histories:
    """metrics.csv by loss, seed and column."""
    histories: plots.Histories = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            history = histories.setdefault(row.pop("loss"), {}).setdefault(int(row.pop("seed")), {})
            for column, value in row.items():
                history.setdefault(column, []).append(float(value) if value else math.nan)
    return histories


def _metric_rows(results: dict[str, Any]) -> list[tuple[str, list[tuple[str, bool]]]]:
    """(title, (text, is best) per loss) per metric."""
    rows = []
    for name, metric in METRICS.items():
        best = best_loss(results, name)
        cells = [(cell(entry["metrics"][name]), loss == best) for loss, entry in results["losses"].items()]
        rows.append((metric.title, cells))
    return rows
