"""The tree over labels: its scores are products of what its nodes say, and its nodes are minima of their losses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lopsided import losses
from lopsided.__main__ import main
from lopsided.data.dataset import Dataset
from lopsided.data.inputs import Numbered, SparseFeatures
from lopsided.data.storage import UserError
from lopsided.losses.closed_form import implied_log_odds, posterior, settled_logit
from lopsided.models.bag import LinearBag, Tree
from lopsided.models.model import Model
from lopsided.models.tree import BEAM, TreeHead, halves, levels_of
from lopsided.targets import SparseTargets
from lopsided.training import solve_tree
from lopsided.training.loop import train
from lopsided.training.rows import Rows
from lopsided.training.solve_tree import TreeSolver
from lopsided.training.validate import Validation

LABELS, FEATURES, ROWS = 300, 40, 400  # two halvings: four nodes of 75 labels below the root


def data() -> tuple[Dataset, Tensor]:
    """Rows of which every label has its feature, as has every seventh label; and the (rows, L) truth."""
    random = torch.Generator().manual_seed(0)
    truth = torch.rand(ROWS, LABELS, generator=random) < 0.01
    truth[torch.arange(ROWS), torch.randint(LABELS, (ROWS,), generator=random)] = True
    x = torch.zeros(ROWS, FEATURES)
    row, label = truth.nonzero(as_tuple=True)
    x[row, label * FEATURES // LABELS] = 1.0
    x += torch.rand(ROWS, FEATURES, generator=random) * (torch.rand(ROWS, FEATURES, generator=random) < 0.05)
    x[:, 0] = 0.5
    indptr = nn.functional.pad((x != 0).sum(1).cumsum(0), (1, 0))
    at = x.nonzero(as_tuple=True)
    targets = SparseTargets(nn.functional.pad(truth.sum(1).cumsum(0), (1, 0)), label)
    return Dataset(SparseFeatures(indptr, at[1], x[at], FEATURES, declared=True), targets, Numbered(LABELS)), truth


def encoded(known: Dataset) -> tuple[Tree, Rows]:
    features: Any = known.inputs
    encoder = Tree.fit(features)
    return encoder, Rows(encoder.encode(features), known)


@cache
def solved(spec: str, l2: float = 0.1) -> tuple[Model, Rows, TreeSolver, float]:
    known, _ = data()
    encoder, rows = encoded(known)
    model = Model.new(encoder, spec, known)
    solver = TreeSolver(model, rows)
    return model, rows, solver, solver.solve(l2)


def dense(model: Model, rows: Rows) -> tuple[list[Tensor], Tensor]:
    """What each node says of all rows, (rows, outputs) float64 scores, from its weights as matrices; and the rows."""
    head, count = model.network.head, len(rows)
    assert isinstance(head, TreeHead)
    indices, offsets, weights = rows.encoded.batch(torch.arange(count))
    x = torch.zeros(count, head.num_features, dtype=torch.float64)
    x[torch.repeat_interleave(torch.cat([offsets[1:], torch.tensor([len(indices)])]) - offsets), indices] = (
        weights.double()
    )
    scores = []
    for level in levels_of(LABELS):
        for node in range(len(level.first) - 1):
            first, last = level.first[node : node + 2].tolist()
            matrix = torch.zeros(head.num_features, last - first, dtype=torch.float64)
            for place, key in enumerate(head.keys.tolist()):
                if key // head.num_features == level.node + node:
                    part = slice(head.starts[place], head.starts[place + 1])
                    matrix[key % head.num_features, head.outputs[part].long()] = head.weights[part, 0].double()
            scores.append(x @ matrix + head.bias[level.output + first : level.output + last].double())
    return scores, x


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["bce", "asl", "zlpr", "zlpr(threshold=100, scale=0.01)"])
def test_scores_stand_for_the_product_of_the_probabilities_on_the_way(spec: str) -> None:
    model, rows, _, _ = solved(spec)
    root, *nodes = dense(model, rows)[0]
    formula = losses.formula(spec)

    def probability(z: Tensor) -> Tensor:
        if spec.startswith("zlpr("):
            return torch.sigmoid(0.02 * (z - 100))
        return torch.sigmoid(2 * z) if spec == "zlpr" else posterior(formula, z)

    expected = torch.cat([probability(root[:, [node]]) * probability(of) for node, of in enumerate(nodes)], 1)
    head = model.network.head
    assert isinstance(head, TreeHead)
    score = settled_logit(formula, expected / (1 - expected))
    ours = model.score(rows.encoded).values[:, head.order]
    seen = expected > 1e-9  # beyond, asl has a margin, where probabilities are 0
    torch.testing.assert_close(ours[seen].double(), score[seen], atol=2e-3, rtol=1e-3)


def test_the_best_labels_are_those_of_all_and_the_scores_the_same() -> None:
    model, rows, _, _ = solved("bce")
    every, best = model.score(rows.encoded).values, model.score(rows.encoded, keep=7)
    assert best.columns is not None
    torch.testing.assert_close(best.values, every.topk(7).values)
    torch.testing.assert_close(every.gather(1, best.columns), best.values)


def test_labels_that_the_beam_does_not_reach_have_the_lowest_score_of_those_that_it_does() -> None:
    labels = 128 * 4 * BEAM
    head = TreeHead(3, labels, "bce")
    head.set({name: getattr(head, name) for name in TreeHead.STORED} | {"bias": torch.randn(len(head.bias))})
    bag = Tree.fit(SparseFeatures(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), 3, declared=True))
    scores = head.logits(bag.make_body()(torch.tensor([0]), torch.tensor([0]), torch.ones(1)))[0]
    reached = scores > scores.min()
    assert 64 * BEAM <= int(reached.sum()) + 1 <= 128 * BEAM
    best, columns = head.predict_topk(bag.make_body()(torch.tensor([0]), torch.tensor([0]), torch.ones(1)), 2000)
    assert len(columns[0].unique()) == 2000, "as many are found as are asked for"
    assert best.isfinite().all()


def test_each_node_is_the_minimum_of_its_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve_tree, "_SMALL", 0.0)
    monkeypatch.setattr(solve_tree, "_TOLERANCE", 1e-4)
    l2 = 0.3
    model, rows, _, total = solved("bce", l2)
    head, (said, x), (_, truth) = model.network.head, dense(model, rows), data()
    assert isinstance(head, TreeHead)
    starts = halves(LABELS, 2).tolist()
    ordered = truth[:, head.order]
    nodes = [torch.stack([ordered[:, a:b].any(1) for a, b in pairwise(starts)], 1)]
    nodes += [ordered[:, a:b] for a, b in pairwise(starts)]
    weights = head.weights[:, 0].double()
    for node, (z, has) in enumerate(zip(said, nodes, strict=True)):
        chosen = has.any(1) if node else torch.ones(ROWS, dtype=torch.bool)
        residual = torch.sigmoid(z[chosen]) - has[chosen].double()
        keys = [place for place, key in enumerate(head.keys.tolist()) if key // head.num_features == node]
        slope = x[chosen].T @ residual
        at_zero = x[chosen].T @ (has[chosen].double().mean(0) - has[chosen].double())
        for place in keys:
            part = slice(head.starts[place], head.starts[place + 1])
            slope[int(head.keys[place]) % head.num_features, head.outputs[part].long()] += l2 * weights[part]
        present = has[chosen].any(0)
        assert slope[:, present].norm() < 2e-3 * at_zero[:, present].norm(), node
    assert 0 < total < math.log(2) * float(truth.numel()), "less than without weights"


def test_labels_of_the_same_features_stand_together() -> None:
    model, _, _, _ = solved("bce")
    head = model.network.head
    assert isinstance(head, TreeHead)
    features = (head.order * FEATURES // LABELS).float()
    shuffled = features[torch.randperm(LABELS, generator=torch.Generator().manual_seed(0))]
    kinds = [sum(len(part.unique()) for part in of.tensor_split(4)) for of in (features, shuffled)]
    assert kinds[0] < 0.75 * kinds[1], "a node has the labels of few features"


def test_it_is_stored_and_what_is_no_tree_is_refused() -> None:
    model, rows, _, _ = solved("asl")
    header, tensors = model.stored()
    again = Model.from_stored(json.loads(json.dumps(header)), {name: t.clone() for name, t in tensors.items()})
    assert torch.equal(again.score(rows.encoded).values, model.score(rows.encoded).values)
    for name, change in {
        "order": lambda t: t.fill_(0),
        "keys": lambda t: t.flip(0),
        "starts": lambda t: t + 1,
        "outputs": lambda t: t.fill_(70),  # the root has 4
        "bias": lambda t: t[1:],
    }.items():
        broken = {key: t.clone() for key, t in tensors.items()}
        broken[f"network.head.{name}"] = change(broken[f"network.head.{name}"])  # type: ignore[no-untyped-call]
        with pytest.raises(ValueError, match=f"no tree of {LABELS} labels and {FEATURES} features"):
            Model.from_stored(header, broken)


def test_odds_are_those_that_settle() -> None:
    z = torch.linspace(-2.5, 3, 12, dtype=torch.float64)  # above the margin of apl
    for spec in ("bce", "focal", "apl", "zlpr(scale=2)"):
        odds = implied_log_odds(losses.formula(spec), z).exp()
        torch.testing.assert_close(settled_logit(losses.formula(spec), odds), z, atol=1e-9, rtol=1e-9)


def test_many_labels_are_taken_by_a_tree() -> None:
    features: Any = data()[0].inputs
    encoder = LinearBag.fit(features)
    assert encoder.for_labels(LABELS) is encoder
    assert isinstance(encoder.for_labels(10**6), Tree)


@pytest.mark.parametrize("loss", ["lsep", "powerset", "db", "em"])
def test_what_a_tree_cannot_do_is_one_line(loss: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.svm").write_text("\n".join(f"{i % 3},{i % 5} {i % 4}:1 {4 + i % 7}:0.5" for i in range(60)))
    assert main(["compare", "a.svm", "--model", "tree", "--losses", f"bce,{loss}", "--out", "run"]) == 2
    said = capsys.readouterr().err
    assert "a tree over labels takes zlpr, and losses that judge each label alone and whose scores stand for" in said
    assert f"probability, not {loss}" in said
    assert said.endswith("; choose --model bag\n")


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(
        Validation, "is_better", lambda self, value, best, *gain: best is None
    )  # so that trees differ in size
    monkeypatch.setattr(Validation, "is_equal", lambda *values: False)
    encoder, rows = encoded(data()[0])
    recipe, state = replace(encoder.recipe(ROWS, LABELS), epochs=3), folder / "state.safetensors"
    begun = partial(train, encoder, "bce", rows, recipe, seed=0, validation=Validation(rows, "p@1", None))
    begun(state_file=state, until=2)
    whole, resumed = begun(), begun(state_file=state)
    assert [epoch.l2 for epoch in resumed.history] == [0.1, 0.05, 0.025]
    assert resumed.best_epoch == whole.best_epoch == 1
    assert torch.equal(resumed.model.score(rows.encoded).values, whole.model.score(rows.encoded).values)


def test_unknown_labels_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known, _ = data()
    values = torch.ones(len(known.targets.col))
    values[0] = torch.nan
    unknown = Dataset(known.inputs, SparseTargets(known.targets.crow, known.targets.col, values), known.label_names)
    encoder, rows = encoded(unknown)
    with pytest.raises(UserError, match="a tree takes no soft and no unknown labels; choose --model bag"):
        TreeSolver(Model.new(encoder, "bce", unknown), rows)


@pytest.mark.slow
def test_a_tree_is_fitted_and_predicts_from_the_command_line(folder: Path) -> None:
    made = ["--labels", "300", "--rows", "3000", "--test-rows", "300", "--out", "made"]
    assert main(["data", "make-xmc", *made]) == 0
    assert main(["fit", "made/train.txt", "--model", "tree", "--loss", "bce", "--out", "tree"]) == 0
    assert main(["fit", "made/train.txt", "--model", "linear_bag", "--loss", "bce", "--out", "linear"]) == 0
    for run in ("tree", "linear"):
        assert main(["evaluate", run, "made/test.txt"]) == 0
    scores = {run: json.loads((folder / run / "results-test.json").read_text()) for run in ("tree", "linear")}
    precision = {run: of["model"]["p@1"] for run, of in scores.items()}
    assert precision["tree"] > precision["linear"] - 0.03
    assert precision["tree"] > 0.5
