"""What the checks of the verdict are made of: real rows, labels that nobody can tell from them, solved models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from lopsided.data.independence import together
from lopsided.data.inputs import SparseFeatures, Table
from lopsided.data.readers import ReadOptions, read
from lopsided.jobs.evidence import Evidence
from lopsided.jobs.judge import Given, Setting, System, evidence_of_scores
from lopsided.jobs.rows import Prepared
from lopsided.models.heads import dense_targets
from lopsided.models.methods import parse_method
from lopsided.models.recipe import SOLVED, Recipe
from lopsided.training.loop import Trained, train
from lopsided.training.validate import Validation

Arrays = tuple[np.ndarray, np.ndarray]  # features (rows, D) float32, labels (rows, L) int


def parts_of(data: Path, name: str) -> list[Arrays]:
    """Training and test rows of a set of Mulan."""
    short, found = name.removeprefix("mulan_"), []
    for part in ("train", "test"):
        rows = read(data / name / f"{short}-{part}.arff", ReadOptions())
        inputs = rows.inputs
        if isinstance(inputs, Table):
            features = inputs.numbers.numpy()
        else:
            assert isinstance(inputs, SparseFeatures)
            shape = len(inputs), inputs.num_features
            features = csr_matrix((inputs.values, inputs.indices, inputs.indptr), shape).toarray()
        found.append((features, dense_targets(rows.targets, rows.num_labels).numpy().astype(int)))
    return found


def table_of(data: Path, name: str) -> Arrays:
    """All rows of a set."""
    features, labels = zip(*parts_of(data, name), strict=True)
    return np.concatenate(features), np.concatenate(labels)


def as_they_are(rows: Arrays, number: int) -> Arrays:
    return rows


def random_labels(rows: Arrays, number: int) -> Arrays:
    """The same rows with labels that have nothing to do with them, each as frequent as before."""
    shares = rows[1].mean(0)
    return rows[0], (np.random.default_rng(number).random(rows[1].shape) < shares).astype(int)


def copied(rows: Arrays, number: int) -> Arrays:
    """200 rows with random labels, each three times in the file."""
    some = np.random.default_rng(number).permutation(len(rows[0]))[:200]
    features, labels = random_labels((rows[0][some], rows[1][some]), number)
    return np.tile(features, (3, 1)), np.tile(labels, (3, 1))


def solve(prepared: Prepared, loss: str, recipe: Recipe = SOLVED) -> Trained:
    """A linear model with the penalty of the path that is best on validation rows."""
    assert prepared.valid is not None
    return train(prepared.encoder, loss, prepared.train, recipe, 0, validation=Validation(prepared.valid))


def evidence_of(prepared: Prepared, trained: Mapping[str, Trained]) -> Evidence:
    assert prepared.valid is not None
    assert prepared.test is not None
    systems, scored = {}, {"test": prepared.test, "validation": prepared.valid}
    for loss, one in trained.items():
        given = [Given(one.model.score(part.encoded), f"{loss}, {name}") for name, part in scored.items()]
        systems[loss] = System(parse_method(loss), given[:1], given[1:])
    parts = prepared.splits.parts()
    evidence = evidence_of_scores(systems, Setting("rows", parts, scale="logits"))
    return replace(evidence, sets=together(parts["test"]).unique(return_inverse=True)[1])
