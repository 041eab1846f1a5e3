"""Weighted metrics against scikit-learn, or against the definition where it has none."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor

from lopsided.decision.rules import best_threshold
from lopsided.metrics.registry import METRICS
from lopsided.metrics.scores import Judged
from lopsided.metrics.weighted import Ranking, Weighable, ranked_labels

CASES = ["plain", "ties", "empty rows and labels", "one row", "all positive", "nothing positive"]


def case(name: str) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(CASES.index(name))
    rows = 1 if name == "one row" else 60
    scores, targets = random.normal(size=(rows, 7)), random.random((rows, 7)) < 0.3
    if name == "ties":
        scores = scores.round()
        assert len(np.unique(scores)) < 12
    if name == "empty rows and labels":
        targets[:5], targets[:, 2] = False, False
    if name == "all positive":
        targets[:] = True
    if name == "nothing positive":
        targets[:] = False
    return torch.from_numpy(scores), torch.from_numpy(targets)


def row_weights(rows: int) -> list[Tensor | None]:
    """None, and the weights of a bootstrap sample that leaves rows out."""
    drawn = np.random.default_rng(9).integers(rows, size=rows)
    return [None, torch.from_numpy(np.bincount(drawn, minlength=rows))]


def value(
    name: str, scores: Tensor, targets: Tensor, decisions: Tensor | None = None, weights: Tensor | None = None
) -> float:
    return METRICS[name].value(Weighable(Judged.of(scores, targets), decisions).summary(weights))


def close(ours: float, theirs: float) -> None:
    assert ours == pytest.approx(theirs, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", CASES)
def test_average_precision_and_auroc(name: str) -> None:
    scores, targets = case(name)
    judged = Judged.of(scores, targets)
    for weights in row_weights(len(targets)):
        ones = np.ones(len(targets)) if weights is None else weights.numpy()
        ranking, kept = Ranking.of(judged), ones > 0
        ours = {"average_precision": ranking.average_precision(ones), "auroc": ranking.auroc(ones)}
        for label in range(7):
            y, s = targets.numpy()[kept, label], scores.numpy()[kept, label]
            theirs = [math.nan] * 2
            if y.any():
                theirs[0] = sk.average_precision_score(y, s, sample_weight=ones[kept])
            if 0 < y.mean() < 1:
                theirs[1] = sk.roc_auc_score(y, s, sample_weight=ones[kept])
            close(float(ours["average_precision"][label]), theirs[0])
            close(float(ours["auroc"][label]), theirs[1])
        for column, metric in (("average_precision", "map"), ("auroc", "auroc")):
            if weights is None:
                assert ranked_labels(judged)[column] == pytest.approx(ours[column], abs=1e-12, nan_ok=True)
            present = ours[column][~np.isnan(ours[column])]
            close(value(metric, scores, targets, weights=weights), float(present.mean()) if len(present) else math.nan)


@pytest.mark.parametrize("name", CASES)
def test_decisions(name: str) -> None:
    scores, targets = case(name)
    decisions = scores > 0.4
    for weights in row_weights(len(targets)):
        w = None if weights is None else weights.numpy()
        y, d = targets.numpy().astype(int), decisions.numpy().astype(int)
        present = np.flatnonzero((y if w is None else y[w > 0]).any(0))
        close(
            value("micro_f1", scores, targets, decisions, weights),
            sk.f1_score(y, d, average="micro", sample_weight=w, zero_division=0),
        )
        macro = (
            sk.f1_score(y, d, average=None, sample_weight=w, zero_division=0)[present].mean()
            if len(present)
            else math.nan
        )
        close(value("macro_f1", scores, targets, decisions, weights), macro)
        close(value("subset_accuracy", scores, targets, decisions, weights), sk.accuracy_score(y, d, sample_weight=w))
        close(value("hamming_loss", scores, targets, decisions, weights), sk.hamming_loss(y, d, sample_weight=w))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("k", [1, 3])
def test_precision_at_k(name: str, k: int) -> None:
    scores, targets = case(name)
    for weights in row_weights(len(targets)):
        shares = [
            sum(y[label] for label in sorted(range(7), key=lambda label: (-s[label], label))[:k]) / k
            for s, y in zip(scores.tolist(), targets.tolist(), strict=True)
        ]
        w = None if weights is None else weights.numpy()
        close(value(f"p@{k}", scores, targets, weights=weights), float(np.average(shares, weights=w)))


def test_fewer_labels_than_ranks() -> None:
    """P@k still divides by k, as if the ranking went on with labels that are wrong."""
    close(value("p@3", torch.zeros(4, 2), torch.ones(4, 2)), 2 / 3)


@pytest.mark.parametrize("name", CASES)
def test_best_threshold_is_the_best_of_all(name: str) -> None:
    scores, targets = case(name)
    found = value("micro_f1", scores, targets, scores > best_threshold(Judged.of(scores, targets)))
    cuts = [-math.inf, *scores.unique().tolist()]
    close(found, max(value("micro_f1", scores, targets, scores > cut) for cut in cuts))


@pytest.mark.parametrize("scores", [(1.0000002, 1.0000001), (3e8, 2e8), (-1e-45, -2e-45), (0.0, -0.0)])
def test_best_threshold_of_neighbouring_numbers(scores: tuple[float, float]) -> None:
    s = torch.tensor([scores])
    for targets in (torch.tensor([[True, False]]), torch.tensor([[True, True]])):
        best = 1.0 if s[0, 0] > s[0, 1] or targets.all() else 2 / 3
        close(value("micro_f1", s, targets, s > best_threshold(Judged.of(s, targets))), best)


@pytest.mark.parametrize(
    "name", ["map", "micro_f1", "macro_f1", "sample_f1", "subset_accuracy", "hamming_loss", "predicted_per_row", "p@3"]
)
def test_weights_are_repetitions(name: str) -> None:
    scores, targets = case("plain")
    times = torch.from_numpy(np.random.default_rng(3).integers(3, size=60))
    y, s = targets.repeat_interleave(times, 0), scores.repeat_interleave(times, 0)
    close(value(name, scores, targets, scores > 0, times), value(name, s, y, s > 0))


def test_what_row_weights_do_not_make_is_named() -> None:
    scores, targets = case("plain")
    with pytest.raises(ValueError, match="ece is not made with row weights, only average_precision, auroc"):
        value("ece", scores, targets)
