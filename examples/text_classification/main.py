"""Compares losses on texts: python examples/text_classification/main.py TRAIN --test TEST [OPTION ...]

All words go to `lopsided compare`, which reads the file, solves a linear model of n-grams for each loss, and judges
them; beside its tables stand here a plot of rare and frequent labels, and the numbers of the verdict.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from lopsided.__main__ import main as command

LOSSES = ("bce", "focal", "asl", "apl", "zlpr")
METRICS = {"map": "mAP", "micro_f1": "micro-F1 tuned", "macro_f1_labels": "macro-F1 by label", "p@1": "P@1"}


def draw(results: dict, file: Path) -> None:
    """Draws by how much each loss is above a linear model of scikit-learn, in mAP of rare to frequent labels."""
    groups, width = results["groups"], 0.8 / len(LOSSES)
    figure, panel = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for number, loss in enumerate(LOSSES):
        values = [group["metrics"][loss]["map"] - group["metrics"]["linear"]["map"] for group in groups]
        panel.bar(np.arange(len(groups)) + number * width, values, width, label=loss)
    names = [
        f"{group['name']}: {group['labels']} labels\n{group['low']} to {group['high']} training rows"
        for group in groups
    ]
    panel.set_xticks(np.arange(len(groups)) + width * (len(LOSSES) - 1) / 2, names)
    panel.set(ylabel="mAP above the linear baseline")
    panel.axhline(0, color="k", linewidth=0.8)
    panel.legend(fontsize=8)
    figure.savefig(file, dpi=80)
    plt.close(figure)


def main(*words: str | Path, out: Path = Path("runs/text_classification")) -> None:
    line = ["compare", *map(str, words), "--losses", ",".join(LOSSES), "--out", str(out)]
    if status := command(line):
        raise SystemExit(status)
    results = json.loads((out / "results.json").read_text())
    draw(results, out / "groups.png")
    print("\nloss " + "".join(f"{title:>18}" for title in METRICS.values()) + "   mAP against bce, 95 % interval")
    for loss in LOSSES:
        values = [results["losses"][loss]["metrics"][metric]["mean"] for metric in METRICS]
        against = results["comparisons"].get(loss)
        interval = "" if against is None else "{mean:+11.3f}  {low:+.3f} to {high:+.3f}".format(**against)
        print(f"{loss:5}" + "".join(f"{value:18.3f}" for value in values) + interval)


if __name__ == "__main__":
    main(*sys.argv[1:])
