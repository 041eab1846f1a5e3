"""Compares losses by a training loop of one's own, in plain torch: python examples/own_loop/main.py"""

import torch
from sklearn.datasets import make_multilabel_classification
from sklearn.metrics import average_precision_score
from torch import nn

import lopsided

features, labels = make_multilabel_classification(2000, 40, n_classes=20, n_labels=2, length=30, random_state=0)
inputs, targets = torch.tensor(features, dtype=torch.float32), torch.tensor(labels)
train_rows, valid_rows, test_rows = torch.arange(2000).split([800, 400, 800])


def train(criterion, seed):
    """Returns the scores of test and validation rows by the best model over three rates and all epochs."""
    best, scores = -1.0, None
    for rate in (0.003, 0.01, 0.03):  # for each loss its own: the size of a step grows with that of the loss
        torch.manual_seed(seed)  # the same weights and batches for all losses
        model = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 20))
        optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
        for _ in range(10):
            for batch in train_rows[torch.randperm(len(train_rows))].split(50):
                optimizer.zero_grad()
                criterion(model(inputs[batch]), targets[batch]).backward()
                optimizer.step()
            with torch.no_grad():
                outputs = model(inputs)
            quality = average_precision_score(targets[valid_rows], outputs[valid_rows])
            if quality > best:  # test rows have no say
                best, scores = quality, (outputs[test_rows], outputs[valid_rows])
    return scores


if __name__ == "__main__":
    outcome = lopsided.compare_losses(
        train,
        ["bce", "asl", "zlpr"],
        targets[test_rows],
        valid_truth=targets[valid_rows],
        train_truth=targets[train_rows],
        reduction="batchmean",
        name="made rows",
    )
    print(outcome)
    print("report:", outcome.write("runs/own_loop"))
