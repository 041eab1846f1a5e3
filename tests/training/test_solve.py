"""Solved linear models against scikit-learn, against their own gradients, and against themselves under other units."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import Tensor

import lopsided
from lopsided.data.dataset import Dataset
from lopsided.data.inputs import Table, Texts
from lopsided.models.encoder import Encoder
from lopsided.models.ngrams import NGrams
from lopsided.models.recipe import SOLVED
from lopsided.models.tables import LinearTable, MlpTable
from lopsided.training.loop import Listener, Trained, train
from lopsided.training.newton import Problem, minimise
from lopsided.training.rows import Rows
from lopsided.training.solve import slope_of, solve_with_folds
from lopsided.training.validate import Validation
from tests.points import targets_of

LOSSES = (
    "bce",
    "focal",
    "asl",
    "asl(detach_focus=False)",
    "apl",
    "hill",
    "ral",
    "zlpr",
    "lsep",
    "softmax",
    "bp_mll",
    "two_way",
    "squared_hinge",
    "ncrl",
    "db",
    "ldam",
    "powerset",
)
ONE = replace(SOLVED, l2=0.5)


def marked(methods: tuple[str, ...]) -> list[Any]:
    """The methods as parameters; but for three, they are marked slow."""
    return [pytest.param(each, marks=[pytest.mark.slow] * (each not in ("bce", "asl", "zlpr"))) for each in methods]


def drawn(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features, and labels that these tell with some noise: frequent, rare, and one that depends on nothing."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 6, generator=generator)
    noisy = x @ torch.randn(6, 4, generator=torch.Generator().manual_seed(9)) + torch.randn(
        rows, 4, generator=generator
    )
    noisy[:, 3] = torch.randn(rows, generator=generator)
    return x, noisy > torch.tensor([0.0, 1.0, 4.0, 1.0])


def tabled(rows: int, seed: int = 0) -> Rows:
    x, truth = drawn(rows, seed)
    table = Table.of_numbers(x)
    return Rows(
        LinearTable.fit(Table.of_numbers(drawn(200)[0])).encode(table), Dataset(table, targets_of(truth), "abcd")
    )


def solved(method: str = "bce", seed: int = 0, rows: Rows | None = None, **settings: Any) -> Trained:
    encoder: Encoder = LinearTable.fit(Table.of_numbers(drawn(200)[0]))
    recipe = settings.pop("recipe", SOLVED)
    return train(encoder, method, rows or tabled(200), recipe, seed, **settings)


def weights(trained: Trained) -> dict[str, Tensor]:
    return {name: each for name, each in trained.model.weights().items() if each.is_floating_point()}


@pytest.mark.parametrize("loss", ["logistic", "squared hinge"])
def test_the_minimum_is_that_of_scikit_learn(loss: str) -> None:
    x, truth = (each.double() for each in drawn(150))
    y = 2 * truth - 1
    penalties = (3.0, 0.1)

    def slope(scores: Tensor, labels: Tensor) -> Tensor:
        sign = y[:, labels]
        return -sign * (torch.sigmoid(-sign * scores) if loss == "logistic" else 2 * (1 - sign * scores).relu())

    problem = Problem(lambda pulls: x @ (x.T @ pulls), slope, apart=True)
    pulls = torch.zeros(150, 4, dtype=torch.float64)
    for l2 in penalties:
        pulls = minimise(problem, pulls, l2, 1e-7)
        for label in range(4):
            kind: Any = LogisticRegression if loss == "logistic" else LinearSVC
            settings = {"solver": "newton-cholesky"} if loss == "logistic" else {"dual": False}
            known = kind(C=1 / l2, tol=1e-10, max_iter=10_000, fit_intercept=False, **settings)
            known.fit(x.numpy(), truth[:, label].numpy())
            np.testing.assert_allclose((x.T @ pulls)[:, label], known.coef_[0], atol=1e-4)


@pytest.mark.parametrize("method", marked(LOSSES))
def test_no_loss_pulls_at_its_solution(method: str) -> None:
    """What is left of the gradient of loss and penalty by the weights, which autograd computes, is next to nothing."""
    rows = tabled(200)
    trained = solved(method, recipe=ONE)
    network, l2 = trained.model.network, 0.5
    linear: Any = getattr(network.head, "linear", network.head)
    everything = torch.arange(200)

    def gradient() -> Tensor:
        linear.weight.grad = None
        (network(rows.encoded.batch(everything), rows.data.targets) * 200).backward()
        result: Tensor = linear.weight.grad + l2 * linear.weight.detach()
        return result

    left = gradient().norm()
    with torch.no_grad():
        linear.weight.zero_()
    assert left < 0.01 * gradient().norm()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["softmax", "atl", "two_way", "zlpr", "lsep", "ncrl", "decoupled"])
def test_losses_that_join_labels_are_solved_at_weak_penalties(method: str) -> None:
    """Sparse rows with more features than there are rows, from no weights on: the minimum is that of L-BFGS."""
    generator, l2 = torch.Generator().manual_seed(0), 0.002
    x = torch.randn(300, 400, generator=generator) * (torch.rand(300, 400, generator=generator) < 0.05)
    x = torch.nn.functional.normalize(x)
    told = x @ torch.randn(400, 20, generator=generator) - torch.linspace(0, 1.2, 20)
    told += torch.randn(300, 20, generator=generator) / 2
    y = ((told > 0.7) | (told == told.amax(1, keepdim=True))).double()
    loss = lopsided.loss(method, reduction="sum")

    def objective(weights: Tensor) -> Tensor:
        value: Tensor = loss(x.double() @ weights, y) + l2 / 2 * weights.square().sum()
        return value

    problem = Problem(lambda pulls: x @ (x.T @ pulls), slope_of(loss, torch.zeros(20), y.float()), apart=False)
    found = objective((x.T @ minimise(problem, torch.zeros(300, 20), l2, 0.003)).double())
    known = torch.zeros(400, 20, dtype=torch.float64, requires_grad=True)
    steps = torch.optim.LBFGS([known], max_iter=600, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        steps.zero_grad()
        value = objective(known)
        value.backward()
        return value

    steps.step(closure)
    assert found < 1.005 * objective(known)


def test_texts_are_solved_as_tables_are() -> None:
    """Sparse products and dense ones of the same numbers give the same scores."""
    words = ["ant", "bee", "cat", "dog", "eel"]
    chosen = torch.rand(60, 5, generator=torch.Generator().manual_seed(1)) < 0.5
    texts = Texts(tuple(" ".join(np.array(words)[row]) or "fly" for row in chosen.numpy()))
    data = Dataset(texts, targets_of(chosen[:, :3] & chosen[:, 1:4]), "abc")
    encoder = NGrams.fit(texts, characters=False)
    rows = Rows(encoder.encode(texts), data)
    sparse = train(encoder, "asl", rows, ONE, 0).model.score(rows.encoded).values

    features = rows.encoded.features  # type: ignore[attr-defined]
    matrix = torch.zeros(60, features.num_features)
    matrix[torch.repeat_interleave(features.indptr.diff()), features.indices] = features.values
    table = LinearTable.fit(Table.of_numbers(matrix))
    as_is = replace(table.columns.scale, **{name: torch.zeros(matrix.shape[1]).double() for name in ("center", "mean")})
    as_is = replace(as_is, **{name: torch.ones(matrix.shape[1]).double() for name in ("spread", "std")})
    table = LinearTable(replace(table.columns, scale=as_is))
    dense_rows = Rows(table.encode(Table.of_numbers(matrix)), replace(data, inputs=Table.of_numbers(matrix)))
    dense = train(table, "asl", dense_rows, ONE, 0).model.score(dense_rows.encoded).values
    torch.testing.assert_close(sparse, dense, atol=1e-3, rtol=1e-3)


def test_the_seed_changes_nothing() -> None:
    one, other = weights(solved(seed=1, recipe=ONE)), weights(solved(seed=2, recipe=ONE))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_half_the_loss_has_the_same_solutions() -> None:
    validation = Validation(tabled(100, seed=1))
    whole = solved("bce", validation=validation)
    half = solved("asl(gamma_neg=0, clip=0, alpha=0.5)", validation=validation)
    assert [epoch.l2 for epoch in half.history] == [epoch.l2 / 2 for epoch in whole.history]
    assert half.best_epoch == whole.best_epoch
    for name, expected in weights(whole).items():
        torch.testing.assert_close(weights(half)[name], expected, atol=1e-6, rtol=1e-5)


def test_the_path_ends_when_validation_rows_no_longer_gain() -> None:
    trained = solved("bce", validation=Validation(tabled(100, seed=1)))
    values = [epoch.valid for epoch in trained.history]
    assert 2 < len(values) < SOLVED.epochs
    assert trained.best_epoch == max(range(len(values)), key=lambda place: (values[place], place)) + 1
    patience = SOLVED.patience
    assert patience is not None
    assert max(values) < 1.004 * max(values[:-patience]), "the last ones gained next to nothing"
    assert max(values[:-1]) >= 1.004 * max(values[: -patience - 1]), "one fewer did gain"
    assert all(one.l2 == 2 * other.l2 for one, other in zip(trained.history, trained.history[1:], strict=False))


def test_a_stopped_path_goes_on(tmp_path: Path) -> None:
    recipe = replace(SOLVED, epochs=4)

    def stop(history: list[Any]) -> None:
        if len(history) == 2:
            raise KeyboardInterrupt

    file = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        solved(recipe=recipe, state_file=file, listener=Listener(on_epoch=stop))
    continued, whole = solved(recipe=recipe, state_file=file), solved(recipe=recipe)
    assert [epoch.l2 for epoch in continued.history] == [epoch.l2 for epoch in whole.history]
    assert all(torch.equal(weights(continued)[name], each) for name, each in weights(whole).items())


def test_a_label_that_nothing_pulls_at_stays_where_it_is_beside_others() -> None:
    """As under a hinge: its gradient, and what a step along that would change, are exactly 0."""
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [3.0]])

    def slope(scores: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([2 * (scores[:, :1] - y), torch.zeros(2, 1)], 1)

    problem = Problem(lambda pulls: x @ (x.T @ pulls), slope, apart=False)
    weights = x.T @ minimise(problem, torch.zeros(2, 2), l2=2.0, tolerance=1e-6)
    torch.testing.assert_close(weights, torch.tensor([[7 / 6, 0.0]]))


def test_layers_are_not_solved() -> None:
    table = Table.of_numbers(drawn(200)[0])
    with pytest.raises(ValueError, match="mlp has layers below its head"):
        train(MlpTable.fit(table), "bce", tabled(200), SOLVED, 0)


@pytest.mark.parametrize("method", marked(("bce", "asl", "zlpr", "two_way", "powerset")))
def test_scores_out_of_folds_are_those_of_models_without_them(method: str) -> None:
    rows = tabled(200)
    encoder: Encoder = LinearTable.fit(Table.of_numbers(drawn(200)[0]))
    folds = [torch.arange(0, 200, 2), torch.arange(1, 200, 2)]
    model, scores = solve_with_folds(encoder, method, rows, 0.5, 0, folds)
    once = replace(ONE, epochs=1)
    whole = solved(method, rows=rows, recipe=once).model
    torch.testing.assert_close(model.score(rows.encoded).values, whole.score(rows.encoded).values)
    for held, rest in (folds, folds[::-1]):
        part = Rows(encoder.encode(rows.data.inputs.take(rest)), rows.data.take(rest))
        alone = solved(method, rows=part, recipe=once).model
        expected = alone.score(encoder.encode(rows.data.inputs.take(held))).values
        assert torch.corrcoef(torch.stack([expected.flatten(), scores.values[held].flatten()]))[0, 1] > 0.99


def test_logits_of_a_model_are_not_taken_for_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where features tell nothing, all rows have the log odds of the shares: here between .02 and .9."""
    monkeypatch.setattr("lopsided.targets.checks._warned_of_probabilities", False)
    shares = torch.linspace(0.505, 0.71, 40)
    truth = torch.arange(200)[:, None] < (200 * shares).round()
    rows = Rows(
        LinearTable.fit(table := Table.of_numbers(torch.zeros(200, 2))).encode(table),
        Dataset(table, targets_of(truth), tuple(map(str, range(40)))),
    )
    encoder, in_steps = LinearTable.fit(table), replace(SOLVED, optimizer="sgd", batch_size=200, epochs=1)
    solve_with_folds(encoder, "bce", rows, 0.5, 0, torch.arange(200).split(100))  # a warning would raise
    train(encoder, "bce", rows, in_steps, seed=0)
    with pytest.warns(UserWarning, match="as probabilities do"):  # nor is the one warning used up
        lopsided.loss("bce")(torch.logit(shares).expand(200, 40).contiguous(), truth.float())


def test_of_penalties_that_rank_alike_the_weakest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scores are the most decided, where the strongest would leave rare labels far below every threshold."""
    values = iter([0.8, 0.95, 0.949999, 0.9498, 0.94])

    def measure(*_: object) -> dict[str, float]:
        return {"valid": next(values), "valid_map": 0.0, "valid_p_at_1": 0.0, "dead_labels": 0.0}

    monkeypatch.setattr(Validation, "measure", measure)
    trained = solved(recipe=replace(SOLVED, epochs=5), validation=Validation(tabled(200)))
    assert trained.best_epoch == 3
