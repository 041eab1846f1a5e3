"""Metrics against scikit-learn, or against the definition where it has none."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor

from lopsided.decision import metrics

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


def close(ours: float, theirs: float) -> None:
    assert ours == pytest.approx(theirs, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", CASES)
def test_average_precision(name: str) -> None:
    scores, targets = case(name)
    ranking = metrics.Ranking.of(scores, targets)
    for weights in row_weights(len(targets)):
        ours = ranking.average_precision(weights)
        kept = slice(None) if weights is None else weights.numpy() > 0
        for label in range(7):
            y, s = targets.numpy()[kept, label], scores.numpy()[kept, label]
            w = None if weights is None else weights.numpy()[kept]
            close(float(ours[label]), sk.average_precision_score(y, s, sample_weight=w) if y.any() else math.nan)
        if weights is None:
            fast = metrics.average_precision(scores, targets)
            torch.testing.assert_close(fast, ours, rtol=0, atol=1e-12, equal_nan=True)
        present = ours[~ours.isnan()]
        close(metrics.mean_average_precision(ranking, weights), float(present.mean()) if len(present) else math.nan)


@pytest.mark.parametrize("name", CASES)
def test_decisions(name: str) -> None:
    scores, targets = case(name)
    decisions = scores > 0.4
    for weights in row_weights(len(targets)):
        w = None if weights is None else weights.numpy()
        y, d = targets.numpy().astype(int), decisions.numpy().astype(int)
        present = np.flatnonzero((y if w is None else y[w > 0]).any(0))
        close(
            metrics.micro_f1(decisions, targets, weights),
            sk.f1_score(y, d, average="micro", sample_weight=w, zero_division=0),
        )
        macro = (
            sk.f1_score(y, d, average=None, sample_weight=w, zero_division=0)[present].mean()
            if len(present)
            else math.nan
        )
        close(metrics.macro_f1(decisions, targets, weights), macro)
        close(metrics.subset_accuracy(decisions, targets, weights), sk.accuracy_score(y, d, sample_weight=w))
        close(metrics.hamming_loss(decisions, targets, weights), sk.hamming_loss(y, d, sample_weight=w))


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
        close(metrics.precision_at(k, scores, targets, weights), float(np.average(shares, weights=w)))


def test_precision_needs_k_labels() -> None:
    assert math.isnan(metrics.precision_at(3, torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.bool)))


@pytest.mark.parametrize("name", CASES)
def test_best_threshold_is_the_best_of_all(name: str) -> None:
    scores, targets = case(name)
    found = metrics.micro_f1(scores > metrics.best_threshold(scores, targets), targets)
    cuts = [-math.inf, *scores.unique().tolist()]
    close(found, max(metrics.micro_f1(scores > cut, targets) for cut in cuts))


@pytest.mark.parametrize("scores", [(1.0000002, 1.0000001), (3e8, 2e8), (-1e-45, -2e-45), (0.0, -0.0)])
def test_best_threshold_of_neighbouring_numbers(scores: tuple[float, float]) -> None:
    s = torch.tensor([scores])
    for targets in (torch.tensor([[True, False]]), torch.tensor([[True, True]])):
        best = 1.0 if s[0, 0] > s[0, 1] or targets.all() else 2 / 3
        close(metrics.micro_f1(s > metrics.best_threshold(s, targets), targets), best)


FUNCTIONS: list[Callable[[Tensor, Tensor, Tensor | None], float]] = [
    lambda s, y, w: metrics.mean_average_precision(metrics.Ranking.of(s, y), w),
    lambda s, y, w: metrics.micro_f1(s > 0, y, w),
    lambda s, y, w: metrics.macro_f1(s > 0, y, w),
    lambda s, y, w: metrics.subset_accuracy(s > 0, y, w),
    lambda s, y, w: metrics.hamming_loss(s > 0, y, w),
    lambda s, y, w: metrics.precision_at(3, s, y, w),
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_weights_are_repetitions(function: Callable[[Tensor, Tensor, Tensor | None], float]) -> None:
    scores, targets = case("plain")
    times = torch.from_numpy(np.random.default_rng(3).integers(3, size=60))
    repeated = function(scores.repeat_interleave(times, 0), targets.repeat_interleave(times, 0), None)
    close(function(scores, targets, times), repeated)
