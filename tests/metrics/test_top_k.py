"""P@k, nDCG@k and PSP@k against loops written from their definitions, and against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score

from lopsided.metrics.top_k import RankedMetrics, propensities
from lopsided.targets import SparseTargets

KS = (1, 3, 5)


def by_hand(top: list[list[int]], truth: list[list[int]], inverse: list[float]) -> dict[str, float]:
    """The definitions, row by row."""
    found: dict[str, float] = {}
    for k in KS:
        precision, ndcg, gained, possible = [], [], 0.0, 0.0
        for ranked, true in zip(top, truth, strict=True):
            hit = [label in true for label in ranked[:k]]
            precision.append(sum(hit) / k)
            ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(true))))
            gain = sum(1 / math.log2(place + 2) for place, one in enumerate(hit) if one)
            ndcg.append(gain / ideal if true else 0)
            gained += sum(inverse[label] for label, one in zip(ranked, hit, strict=False) if one)
            possible += sum(sorted((inverse[label] for label in true), reverse=True)[:k])
        found |= {f"p@{k}": float(np.mean(precision)), f"ndcg@{k}": float(np.mean(ndcg))}
        found[f"psp@{k}"] = gained / possible if possible else math.nan
    return found


@pytest.fixture
def example() -> tuple[torch.Tensor, list[list[int]], torch.Tensor]:
    """Scores (40, 30), true labels of which some rows have none and some many, and label counts."""
    random = np.random.default_rng(0)
    scores = torch.from_numpy(random.normal(size=(40, 30)))
    truth = [random.choice(30, size=random.integers(0, 9), replace=False).tolist() for _ in range(40)]
    assert [] in truth
    return scores, truth, torch.from_numpy(random.integers(0, 500, 30))


def test_equal_to_the_definitions_however_the_rows_are_cut(
    example: tuple[torch.Tensor, list[list[int]], torch.Tensor],
) -> None:
    scores, truth, counts = example
    top = scores.topk(7).indices
    propensity = propensities(counts, rows=1000)
    expected = by_hand(top.tolist(), truth, (1 / propensity).tolist())
    for size in (40, 7, 1):
        metrics = RankedMetrics(KS, propensity)
        for start in range(0, 40, size):
            part = slice(start, start + size)
            metrics.update(top[part], SparseTargets.from_indices(truth[part]))
        assert metrics.result() == pytest.approx(expected, abs=1e-12)
        assert metrics.rows == 40


def test_equal_to_scikit_learn_which_gives_a_row_without_labels_0_too(
    example: tuple[torch.Tensor, list[list[int]], torch.Tensor],
) -> None:
    scores, truth, _ = example
    dense = np.zeros(scores.shape)
    for row, labels in enumerate(truth):
        dense[row, labels] = 1
    metrics = RankedMetrics(KS)
    metrics.update(scores.topk(5).indices, SparseTargets.from_indices(truth))
    result = metrics.result()
    assert "psp@1" not in result
    for k in KS:
        assert result[f"ndcg@{k}"] == pytest.approx(ndcg_score(dense, scores.numpy(), k=k))


def test_propensity_scores_by_hand() -> None:
    """Two rows; the rare label weighs 4, the others 1: PSP@1 = (4 + 0) / (4 + 1), PSP@2 = (5 + 1) / (5 + 1)."""
    metrics = RankedMetrics((1, 2), propensity=torch.tensor([1.0, 0.25, 1.0]))
    metrics.update(torch.tensor([[1, 0], [2, 0]]), SparseTargets.from_indices([[0, 1], [0]]))
    assert metrics.result() == pytest.approx(
        {"p@1": 0.5, "p@2": 0.75, "ndcg@1": 0.5, "ndcg@2": (1 + 1 / math.log2(3)) / 2, "psp@1": 0.8, "psp@2": 1.0}
    )


def test_propensities_are_those_of_the_paper() -> None:
    counts = np.array([0, 3, 77])
    c = (math.log(4880) - 1) * (2.6 + 1) ** 0.6
    expected = 1 / (1 + c * np.exp(-0.6 * np.log(counts + 2.6)))
    assert propensities(torch.from_numpy(counts), 4880, a=0.6, b=2.6).numpy() == pytest.approx(expected)


def test_propensities_of_a_few_rows_are_refused() -> None:
    assert 0 < float(propensities(torch.tensor([0]), 3)) <= 1
    for rows in (0, 1, 2):
        with pytest.raises(ValueError, match=f"need at least 3 training rows, got {rows}"):
            propensities(torch.tensor([0]), rows)


def test_fewer_labels_than_ranks() -> None:
    """P@k still divides by k, as if the ranking went on with labels that are wrong."""
    metrics = RankedMetrics(KS, propensity=torch.ones(2))
    metrics.update(torch.tensor([[1, 0]]), SparseTargets.from_indices([[0, 1]]))
    assert [metrics.result()[name] for name in ("p@1", "p@5", "ndcg@5", "psp@5")] == pytest.approx([1, 0.4, 1, 1])


def test_a_ranking_may_end_early() -> None:
    """The number of labels stands for no label: of three, row 0 ranks one and row 1 none."""
    metrics = RankedMetrics((1, 2), propensity=torch.tensor([0.5, 1.0, 1.0]))
    metrics.update(torch.tensor([[0, 3], [3, 3]]), SparseTargets.from_indices([[0, 1], [2]]))
    assert metrics.result() == pytest.approx(
        {"p@1": 0.5, "p@2": 0.25, "ndcg@1": 0.5, "ndcg@2": 0.5 / (1 + 1 / math.log2(3)), "psp@1": 2 / 3, "psp@2": 0.5}
    )


def test_nothing_collected_is_not_a_number() -> None:
    assert all(math.isnan(value) for value in RankedMetrics(KS, torch.ones(3)).result().values())
