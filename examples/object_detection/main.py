"""Detects digits by a small FCOS, with other losses for focal loss: python examples/object_detection/main.py

Needs `pip install pycocotools` beside lopsided[tool].
"""

from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from detector import Detector, Scenes, assign, average_precision, draw_scenes, overlap
from sklearn.datasets import load_digits

import lopsided
from lopsided import sigmoid_asymmetric_loss
from lopsided.metrics.significance import holm, resplit_differences

BATCH = 16  # canvases
ASL = {"gamma": 4.0, "gamma_pos": 0.0, "clip": 0.05, "detach_focus": True}
CRITERIA = {  # what is called with logits and targets; the formula by which the last bias starts where it settles
    "focal": (partial(sigmoid_asymmetric_loss, reduction="sum"), "focal(alpha=0.25)"),
    "asl": (partial(sigmoid_asymmetric_loss, **ASL, alpha=-1, reduction="sum"), "asl"),
    "asl, alpha .25": (partial(sigmoid_asymmetric_loss, **ASL, alpha=0.25, reduction="sum"), "asl(alpha=0.25)"),
    **{name: (lopsided.loss(name, reduction="sum"), name) for name in ("bce", "apl", "zlpr")},
}


def train(name: str, scenes: Scenes, rate: float, weight: float, epochs: int, seed: int) -> Detector:
    """Trains a detector by the class loss of that name, `weight` times, and 1 - IoU, by positive location."""
    criterion, formula = CRITERIA[name]
    classes, sides = (torch.stack(each) for each in zip(*(assign(*truth) for truth in scenes[1]), strict=True))
    shares = classes.float().mean((0, 1)).clamp(min=1e-3)  # of few canvases a digit may be missing
    start = lopsided.LinearHead(1, 10, formula, prior=shares).bias.data
    torch.manual_seed(seed)  # the same weights and batches for all losses
    model = Detector(start)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * -(-len(classes) // BATCH))
    for _ in range(epochs):
        for batch in torch.randperm(len(classes)).split(BATCH):
            logits, predicted = model(scenes[0][batch])
            positive = classes[batch].any(2)
            loss = weight * criterion(logits.flatten(0, 1), classes[batch].flatten(0, 1).float())
            loss = loss + (1 - overlap(predicted[positive], sides[batch][positive])).sum()
            optimizer.zero_grad()
            (loss / positive.sum()).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def search(name: str, train_scenes: Scenes, valid_scenes: Scenes, epochs: int) -> tuple[float, float]:
    """Returns the learning rate and the weight that are better on validation canvases than all four beside them."""
    tried: dict[tuple[int, int], float] = {}
    best = (0, 0)
    while True:
        for step in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
            place = best[0] + step[0], best[1] + step[1]
            if place not in tried:
                model = train(name, train_scenes, 0.02 * 2.0 ** place[0], 3.0 ** (1 + place[1]), epochs, seed=0)
                tried[place] = average_precision(model, valid_scenes)[0]
        if (higher := max(tried, key=tried.__getitem__)) == best:
            return 0.02 * 2.0 ** best[0], 3.0 ** (1 + best[1])
        best = higher


def draw_seed(canvases: int, seed: int) -> tuple[Scenes, Scenes, Scenes]:
    """Draws training, validation and test canvases, with digits that no two of them share; others for each seed."""
    random = np.random.default_rng(seed)
    rows = random.permutation(len(load_digits().target))
    parts = zip(np.split(rows, [900, 1200]), (canvases, canvases // 2, canvases), strict=True)
    train, valid, test = (draw_scenes(part, count, random) for part, count in parts)
    return train, valid, test


def draw(precision: np.ndarray, file: Path) -> None:
    """Draws the mAP of each seed, and the mean; seeds are joined by a line, since they are paired."""
    figure, panel = plt.subplots(figsize=(6.5, 3), layout="constrained")
    panel.plot(precision, color="grey", marker=".", linewidth=0.6)
    panel.plot(precision.mean(1), "k_", markersize=24, markeredgewidth=2)
    panel.set_xticks(range(len(CRITERIA)), list(CRITERIA))
    panel.set(ylabel="mAP, test canvases")
    figure.savefig(file, dpi=80)
    plt.close(figure)


def main(out: Path = Path("runs/object_detection"), canvases: int = 240, epochs: int = 20, seeds: int = 5) -> None:
    out.mkdir(parents=True, exist_ok=True)
    scenes, chosen, found = [draw_seed(canvases, seed) for seed in range(seeds)], {}, []
    for name in CRITERIA:
        chosen[name] = search(name, *scenes[0][:2], epochs)  # of the first seed
        models = [train(name, scenes[seed][0], *chosen[name], epochs, seed) for seed in range(seeds)]
        found.append([average_precision(model, scenes[seed][2]) for seed, model in enumerate(models)])
        print(f"{name}: learning rate {chosen[name][0]:g}, weight {chosen[name][1]:.3g}")
    precision = np.array(found)  # (losses, seeds, 2): mAP, and AP at an IoU of .5
    draw(precision[..., 0], out / "precision.png")
    share = 597 / 900  # digits of the test by those of training
    differences = resplit_differences(torch.from_numpy(precision[..., 0]), share)
    corrected = holm([each.p_value for each in differences])
    print(f"\n{seeds} seeds, {canvases} canvases for training and as many for the test")
    print("loss              mAP   AP50   mAP against focal, 95 % interval  p (Holm)")
    for place, name in enumerate(CRITERIA):
        line = "{:15}{:6.3f}{:7.3f}".format(name, *precision[place].mean(0))
        if place:
            each = differences[place - 1]
            line += f"{each.mean:+10.3f}   {each.low:+.3f} to {each.high:+.3f}{corrected[place - 1]:15.3f}"
        print(line)


if __name__ == "__main__":
    main()
