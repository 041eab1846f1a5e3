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
    """Draws the mAP of rare, middling and frequent labels for each loss, and for a linear model of scikit-learn."""
    groups = results["groups"]
    figure, panel = plt.subplots(figsize=(7, 3.6), layout="constrained")
    models = [*LOSSES, *results["baselines"]]
    models = [model for model in models if all(model in group["metrics"] for group in groups)]
    for number, model in enumerate(models):
        values = [group["metrics"][model]["map"] or 0.0 for group in groups]
        panel.bar(np.arange(len(groups)) + number / (len(models) + 1), values, 1 / (len(models) + 1), label=model)
    names = [f"{group['name']}: {group['low']} to {group['high']}\n{group['labels']} labels" for group in groups]
    panel.set(ylabel="mAP of test rows", title="by the number of training positives")
    panel.set_xticks(np.arange(len(groups)) + 0.4, names)
    panel.legend(fontsize=8, loc="lower right")
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
