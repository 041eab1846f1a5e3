"""The plots of the report, as SVG text."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lopsided.evaluation.summary import METRICS
from lopsided.report.loss_plot import profile
from lopsided.training.objective import Powerset, parse_method

# Okabe and Ito's colours, which colour-blind readers can tell apart; grey for the baseline
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b5ea7", "#8c564b")
GREY = "#555555"

Histories = dict[str, dict[int, dict[str, list[float]]]]  # loss -> seed -> column of metrics.csv -> values


def colours(results: dict[str, Any]) -> dict[str, str]:
    others = [loss for loss in results["losses"] if loss != results["baseline"]]
    return {results["baseline"]: GREY} | {loss: COLOURS[i % len(COLOURS)] for i, loss in enumerate(others)}


def metric_intervals(results: dict[str, Any]) -> str:
    """The metric of the verdict, one point and interval per loss, over seeds."""
    name = results["metric"]
    intervals = {loss: entry["metrics"][name] for loss, entry in results["losses"].items()}
    texts = {loss: f"{value['mean']:.3f}" for loss, value in intervals.items() if value["mean"] is not None}
    return _intervals(results, intervals, texts, f"{METRICS[name].title} on the test rows")


def difference_intervals(results: dict[str, Any]) -> str:
    """Paired differences to the baseline with their intervals."""
    comparisons = {loss: c for loss, c in results["comparisons"].items() if c["low"] is not None}
    texts = {loss: c["verdict"] for loss, c in comparisons.items()}
    title = f"difference in {METRICS[results['metric']].title} to {results['baseline']}, 95 % interval"
    return _intervals(results, comparisons, texts, title, zero=True)


def _intervals(
    results: dict[str, Any], intervals: dict[str, Any], texts: dict[str, str], title: str, zero: bool = False
) -> str:
    """A point, its interval where it has one, and a text for each loss that has a text."""
    colour = colours(results)

    def draw(axis: Axes) -> None:
        if zero:
            axis.axvline(0, color=GREY, lw=1)
        for place, (loss, value) in enumerate(intervals.items()):
            if loss in texts:
                half = 0 if value["low"] is None else value["mean"] - value["low"]
                axis.errorbar(value["mean"], place, xerr=half, fmt="o", color=colour[loss], capsize=4, lw=2)
                axis.annotate(texts[loss], (value["mean"], place), (0, 7), textcoords="offset points", ha="center")
        axis.set(yticks=range(len(intervals)), yticklabels=list(intervals), xlabel=title)
        axis.set_ylim(len(intervals) - 0.4, -0.7)
        axis.grid(axis="x", alpha=0.3)

    return _svg([draw], height=0.55 * len(intervals) + 1, width=7)


def training_curves(results: dict[str, Any], histories: Histories) -> str:
    """Validation mAP and training loss against epochs: the mean over seeds, and a band from least to most."""

    def draw_loss(axis: Axes) -> None:
        _against_epochs(axis, results, histories, "train_loss", "training loss, first epoch = 1", relative=True)

    def draw_map(axis: Axes) -> None:
        _against_epochs(axis, results, histories, "valid_map", "mAP on the validation rows")
        axis.legend(frameon=False)

    return _svg([draw_map, draw_loss])


def confidence_curves(results: dict[str, Any], histories: Histories) -> str:
    """p+ and p- against epochs."""

    def draw_positive(axis: Axes) -> None:
        _against_epochs(axis, results, histories, "p_positive", "p⁺: mean of p on positive labels")
        axis.set_ylim(0, 1.02)
        axis.legend(frameon=False)

    def draw_negative(axis: Axes) -> None:
        _against_epochs(axis, results, histories, "p_negative", "p⁻: mean of 1 - p on negative labels")
        axis.set_ylim(0, 1.02)

    return _svg([draw_positive, draw_negative])


def _against_epochs(
    axis: Axes, results: dict[str, Any], histories: Histories, column: str, title: str, relative: bool = False
) -> None:
    """A column of metrics.csv: for each loss the mean over seeds and a band from the lowest to the highest."""
    for loss, seeds in histories.items():
        epochs = next(iter(seeds.values()))["epoch"]
        curves = torch.tensor([history[column] for history in seeds.values()])
        curves = curves / curves[:, :1] if relative else curves
        colour = colours(results)[loss]
        axis.plot(epochs, curves.nanmean(0), "o-", ms=3, color=colour, label=loss)
        low, high = curves.nan_to_num(nan=math.inf).amin(0), curves.nan_to_num(nan=-math.inf).amax(0)
        axis.fill_between(epochs, low, high, where=low <= high, color=colour, alpha=0.15, lw=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="epoch", title=title)
    axis.grid(alpha=0.3)


def gradient_curves(results: dict[str, Any]) -> str:
    """The size of the gradient on the logit of a positive and of a negative label, against its probability."""
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)

    def draw(axis: Axes, positive: bool, title: str) -> None:
        for spec in results["losses"]:
            loss = parse_method(spec)
            if isinstance(loss, Powerset):
                continue  # has no gradient of one label
            size = profile(loss, torch.logit(p), positive)[1].abs()
            dashes = "-" if loss.pool.per_label else "--"
            axis.plot(p, size, dashes, color=colours(results)[spec], label=spec, lw=1.8)
        axis.set(xlabel="p = sigmoid(logit)", title=title)
        axis.grid(alpha=0.3)

    def draw_positive(axis: Axes) -> None:
        draw(axis, True, "gradient on a positive label")
        axis.legend(frameon=False)

    return _svg([draw_positive, lambda axis: draw(axis, False, "gradient on a negative label")])


def _svg(panels: list[Callable[[Axes], None]], height: float = 3.4, width: float = 9) -> str:
    """Draw the panels side by side; text stays text, and equal input gives equal output."""
    style = {"svg.fonttype": "none", "svg.hashsalt": "lopsided", "font.size": 9, "axes.titlesize": 10}
    style |= {"axes.spines.top": False, "axes.spines.right": False, "font.family": "sans-serif"}
    with mpl.rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, height), layout="constrained")
        for axis, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            draw(axis)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return re.sub(r"^.*?(?=<svg)", "", text.getvalue(), flags=re.DOTALL)
