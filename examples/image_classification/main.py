"""Compares losses on images: python examples/image_classification/main.py [DATA] [OPTION ...]

All words go to `lopsided compare`, whose data without any are `digits-grid`; beside its tables stand here the numbers
of the verdict, and a plot of them and of what a threshold brings.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from lopsided.__main__ import main as command

LOSSES = ("bce", "focal", "asl", "apl", "zlpr")
METRICS = {"map": "mAP", "micro_f1_own": "micro-F1 own", "micro_f1": "micro-F1 tuned", "macro_f1": "macro-F1 tuned"}


def draw(results: dict, file: Path) -> None:
    """Draws the differences to bce with their intervals, and micro-F1 at the loss's own threshold and a tuned one."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for place, loss in enumerate(LOSSES[1:]):
        against = results["comparisons"][loss]
        ends = [[against["mean"] - against["low"]], [against["high"] - against["mean"]]]
        left.errorbar(against["mean"], place, xerr=ends, fmt="o", capsize=4, color=f"C{place + 1}")
    left.axvline(0, color="k", linewidth=0.8)
    left.set_yticks(range(len(LOSSES) - 1), LOSSES[1:])
    left.set_ylim(len(LOSSES) - 1.5, -0.5)
    left.set(xlabel="mAP above bce, with its 95 % interval")
    for shift, metric in ((-0.2, "micro_f1_own"), (0.2, "micro_f1")):
        values = [results["losses"][loss]["metrics"][metric]["mean"] for loss in LOSSES]
        right.bar(np.arange(len(LOSSES)) + shift, values, 0.4, label=METRICS[metric])
    right.set_xticks(range(len(LOSSES)), LOSSES)
    right.margins(y=0.25)  # room for the legend
    right.legend(fontsize=8, ncols=2)
    figure.savefig(file, dpi=80)
    plt.close(figure)


def main(*words: str | Path, out: Path = Path("runs/image_classification")) -> None:
    line = ["compare", *map(str, words), "--losses", ",".join(LOSSES), "--out", str(out)]
    if status := command(line):
        raise SystemExit(status)
    results = json.loads((out / "results.json").read_text())
    draw(results, out / "losses.png")
    print(
        "\nloss "
        + "".join(f"{title:>16}" for title in METRICS.values())
        + "   mAP against bce, 95 % interval  p (Holm)"
    )
    for loss in LOSSES:
        values = [results["losses"][loss]["metrics"][metric]["mean"] for metric in METRICS]
        against = results["comparisons"].get(loss)
        interval = "" if against is None else "{mean:+11.3f}  {low:+.3f} to {high:+.3f}{p_holm:14.3f}".format(**against)
        print(f"{loss:5}" + "".join(f"{value:16.3f}" for value in values) + interval)


if __name__ == "__main__":
    main(*sys.argv[1:])
