"""Plots what a loss does to one label: value and gradient against its probability."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lopsided.data.storage import write_atomically
from lopsided.jobs.numbers import share
from lopsided.losses import Formula
from lopsided.losses.closed_form import profile
from lopsided.models.heads import own_threshold
from lopsided.report.svg import Ticks

POSITIVE, NEGATIVE = "#0072b2", "#d55e00"

_STYLE = {"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False}


@contextmanager
def drawn(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Gives a figure to draw on, sized in inches, and writes it: the same bytes for the same drawing."""
    with mpl.rc_context(_STYLE | {"svg.fonttype": "none", "svg.hashsalt": "lopsided"}):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        date = {} if path.suffix == ".png" else {"Date": None} if path.suffix == ".svg" else {"CreationDate": None}
        write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=110, metadata=date))


def save_loss_plot(loss: Formula, path: Path) -> None:
    """Writes value and gradient of positives and negatives, and where labels are decided."""
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    sides = {
        "positive": (*profile(loss, torch.logit(p), positive=True), POSITIVE),
        "negative": (*profile(loss, torch.logit(p), positive=False), NEGATIVE),
    }
    with drawn(path, 9, 3.4) as figure:
        value_axis, gradient_axis = figure.subplots(1, 2)
        for name, (value, gradient, colour) in sides.items():
            value_axis.plot(p, value, color=colour, lw=1.8, label=f"{name} label")
            gradient_axis.plot(p, gradient.abs(), color=colour, lw=1.8, label=f"{name} label")
        beside = "" if loss.pool.thresholded else ", beside one of the other kind at p = .5"
        value_axis.set(title=f"what a label costs{beside}", xlabel="p = sigmoid(logit)", ylim=(_floor(sides), 4))
        gradient_axis.set(title="size of the gradient on its logit", xlabel="p = sigmoid(logit)", ylim=(0, None))
        for axis in (value_axis, gradient_axis):
            _mark_threshold(loss, axis)
            axis.set_xlim(0, 1)
            axis.xaxis.set_major_formatter(Ticks())
            axis.yaxis.set_major_formatter(Ticks())
            axis.grid(alpha=0.3)
        value_axis.legend(frameon=False, loc="upper center")
        figure.suptitle(str(loss), fontsize=10)


def _floor(sides: dict[str, tuple[Tensor, Tensor, str]]) -> float:
    return min(0.0, *(value.min().item() for value, _, _ in sides.values()))


def _mark_threshold(loss: Formula, axis: Axes) -> None:
    threshold = own_threshold(loss)
    if threshold is not None and math.isfinite(threshold):
        at = torch.sigmoid(torch.tensor(threshold)).item()
        axis.axvline(at, color="#555555", ls=":", lw=1.4, label=f"decided at {share(at)}")
