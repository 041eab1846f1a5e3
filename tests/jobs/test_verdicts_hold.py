"""Verdicts are right where the answer is known; benchmarks/verdicts.py asks the same of real rows, and more often."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import lopsided
from lopsided.data.inputs import Table
from lopsided.jobs.judge import Given, Setting, System, evidence_of_scores, labelled
from lopsided.jobs.results import summarize
from lopsided.jobs.schema import Results
from lopsided.losses import Formula, formula
from lopsided.losses.curves import Values
from lopsided.losses.entries import CATALOG
from lopsided.losses.formulas import Curve
from lopsided.models.methods import parse_method
from lopsided.models.recipe import SOLVED
from lopsided.models.tables import LinearTable
from lopsided.training.loop import train
from lopsided.training.rows import Rows
from lopsided.training.validate import Validation
from tests.tools import quiet_progress

ROWS, LABELS, FEATURES = 150, 5, 8


def drawn(seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Features, and labels that these tell with some noise."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(ROWS, FEATURES)).astype(np.float32)
    map_ = np.random.default_rng(99).normal(size=(FEATURES, LABELS))
    return features, (features @ map_ + 2 * random.normal(size=(ROWS, LABELS)) > 2).astype(np.int64)


def verdicts(losses: list[str]) -> Results:
    """Linear models, solved on one part, their penalty chosen on another, and compared on a third."""
    parts = {name: drawn(seed) for seed, name in enumerate(("train", "valid", "test"))}
    truth = {name: labelled(labels, None, name) for name, (_, labels) in parts.items()}
    tables = {name: Table.of_numbers(torch.from_numpy(features)) for name, (features, _) in parts.items()}
    encoder = LinearTable.fit(tables["train"])
    rows = {name: Rows(encoder.encode(table), truth[name]) for name, table in tables.items()}
    systems = {}
    for loss in losses:
        model = train(encoder, loss, rows["train"], SOLVED, 0, validation=Validation(rows["valid"])).model
        systems[loss] = System(parse_method(loss), [Given(model.score(rows["test"].encoded), loss)])
    setting = Setting("drawn", {"test": truth["test"]}, scale="logits")
    return summarize(evidence_of_scores(systems, setting), quiet_progress())


def times(factor: float) -> Formula:
    loss = formula("bce")

    def scaled(curve: Curve) -> Curve:
        def both(z: Tensor) -> Values:
            value, slope = curve(z)
            return factor * value, factor * slope

        return Curve(both)

    return Formula(scaled(loss.positive), scaled(loss.negative), loss.pool, named=f"times(factor={factor:g})")


@pytest.mark.slow
def test_a_loss_is_no_better_than_itself_in_other_units_or_by_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOG, "times", times)
    scaled = [f"times(factor={factor:g})" for factor in (1 / 8, 1 / 2, 2, 8)]
    found = verdicts(["bce", *scaled, "soft_margin", "asl(gamma_neg=0, clip=0)", "zlpr"]).comparisons
    assert abs(found.pop("zlpr").mean or 0.0) > 1e-4, "another loss is another model"
    assert {each.verdict for each in found.values()} == {"no difference shown"}
    for loss, each in found.items():
        assert each.mean == pytest.approx(0.0, abs=1e-5), loss


def ridge(features: NDArray[Any], labels: NDArray[Any], seed: int) -> NDArray[Any]:
    """Weights of a least-squares fit to rows that a seed draws with replacement."""
    chosen = np.random.default_rng(seed).integers(ROWS, size=ROWS)
    x, y = features[chosen], labels[chosen] - labels[chosen].mean(0)
    weights: NDArray[Any] = np.linalg.solve(x.T @ x + 10 * np.eye(FEATURES), x.T @ y)
    return weights


@pytest.mark.slow
def test_a_class_whose_labels_were_flipped_in_training_is_found() -> None:
    words = []
    for number in range(5):
        (features, labels), (test, truth) = drawn(100 + number), drawn(200 + number)
        flipped = np.hstack([1 - labels[:, :1], labels[:, 1:]])

        def fit(asked: NDArray[Any], seed: int, rows: Any = features, test: Any = test) -> NDArray[Any]:
            scores: NDArray[Any] = test @ ridge(rows, asked, seed)
            return scores

        found = lopsided.compare_losses(fit, {"as it is": labels, "flipped": flipped}, truth, scale="logits")
        words.append(found.results.comparisons["flipped"].verdict)
    assert words.count("worse") >= 4, words
