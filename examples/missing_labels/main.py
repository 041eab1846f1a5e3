"""Hides positives of training: which loss survives? python examples/missing_labels/main.py TRAIN.jsonl TEST.jsonl

Lines are {"text": ..., "labels": [...]}. For each share of hidden positives `lopsided compare` trains six losses;
`lopsided inspect --missing` then looks for the hidden ones, where the largest share is hidden.
"""

import csv
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import lopsided
from lopsided.__main__ import main as command
from lopsided.losses.closed_form import discarding_point

LOSSES = ("bce", "focal", "asl", "apl", "zlpr", "hill")
METRICS = {"map": "mAP", "micro_f1_own": "micro-F1, own threshold", "micro_f1": "micro-F1, tuned threshold"}


def run(*line: object) -> None:
    """Runs a command in this process. Raises SystemExit if it fails; it said why."""
    if status := command([str(word) for word in line]):
        raise SystemExit(status)


def compare(train: str, test: str, share: float, out: Path) -> dict:
    """Returns the results of a comparison with that share of the training positives hidden."""
    run("compare", train, "--test", test, "--losses", ",".join(LOSSES), "--missing", share, "--out", out)
    return json.loads((out / "results.json").read_text())


def inspect(folder: Path, train: str, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores of the first suspects by models of ASL, and which of them really are hidden positives."""
    run("inspect", folder, "--missing", "--loss", "asl", "--folds", 3, "--top", top)
    truth = [
        set(json.loads(line)["labels"]) for line in Path(train).read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    with (folder / "missing.csv").open(encoding="utf-8", newline="") as file:
        suspects = list(csv.DictReader(file))
    hidden = [each["label"] in truth[int(each["row"]) - 1] for each in suspects]
    return np.array([float(each["score"]) for each in suspects]), np.array(hidden)


def push(loss: str, logits: torch.Tensor) -> torch.Tensor:
    """Returns how strongly a loss pushes the logit of a negative down, (points,)."""
    z = logits[:, None].clone().requires_grad_()
    lopsided.loss(loss, reduction="sum")(z, torch.zeros_like(z)).backward()
    return z.grad[:, 0]


def draw(found: dict[float, dict], scores: np.ndarray, hidden: np.ndarray, file: Path) -> None:
    """Draws mAP by share, and the scores of suspects over the gradients that training gave such a negative."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for loss in LOSSES:
        for panel, metric in ((left, "map"), (middle, "micro_f1_own")):
            values = [results["losses"][loss]["metrics"][metric]["mean"] for results in found.values()]
            panel.plot([100 * share for share in found], values, marker=".", label=loss)
    for panel, metric in ((left, "map"), (middle, "micro_f1_own")):
        panel.set(title=METRICS[metric], xlabel="% of the training positives hidden")
    left.legend(fontsize=8)
    right.hist([scores[hidden], scores[~hidden]], bins=30, stacked=True, label=["hidden positives", "negatives"])
    right.axvline(discarding_point(lopsided.losses.formula("asl")), color="k", linewidth=0.8)
    right.set(title="suspects of asl", xlabel="logit", ylabel="suspects")
    right.legend(fontsize=8, loc="center right")
    slopes, grid = right.twinx(), torch.linspace(float(scores.min()), float(scores.max()), 200)
    for loss in ("bce", "asl"):
        slopes.plot(grid, push(loss, grid), linestyle="--", color="grey" if loss == "bce" else "k")
    slopes.set(ylabel="push on a negative: asl black, bce grey", ylim=(0, None))
    figure.savefig(file, dpi=75)
    plt.close(figure)


def main(
    train: str,
    test: str,
    out: Path = Path("runs/missing_labels"),
    shares: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6),
    top: int = 1000,
) -> None:
    found = {share: compare(train, test, share, out / f"hidden-{100 * share:.0f}") for share in shares}
    print("\nmetric                     loss " + "".join(f"{100 * share:6.0f} %" for share in shares) + "   hidden")
    for metric, title in METRICS.items():
        for loss in LOSSES:
            values = [results["losses"][loss]["metrics"][metric]["mean"] for results in found.values()]
            print(f"{title:27}{loss:5}" + "".join(f"{value:8.3f}" for value in values))
    print("\nmAP against bce, with p by Holm")
    for loss in LOSSES[1:]:
        against = [results["comparisons"][loss] for results in found.values()]
        print(f"{loss:32}" + "".join(f"{each['mean']:+8.3f} ({each['p_holm']:.3f})" for each in against))

    scores, hidden = inspect(out / f"hidden-{100 * shares[-1]:.0f}", train, top)
    beyond = scores > discarding_point(lopsided.losses.formula("asl"))
    print(f"\n{100 * shares[-1]:.0f} % hidden; suspects of asl   number  hidden positives")
    groups = {"first 50": hidden[:50], f"first {len(hidden)}": hidden, "that asl discards": hidden[beyond]}
    for name, group in groups.items():
        print(f"{name:25}{len(group):10}" + (f"{100 * group.mean():16.0f} %" if len(group) else ""))
    draw(found, scores, hidden, out / "hidden.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
