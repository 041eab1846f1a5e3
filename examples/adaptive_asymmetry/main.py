"""Lets gamma of ASL follow the gap p+ - p-, draws it, and asks whether it pays: examples/adaptive_asymmetry/main.py"""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

import lopsided
from lopsided import AdaptiveAsymmetricLoss
from lopsided.data.dataset import Dataset
from lopsided.data.digits_grid import digits_grid

BATCH, STEP = 50, 0.2  # rows; how much gamma moves per batch and unit of the gap's error
RATES = (0.005, 0.01, 0.02)
TARGETS = (-0.2, 0.0, 0.1, 0.2)


def cells(data: Dataset) -> tuple[Tensor, Tensor]:
    """Returns the nine cells of every image, (rows, 9, 144), and its labels, (rows, 90)."""
    pixels = data.inputs.pixels.reshape(-1, 3, 12, 3, 12).transpose(2, 3).reshape(-1, 9, 144)
    truth = torch.zeros(len(data), data.num_labels, dtype=torch.bool)
    truth[torch.repeat_interleave(data.targets.crow.diff()), data.targets.col] = True
    return pixels / 255, truth


def training(criterion: nn.Module, inputs: Tensor, targets: Tensor, rate: float, epochs: int, seed: int) -> Iterator:
    """Trains a network that all cells share, and yields it after every batch. Nothing here knows of gamma."""
    torch.manual_seed(seed)  # the same weights and batches for all losses
    last = nn.Linear(64, 10)
    start = lopsided.LinearHead(64, 10, criterion.formula, prior=float(targets.float().mean()))
    last.bias.data.copy_(start.bias.data)  # where each loss would settle by itself: else bce spends most epochs on it
    model = nn.Sequential(nn.Linear(144, 64), nn.ReLU(), last, nn.Flatten())
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            criterion(model(inputs[batch]), targets[batch]).backward()
            optimizer.step()
            yield model


def watch(criterion: AdaptiveAsymmetricLoss, inputs: Tensor, targets: Tensor, epochs: int) -> Tensor:
    """Returns gamma, p+ and p- after every batch, (batches, 3)."""
    path = []
    for _ in training(criterion, inputs, targets, RATES[0], epochs, seed=0):
        path.append((criterion.gamma_neg, criterion.tracker.positive, criterion.tracker.negative))
    return torch.tensor(path)


def draw(paths: dict[str, Tensor], file: Path) -> None:
    """Draws gamma, and the gap with p+ and p-, over the batches, for each way to steer."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for name, path in paths.items():
        line = left.plot(path[:, 0], label=name, linestyle="--" if "," in name else "-", linewidth=1.2)[0]
        middle.plot(path[:, 1] - path[:, 2], color=line.get_color(), linestyle=line.get_linestyle(), linewidth=1.2)
    for target in TARGETS:
        middle.axhline(target, color="grey", linewidth=0.6, linestyle=":")
    for column, name in ((1, "p+"), (2, "p-")):
        right.plot(paths["gamma fixed at 4"][:, column], label=f"{name}, gamma fixed at 4", linewidth=1, alpha=0.5)
        right.plot(paths["target 0.1"][:, column], label=f"{name}, target 0.1", linewidth=1.2)
    for panel, title in ((left, "gamma_neg"), (middle, "p+ - p-, with its targets dotted"), (right, "p+ and p-")):
        panel.set(title=title, xlabel="batches")
    left.set_ylim(top=20)  # room for the legend
    left.legend(fontsize=7, loc="upper right")
    right.legend(fontsize=7)
    figure.savefig(file, dpi=75)
    plt.close(figure)


def steer(inputs: Tensor, targets: Tensor, epochs: int, out: Path) -> None:
    """Draws and prints where gamma, p+ and p- go for several targets, from two starts, and by the printed sign."""
    ways = {f"target {target:g}": AdaptiveAsymmetricLoss(target, STEP) for target in TARGETS}
    ways["target 0.1, from 12"] = AdaptiveAsymmetricLoss(0.1, STEP, gamma_neg=12)
    ways["target 0.1, the printed sign"] = AdaptiveAsymmetricLoss(0.1, STEP, rule="printed")
    ways["gamma fixed at 4"] = AdaptiveAsymmetricLoss(step=0)
    paths = {name: watch(criterion, inputs, targets, epochs) for name, criterion in ways.items()}
    out.mkdir(parents=True, exist_ok=True)
    draw(paths, out / "gamma.png")
    print("mean of the last epoch        gamma_neg     p+     p-    gap")
    for name, path in paths.items():
        gamma, positive, negative = path[-(len(inputs) // BATCH) :].mean(0).tolist()
        print(f"{name:30}{gamma:9.2f}{positive:7.3f}{negative:7.3f}{positive - negative:7.3f}")


def main(out: Path = Path("runs/adaptive_asymmetry"), images: int = 1500, epochs: int = 36, seeds: int = 5) -> None:
    parts = digits_grid(images, images // 2, images)
    (inputs, targets), (valid, valid_truth), (test, test_truth) = map(cells, (parts.train, parts.valid, parts.test))
    steer(inputs, targets, epochs, out)

    seen = valid_truth.any(0)  # labels that validation rows can judge
    chosen: dict[nn.Module, list[tuple[float, int]]] = {}

    def train(criterion: nn.Module, seed: int) -> tuple[Tensor, Tensor]:
        """Returns the scores of test and validation rows by the best model over three rates and every fourth epoch."""
        best, scores, where = -1.0, (test, valid), (0.0, 0)
        for rate in RATES:
            fresh = deepcopy(criterion)  # an adaptive one begins anew
            for batch, model in enumerate(training(fresh, inputs, targets, rate, epochs, seed), 1):
                if batch % (4 * -(-images // BATCH)) == 0:
                    with torch.no_grad():
                        outputs = model(test), model(valid)
                    quality = average_precision_score(valid_truth[:, seen], outputs[1][:, seen])
                    if quality > best:  # test rows have no say
                        best, scores, where = quality, outputs, (rate, batch * BATCH // images)
        chosen.setdefault(criterion, []).append(where)
        return scores

    criteria: dict[str, nn.Module] = {name: lopsided.loss(name) for name in ("bce", "focal", "asl", "apl", "zlpr")}
    criteria["adaptive"] = AdaptiveAsymmetricLoss(0.1, STEP)
    outcome = lopsided.compare_losses(
        train, criteria, test_truth, valid_truth=valid_truth, train_truth=targets, seeds=seeds, name="digits-grid"
    )
    print("\nrate and epoch that validation rows chose, by seed")
    for name, criterion in criteria.items():
        print(f"{name:10}" + "".join(f"{rate:9g}, {epoch:2}" for rate, epoch in chosen[criterion]))
    print(f"\n{outcome}\nreport: {outcome.write(out / 'verdict')}")


if __name__ == "__main__":
    main()
