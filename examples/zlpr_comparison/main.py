"""Softens the labels of ZLPR and of bce, and trains both with R-Drop: python main.py TRAIN.arff TEST.arff

Any tables that lopsided reads will do, with the same columns. Beside its own loop there is `lopsided.compare_losses`.
"""

import sys
from pathlib import Path

import torch
from sklearn.metrics import average_precision_score
from torch import nn

import lopsided
from lopsided.data.readers import read
from lopsided.models.heads import dense_targets
from lopsided.nn.divergence import r_drop

SMOOTHING, ALPHA = 0.1, 1.0
WAYS = {  # name -> loss, label smoothing, weight of the divergence
    f"{loss}{words}": (loss, smoothing, alpha)
    for loss in ("bce", "zlpr")
    for words, smoothing, alpha in (
        ("", 0.0, 0.0),
        (", smooth", SMOOTHING, 0.0),
        (", R-Drop", 0.0, ALPHA),
        (", both", SMOOTHING, ALPHA),
    )
}


def rows_of(path: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the numbers (rows, D) and the labels (rows, L) of a table."""
    data = read(Path(path))
    return data.inputs.numbers, dense_targets(data.targets, data.num_labels)


def network(inputs: int, labels: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, labels))


def main(train: str, test: str, out: Path = Path("runs/zlpr_comparison"), epochs: int = 20, seeds: int = 3) -> None:
    (inputs, targets), (test_inputs, test_targets) = rows_of(train), rows_of(test)
    mean, deviation = inputs.mean(0), inputs.std(0).clamp_min(1e-6)
    inputs, test_inputs = (inputs - mean) / deviation, (test_inputs - mean) / deviation
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    train_rows, valid_rows = order.split([len(order) * 3 // 4, len(order) - len(order) * 3 // 4])

    def score(way: tuple[str, float, float], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the scores of test and validation rows by the best model over rates and epochs."""
        loss, smoothing, alpha = way
        criterion = lopsided.loss(loss, reduction="batchmean", label_smoothing=smoothing)
        # with soft labels the probabilities of ZLPR are sigmoid(2 s)
        scale = 2.0 if loss == "zlpr" and smoothing else 1.0
        best, scores = -1.0, None
        for rate in (0.0003, 0.001, 0.003):
            torch.manual_seed(seed)
            model = network(inputs.shape[1], targets.shape[1])
            optimizer = torch.optim.AdamW(model.parameters(), rate)
            for _ in range(epochs):
                model.train()
                for batch in train_rows[torch.randperm(len(train_rows))].split(32):
                    optimizer.zero_grad()
                    if alpha:
                        r_drop(model, inputs[batch], targets[batch], criterion, alpha, scale).backward()
                    else:
                        criterion(model(inputs[batch]), targets[batch]).backward()
                    optimizer.step()
                model.eval()
                with torch.no_grad():
                    valid = model(inputs[valid_rows])
                    some = targets[valid_rows].any(0)
                    quality = average_precision_score(targets[valid_rows][:, some], valid[:, some])
                    if quality > best:
                        best, scores = quality, (model(test_inputs), valid)
        return scores

    outcome = lopsided.compare_losses(
        score, WAYS, test_targets, valid_truth=targets[valid_rows], train_truth=targets[train_rows], seeds=seeds
    )
    print(outcome)
    print("report:", outcome.write(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
