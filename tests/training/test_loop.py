"""The training loop, on a linear model where every step can be repeated by hand."""

from dataclasses import dataclass
from itertools import chain

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

import lopsided
from lopsided.models.task import Budget, Task
from lopsided.training.loop import Epoch, predict_scores, train
from lopsided.training.objective import TrainingObjective, make_objective, parse_method

BUDGET = Budget(epochs=3, batch_size=4, learning_rate=0.5)


@dataclass
class Points:
    x: Tensor
    targets: Tensor
    seen: list[list[int]]

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Tensor) -> tuple[Tensor, ...]:
        self.seen.append(rows.tolist())
        return (self.x[rows],)


def points(rows: int, seed: int) -> Points:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=generator)
    return Points(x, x @ torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, -0.5]]) > 0.3, [])


def task() -> Task:
    def make_optimizer(model: nn.Module, rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), rate)

    return Task(
        points(10, 0), points(30, 1), points(5, 2), lambda outputs: nn.Linear(3, outputs), make_optimizer, BUDGET
    )


def objective(spec: str) -> TrainingObjective:
    return make_objective(parse_method(spec), points(10, 0).targets)


def test_the_loop_repeated_by_hand() -> None:
    given = task()
    reported: list[Epoch] = []
    averaged, history = train(given, objective("asl"), BUDGET, seed=5, on_epoch=reported.append)
    assert reported == history
    assert [epoch.epoch for epoch in history] == [1, 2, 3]

    batches = given.train
    assert isinstance(batches, Points)
    torch.manual_seed(5)
    model = nn.Linear(3, 2)
    mean = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    total = 0.0
    for step, rows in enumerate(batches.seen):
        loss = lopsided.AsymmetricLoss(reduction="batchmean")(model(batches.x[rows]), batches.targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for average, parameter in zip(mean, model.parameters(), strict=True):
            average.copy_(parameter if step == 0 else 0.98 * average + 0.02 * parameter)
        total = (0.0 if step % 3 == 0 else total) + float(loss.detach()) * len(rows)
        if step % 3 == 2:
            assert history[step // 3].train_loss == pytest.approx(total / 10, rel=1e-5)
    for average, parameter in zip(mean, averaged.parameters(), strict=True):
        torch.testing.assert_close(parameter, average)
    valid = given.valid
    ap = average_precision_score(valid.targets.numpy(), predict_scores(averaged, objective("asl"), valid).numpy())
    assert history[-1].valid_map == pytest.approx(ap)


def test_weights_and_order_come_from_the_seed_alone() -> None:
    seen = {}
    weights = {}
    for loss in ("bce", "zlpr"):
        for seed in (0, 1):
            given = task()
            assert isinstance(given.train, Points)
            torch.rand(7)  # whatever was drawn before
            averaged, _ = train(given, objective(loss), Budget(2, 4, 1e-9), seed)
            seen[loss, seed] = given.train.seen
            weights[loss, seed] = next(averaged.parameters()).detach().clone()
    for seed in (0, 1):
        assert seen["bce", seed] == seen["zlpr", seed]
        torch.testing.assert_close(weights["bce", seed], weights["zlpr", seed])
    assert seen["bce", 0] != seen["bce", 1]
    assert not torch.allclose(weights["bce", 0], weights["bce", 1])
    first, second = (list(chain(*seen["bce", 0][start : start + 3])) for start in (0, 3))
    assert sorted(first) == sorted(second) == list(range(10)), "every row once an epoch"
    assert first != second != list(range(10)), "in a new order each time"


def test_label_powerset_trains_sets_and_scores_labels() -> None:
    given = task()
    aim = objective("powerset")
    sets = given.train.targets.unique(dim=0)
    assert aim.outputs == len(sets) == 3
    assert objective("powerset(max_sets=2)").outputs == 2
    averaged, history = train(given, aim, Budget(60, 10, 1.0), seed=0)
    scores = predict_scores(averaged, aim, given.valid)
    assert scores.shape == given.valid.targets.shape
    assert history[-1].train_loss < 0.6 < history[0].train_loss
    assert ((scores > 0) == given.valid.targets).float().mean() > 0.8


@pytest.mark.parametrize("spec", ["powerset(max_sets=0)", "powerset(5)", "powerset(max_sets=-1)", "powersets"])
def test_bad_powersets_are_named(spec: str) -> None:
    with pytest.raises(ValueError, match=r"write powerset or powerset\(max_sets=N\) with N > 0"):
        parse_method(spec)
