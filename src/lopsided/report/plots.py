"""Draws the plots of the report from results.json, history.csv and details.json; a few panels each."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.folder import Histories
from lopsided.jobs.schema import Details, FrequencyGroups, Interval, ReliabilityCurve, Results, Stage, Trial
from lopsided.report.svg import INK, MUTED, SERIES, Drawing, Margins, drawing

Curves = Mapping[str, tuple[Sequence[float], Sequence[float | None]]]  # loss -> abscissae and ordinates
_LONGEST = 22  # characters of a line beside a plot
_NOISE = 1e-9  # an interval that comes from rounding alone
_NARROWEST = 0.02  # what an axis of a metric spans at least, so that noise does not look large

_SHARE = (-0.02, 1.02)  # what a share or a probability is drawn between
_PENALTY = "penalty on the squared weights"
_FAR = 30  # logits beyond mean nothing more; label powerset has some of 1e29

_DIAGNOSTICS = {  # columns of history.csv -> title and limits of the ordinate
    "p_positive": ("p⁺: mean p on positive labels", _SHARE),
    "p_negative": ("p⁻: mean 1 - p on negative labels", _SHARE),
    "gradient_positive": ("share of the gradient from positives", _SHARE),
    "gradient_hard": ("share of the gradient from hard negatives (p > .5)", _SHARE),
    "effective_gamma": ("effective gamma on negatives", None),
    "dead_labels": ("dead labels: never predicted on validation", None),
    "logit_positive": ("mean logit of positive labels", None),
    "logit_negative": ("mean logit of negative labels", None),
}


def series(losses: Sequence[str], reference: str) -> dict[str, int]:
    """Returns the number of the colour of each loss: 0 for the reference."""
    others = [loss for loss in losses if loss != reference]
    return {loss: 0 if loss == reference else 1 + others.index(loss) % (len(SERIES) - 1) for loss in losses}


def _colours(results: Results) -> dict[str, str]:
    return {loss: SERIES[n] for loss, n in series(list(results.losses), results.reference).items()}


def differences(results: Results) -> list[Drawing]:
    """Draws the paired differences to the reference, and the metric of the verdict itself, each with its interval."""
    name, reference = results.metric, results.reference
    paired = {reference: Interval(mean=0.0, low=None, high=None), **results.comparisons}
    means = {loss: entry.metrics[name] for loss, entry in results.losses.items()}
    title = METRICS[name].title
    panels = [
        _intervals(results, paired, f"difference in {title} to {short(reference)}, with its 95 % interval", zero=True)
    ]
    if any(max(_reach(value)) > _NOISE for value in means.values()):
        panels.append(_intervals(results, means, f"{title}: mean and 95 % interval over {results.repeated}s"))
    return panels


def _intervals(results: Results, values: Mapping[str, Interval], title: str, zero: bool = False) -> Drawing:
    """Draws a point and its interval for each loss that has a mean."""
    colours, names = _colours(results), [folded(loss) for loss in values]

    def draw(axis: Axes) -> None:
        if zero:
            axis.axvline(0, color=MUTED, lw=1)
        for place, (loss, value) in enumerate(values.items()):
            if value.mean is not None:
                reach = [[each] for each in _reach(value)]
                axis.errorbar(value.mean, place, xerr=reach, fmt="o", color=colours[loss], ms=6, lw=2.2)
        axis.set(yticks=range(len(values)), ylim=(len(values) - 0.4, -0.6))
        axis.set_yticklabels(names, color=INK)
        low, high = axis.get_xlim()
        room = max(0.0, _NARROWEST - (high - low)) / 2
        axis.set_xlim(low - room, high + room)
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        axis.grid(axis="x")

    lines = sum(max(1.0, 0.3 + 0.6 * len(name.splitlines())) for name in names)
    margins = Margins(left=beside([line for name in names for line in name.splitlines()]), right=0.25, bottom=0.25)
    return drawing(draw, title, size=(4.6, 0.34 * lines + 0.45), margins=margins)


def _reach(value: Interval) -> tuple[float, float]:
    """Returns how far the interval reaches below and above its mean; 0 without one."""
    if value.mean is None or value.low is None or value.high is None:
        return 0.0, 0.0
    return value.mean - value.low, value.high - value.mean


def training(results: Results, histories: Histories) -> list[Drawing]:
    """Draws validation mAP and training loss against epochs; nothing of solved models, whose ladder says the same."""
    if results.is_solved:
        return []
    loss = _against_epochs(results, histories, "train_loss", "training loss, first epoch = 1", relative=True)
    return [*_against_epochs(results, histories, "valid_map", "mAP on the validation rows"), *loss]


def ladder(results: Results, trials: Sequence[Trial], histories: Histories) -> list[Drawing]:
    """Draws the validation metric against the rates that were tried, or of solved models against the penalty.

    Short trials of all rates are small points, the longer ones of the better half are large. Trials of `--tune`, which
    differ in more than the rate, have a panel of their own, in their order.
    """
    title, panels = f"validation {METRICS[results.metric].title}", []
    if results.is_solved:
        panels += _against_epochs(results, histories, "valid", f"{title} against the {_PENALTY}")
    if rounds := [found for stage in ("short", "long") if (found := _tried(trials, stage))]:
        panels.append(_trials(results, rounds, f"{title} against the learning rate", "learning rate"))
    if tuned := _tried(trials, "tuned"):
        panels.append(_trials(results, [{}, tuned], f"{title} of trials of settings", "trial, as in trials.csv"))
    return panels


_Tried = dict[str, dict[float, float]]  # loss -> rate, or number of the trial -> validation metric


def _tried(trials: Sequence[Trial], stage: Stage) -> _Tried:
    """Returns the trials of a stage that did not diverge."""
    found: _Tried = {}
    for trial in sorted(trials, key=lambda trial: trial.trial if stage == "tuned" else trial.learning_rate):
        if trial.stage == stage and not math.isnan(trial.value):
            found.setdefault(trial.loss, {})[trial.trial if stage == "tuned" else trial.learning_rate] = trial.value
    return found


def _trials(results: Results, rounds: Sequence[_Tried], title: str, xlabel: str) -> Drawing:
    """Draws a first round in small points and a second one in large ones."""
    colours = _colours(results)

    def draw(axis: Axes) -> None:
        for found, size, width in zip(rounds, (3, 6), (0.8, 1.7), strict=False):
            for loss, values in found.items():
                axis.plot(*zip(*values.items(), strict=True), "o-", ms=size, lw=width, color=colours[loss])
        axis.set(xlabel=xlabel)
        if xlabel == "learning rate":
            _logarithmic(axis)
        else:
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.grid()

    return drawing(draw, title)


def _logarithmic(axis: Axes) -> None:
    """Lets abscissae be settings, written as one types them."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_locator(NullLocator())


