"""One class per row, some classes rare: softmax ASL against cross entropy: python examples/single_label/main.py"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import recall_score
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

import lopsided
from lopsided import single_label_loss

Criterion = Callable[[Tensor, Tensor], Tensor]

COUNTS = (80, 54, 37, 25, 17, 11, 8, 5, 4, 2)  # training rows of each class, from frequent to rare
RATES = (0.001, 0.003, 0.01, 0.03)
CRITERIA: dict[str, Criterion] = {
    "cross entropy": cross_entropy,
    "label smoothing .1": partial(cross_entropy, label_smoothing=0.1),
    "logit adjustment": lambda logits, classes: cross_entropy(logits + torch.tensor(COUNTS).log(), classes),
    "focal, softmax": partial(single_label_loss, loss="focal"),
    "asl, softmax": partial(single_label_loss, loss="asl"),
    "apl, softmax": partial(single_label_loss, loss="apl"),
    "bce, sigmoid": partial(single_label_loss, loss="bce", activation="sigmoid"),
    "asl, sigmoid": partial(single_label_loss, loss="asl", activation="sigmoid"),
    "zlpr": partial(single_label_loss, loss="zlpr", activation="sigmoid"),  # with one positive a row
}

images, digits = load_digits(return_X_y=True)
pool, rest = train_test_split(np.arange(len(digits)), test_size=0.5, random_state=0, stratify=digits)
valid_rows, test_rows = train_test_split(rest, test_size=0.7, random_state=0, stratify=digits[rest])
inputs = torch.tensor(images / 16, dtype=torch.float32)


def draw(seed: int) -> tuple[Tensor, Tensor]:
    """Returns the class of every row, 0 the most frequent, and the training rows: other ones for each seed."""
    random = np.random.default_rng(seed)
    ranks = (digits + 3 * seed) % 10  # other digits are rare
    rows = [random.permutation(pool[ranks[pool] == rank])[:count] for rank, count in enumerate(COUNTS)]
    return torch.tensor(ranks), torch.tensor(np.concatenate(rows))


def best_scores(criterion: Criterion, seed: int, epochs: int) -> Tensor:
    """Returns the scores of all rows, (rows, 10), by the best model over four rates and some moments of training."""
    classes, rows = draw(seed)
    best, scores = -1.0, torch.empty(0)
    for rate in RATES:
        torch.manual_seed(seed)  # the same weights and batches for all losses
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(model.parameters(), rate)
        for epoch in range(1, epochs + 1):
            for batch in rows[torch.randperm(len(rows))].split(32):
                optimizer.zero_grad()
                criterion(model(inputs[batch]), classes[batch]).backward()
                optimizer.step()
            if epoch % 5 == 0:
                with torch.no_grad():
                    outputs = model(inputs)
                quality = macro_recall(outputs, classes, valid_rows)
                if quality > best:  # test rows have no say
                    best, scores = quality, outputs
    return scores


def macro_recall(scores: Tensor, classes: Tensor, rows: np.ndarray) -> float:
    return float(recall_score(classes[rows], scores[rows].argmax(1), average="macro"))


def draw_recalls(recalls: dict[str, np.ndarray], file: Path) -> None:
    """Draws the recall of each class, from frequent to rare, mean over seeds."""
    figure, panel = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, values in recalls.items():
        panel.plot(values.mean(0), label=name, marker=".", linestyle="--" if "sigmoid" in name else "-")
    panel.set(xlabel="training rows of the class", ylabel="recall, test rows", xticks=range(10), xticklabels=COUNTS)
    panel.legend(fontsize=8)
    figure.savefig(file, dpi=80)
    plt.close(figure)


def main(out: Path = Path("runs/single_label"), epochs: int = 60, seeds: int = 5) -> None:
    recalls: dict[str, list[np.ndarray]] = {name: [] for name in CRITERIA}
    names = {id(criterion): name for name, criterion in CRITERIA.items()}

    def train(criterion: Criterion, seed: int) -> Tensor:
        scores, classes = best_scores(criterion, seed, epochs), draw(seed)[0]
        predicted = scores[test_rows].argmax(1)
        recalls[names[id(criterion)]].append(recall_score(classes[test_rows], predicted, average=None))
        return scores[test_rows][:, (torch.arange(10) + 3 * seed) % 10]  # the columns are digits again

    truth = one_hot(torch.tensor(digits[test_rows]), 10)
    outcome = lopsided.compare_losses(train, CRITERIA, truth, seeds=seeds, metric="p@1", reference="cross entropy")
    results, by_class = outcome.results, {name: np.array(values) for name, values in recalls.items()}
    out.mkdir(parents=True, exist_ok=True)
    draw_recalls(by_class, out / "recall.png")

    print(f"accuracy on {len(test_rows)} test rows, as many of each class; mean recall of the classes; {seeds} seeds\n")
    print("loss                 accuracy  difference, 95 % interval   p (Holm)  macro recall  frequent 3  rare 3")
    for name, values in by_class.items():
        accuracy, against = results.losses[name].metrics["p@1"].mean, " " * 38
        if name in results.comparisons:
            found = results.comparisons[name]
            against = f"{found.mean:+11.3f}  {found.low:+.3f} to {found.high:+.3f} {found.p_holm:10.3f}"
        groups = values.mean(), values[:, :3].mean(), values[:, -3:].mean()
        print(f"{name:20} {accuracy:8.3f} {against:>39}" + "{:14.3f}{:12.3f}{:8.3f}".format(*groups))


if __name__ == "__main__":
    main()
