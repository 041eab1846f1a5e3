"""Draws the plots of the study, as SVG on white."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from measured import BASE, Gain, Measured
from study import FAMILIES, HIDDEN
from tables import ROOT

from lopsided.report.critical_difference import critical_difference
from lopsided.report.svg import SERIES, VARIABLES, Drawing, Margins, drawing

FOLDER = ROOT / "docs/which_loss"
LOSSES = tuple(loss for family in ("losses", "ranking", "balanced", "adaptive") for loss in FAMILIES[family])
RANKED = {"map": "mAP", "macro_f1_labels": "macro-F1 with a threshold for each label"}


def plots(study: Measured) -> dict[Path, str]:
    """Returns the text of every plot, by its file; without those that lack results."""
    made: dict[str, Drawing] = {"thresholds": by_rule(study)}
    shares = [f"{share:g}" for share in HIDDEN]
    some = [name for name in study.sets() if all(name in study.sets(share) for share in shares)]
    if len(some) > 1:
        made["hidden"] = by_share(study, shares, some)
    for metric in RANKED:
        everywhere = [loss for loss in LOSSES if all(study.values(name, loss, metric) for name in study.sets())]
        ranks = study.ranks(everywhere, metric)
        if ranks is not None:
            made[f"ranks_{metric}"] = critical_difference(ranks)
    return {FOLDER / f"{name}.svg": standalone(each) for name, each in made.items()}


def standalone(panel: Drawing) -> str:
    """Returns a panel as a file of its own, in the colours of the page of a report by day."""
    colours = "".join(f"{variable}:{colour};" for colour, variable in VARIABLES.items())
    style = f'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" style="background:#fff;{colours}"'
    drawn = str(panel.svg).replace("<svg ", f"<svg {style} ", 1)
    return f"<!-- drawn by matplotlib {mpl.__version__} -->\n{drawn}\n"


def by_rule(study: Measured) -> Drawing:
    """Draws what each loss adds to bce in macro-F1 at its own threshold, one tuned, and one a label."""
    rules = {"own threshold": "macro_f1_own", "one tuned": "macro_f1", "one a label": "macro_f1_labels"}
    gains = {title: study.gains(LOSSES, metric) for title, metric in rules.items()}
    losses = [loss for loss in LOSSES if loss != BASE and loss in gains["own threshold"]]

    def draw(axis: Axes) -> None:
        axis.axvline(0, lw=1, color=SERIES[0])
        for number, (title, found) in enumerate(gains.items()):
            _dots(axis, [found[loss] for loss in losses], 0.22 * (number - 1), SERIES[1 + number], title)
        axis.set(yticks=range(len(losses)), yticklabels=losses, xlabel="macro-F1 above bce, mean over sets")
        axis.invert_yaxis()
        axis.legend(frameon=False, loc="best")

    return drawing(draw, "what a loss adds to bce", size=(6.6, 0.45 * len(losses) + 0.9), margins=Margins(1.1))


def _dots(axis: Axes, gains: Sequence[Gain], shift: float, colour: str, title: str) -> None:
    places = [place + shift for place in range(len(gains))]
    axis.hlines(places, [gain.low for gain in gains], [gain.high for gain in gains], color=colour, lw=1.2)
    axis.plot([gain.mean for gain in gains], places, "o", ms=4, color=colour, label=title)


def by_share(study: Measured, shares: Sequence[str], sets: Sequence[str]) -> Drawing:
    """Draws how far losses are ahead of bce in mAP, with ever more positives hidden."""
    gains = [study.gains(FAMILIES["losses"], "map", hidden=share, sets=sets) for share in shares]

    def draw(axis: Axes) -> None:
        axis.axhline(0, lw=1, color=SERIES[0])
        for number, loss in enumerate(FAMILIES["losses"][1:]):
            axis.plot(
                [100 * float(share) for share in shares],
                [found[loss].mean for found in gains],
                marker="o",
                ms=3,
                color=SERIES[1 + number],
                label=loss,
            )
        axis.set(xlabel="% of the training positives hidden", ylabel="mAP above bce, mean over sets")
        axis.set(xticks=[100 * float(share) for share in shares])
        axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))

    return drawing(draw, "hidden positives", size=(5.6, 3.0), margins=Margins(0.75, right=1.3))