def diagnostics(results: Results, histories: Histories) -> list[Drawing]:
    """Draws the columns of history.csv that tell what the loss does to the model."""
    found = (
        _against_epochs(results, histories, column, title, limits) for column, (title, limits) in _DIAGNOSTICS.items()
    )
    return [drawn for panels in found for drawn in panels]


def _against_epochs(
    results: Results,
    histories: Histories,
    column: str,
    title: str,
    limits: tuple[float, float] | None = None,
    relative: bool = False,
) -> list[Drawing]:
    """Draws a column of history.csv: for each loss the mean over seeds and a band from the lowest to the highest.

    An epoch of a solved model is a penalty. Nothing where the column is undefined throughout.
    """
    colours = _colours(results)
    lines = [line for seeds in histories.values() for history in seeds.values() for line in history]
    if not any(math.isfinite(getattr(line, column)) for line in lines):
        return []

    def draw(axis: Axes) -> None:
        for loss, seeds in histories.items():
            columns = [[getattr(line, column) for line in history] for history in seeds.values()]
            longest = max(seeds.values(), key=len)
            epochs = [epoch.l2 if results.is_solved else epoch.epoch for epoch in longest]
            curves = np.array([values + [math.nan] * (len(epochs) - len(values)) for values in columns])
            curves = curves / curves[:, :1] if relative else curves
            with warnings.catch_warnings():  # an epoch that no seed finished has the mean NaN
                warnings.simplefilter("ignore", RuntimeWarning)
                mean, low, high = np.nanmean(curves, 0), np.nanmin(curves, 0), np.nanmax(curves, 0)
            axis.plot(epochs, mean, "o-", ms=3.5 if len(epochs) < 30 else 0, color=colours[loss])
            axis.fill_between(epochs, low, high, color=colours[loss], alpha=0.15, lw=0)
        if results.is_solved:
            axis.set_xlabel(_PENALTY)
            _logarithmic(axis)
        else:
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            last = max(len(history) for seeds in histories.values() for history in seeds.values())
            room = 0.05 * (last - 1) or 0.5
            axis.set(xlabel="epoch", xlim=(1 - room, last + room))
        if limits:
            axis.set_ylim(*limits)
        axis.grid()

    return [drawing(draw, title)]


def decisions(results: Results, details: Details) -> list[Drawing]:
    """Draws precision against recall, and F1 against the threshold, with the thresholds of loss and validation."""
    curves, losses = details.curves, results.losses
    marks = {
        loss: [(losses[loss].own_threshold, "white"), (losses[loss].tuned_thresholds[curve.seed], "full")]
        for loss, curve in curves.items()
    }
    precision = {loss: (curve.recall, curve.precision) for loss, curve in curves.items()}
    panels = [_lines(results, precision, "precision against recall, all labels together", "recall", limits=_SHARE)]
    for column, name in (("micro_f1", "micro-F1"), ("macro_f1", "macro-F1")):
        lines = {loss: (curve.threshold, getattr(curve, column)) for loss, curve in curves.items()}
        title = f"{name} against the threshold"
        panels.append(_lines(results, lines, title, "threshold (logit)", limits=_SHARE, marks=marks))
    return [*panels, _by_frequency(results, details.labels.by_frequency)]


def _by_frequency(results: Results, groups: FrequencyGroups) -> Drawing:
    colours = _colours(results)

    def draw(axis: Axes) -> None:
        for loss, values in groups.average_precision.items():
            axis.plot(range(len(values)), np.array(values, dtype=float), "o-", ms=3.5, color=colours[loss])
        axis.set(xlabel="mean number of training rows with such a label", ylim=_SHARE)
        axis.set_xticks(range(len(frequency := groups.train_positives)), [f"{count:.0f}" for count in frequency])
        axis.grid()

    return drawing(draw, "average precision, from rare labels to frequent ones")


def gradients(results: Results, details: Details) -> list[Drawing]:
    """Draws the size of the gradient on the logit of a positive and of a negative label, against its probability."""
    known = {loss: curve for loss, curve in details.gradients.items() if curve}
    dashed = {loss for loss, curve in known.items() if curve.coupled}
    return [
        _lines(
            results,
            {loss: (curve.p, getattr(curve, side)) for loss, curve in known.items()},
            f"gradient on a {side} label",
            "p = sigmoid(logit)",
            dashed=dashed,
        )
        for side in ("positive", "negative")
    ]


def _lines(
    results: Results,
    lines: Curves,
    title: str,
    xlabel: str,
    limits: tuple[float, float] | None = None,
    marks: dict[str, list[tuple[float | None, str]]] | None = None,
    dashed: set[str] = frozenset(),  # type: ignore[assignment]
) -> Drawing:
    """Draws a line per loss; `marks` are abscissae at which a line gets an empty ("white") or a full point."""
    colours = _colours(results)

    def draw(axis: Axes) -> None:
        for loss, (x, y) in lines.items():
            known = np.array([np.nan if value is None else value for value in y])
            axis.plot(x, known, ls=(0, (4, 4)) if loss in dashed else "-", color=colours[loss])
            for at, kind in (marks or {}).get(loss, []):
                if at is not None and len(x):
                    fill = "none" if kind == "white" else colours[loss]
                    height = np.interp(at, x, known)
                    axis.plot(at, height, "o", ms=6.5, color=colours[loss], mfc=fill, mew=1.6)
        axis.set(xlabel=xlabel)
        low, high = axis.get_xlim()
        axis.set_xlim(max(low, -_FAR), min(high, _FAR))
        if limits:
            axis.set_ylim(*limits)
        axis.grid()

    return drawing(draw, title)


READINGS = {
    "logit": "before: sigmoid(logit)",
    "implied": "implied by the loss, in closed form",
    "fitted": "after: fitted to other rows",
}


def reliability(results: Results, details: Details) -> list[Drawing]:
    """Draws the observed share of positives against predicted probability, before and after calibration."""
    panels = []
    for kind, title in READINGS.items():
        bins = {loss: curves[kind] for loss, curves in details.reliability.items() if kind in curves}
        panels += [_reliability_panel(results, bins, title)] if bins else []
    return panels


def _reliability_panel(results: Results, bins: Mapping[str, ReliabilityCurve], title: str) -> Drawing:
    colours = _colours(results)

    def draw(axis: Axes) -> None:
        axis.plot((0, 1), (0, 1), color=MUTED, lw=1, ls=":")
        for loss, curve in bins.items():
            axis.plot(curve.predicted, curve.observed, "o-", ms=3.5, color=colours[loss])
            axis.fill_between(curve.predicted, curve.low, curve.high, color=colours[loss], alpha=0.15, lw=0)
        axis.set(xlabel="predicted probability", xlim=_SHARE, ylim=(-0.02, 1.02))
        axis.grid()

    return drawing(draw, title)


def beside(texts: Sequence[str]) -> float:
    """Returns the inches that texts need beside a plot."""
    return 0.15 + 0.078 * max(map(len, texts))


def short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def folded(name: str) -> str:
    """Returns a name in lines that fit beside a plot, cut after the third."""
    return textwrap.fill(name, _LONGEST, max_lines=3, placeholder="…") or name
