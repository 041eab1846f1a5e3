"""The exact sweep against every threshold there is, one after the other."""

import numpy as np
import pytest
import torch
from sklearn.metrics import fbeta_score
from torch import Tensor

from lopsided.decision.sweep import Cost, FBeta, RecallAtPrecision, ThresholdObjective, best_thresholds
from lopsided.metrics.scores import Judged, Scores
from lopsided.targets import SparseTargets

OBJECTIVES: list[ThresholdObjective] = [
    FBeta(),
    FBeta(2.0),
    FBeta(0.5),
    Cost(),
    Cost(1.0, 5.0),
    Cost(2.0, 3.0, -1.0, 0.5),
    RecallAtPrecision(0.5),
]


def example(seed: int, ties: bool = True) -> tuple[Tensor, Tensor]:
    """(50, 6): label 4 is never true, label 5 nearly always."""
    random = torch.Generator().manual_seed(seed)
    share = torch.tensor([0.3, 0.1, 0.5, 0.04, 0.0, 0.95])
    targets = torch.rand(50, 6, generator=random) < share
    scores = torch.randn(50, 6, generator=random) + targets
    return (scores * 2).round() / 2 if ties else scores, targets


def worth(objective: ThresholdObjective, decided: Tensor, targets: Tensor) -> Tensor:
    """(L,) from the decisions themselves."""
    hits, predicted, true = (each.sum(0).double() for each in (decided & targets, decided, targets))
    return objective(hits, predicted, true, len(targets)).double()


def every(scores: Tensor) -> list[float]:
    """A threshold below, between and above all scores."""
    known = scores.unique().double()
    return [float(known[0]) - 1, *((known[1:] + known[:-1]) / 2).tolist(), float(known[-1])]


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
@pytest.mark.parametrize("ties", [True, False])
def test_no_threshold_is_better(objective: ThresholdObjective, ties: bool) -> None:
    for seed in range(5):
        scores, targets = example(seed, ties)
        best = best_thresholds(Judged.of(scores, targets), objective)
        tried = torch.stack([worth(objective, scores > threshold, targets) for threshold in every(scores)])
        found = worth(objective, scores > best.labels, targets)
        has = targets.any(0)
        assert has.sum() >= 4
        assert torch.equal(best.labels.isnan(), ~has)
        torch.testing.assert_close(found[has], tried.max(0).values[has], rtol=0, atol=1e-12)
        shared = worth(objective, scores > best.shared, targets).sum()
        assert float(shared) == pytest.approx(float(tried.sum(1).max()), abs=1e-9)


def test_f_beta_is_scikit_learns() -> None:
    scores, targets = example(0)
    for beta in (0.5, 1.0, 3.0):
        expected = fbeta_score(targets.numpy(), (scores > 0).numpy(), beta=beta, average=None, zero_division=0)
        assert worth(FBeta(beta), scores > 0, targets).numpy() == pytest.approx(expected)


def test_a_precision_exactly_at_the_floor_is_enough() -> None:
    """55 of 100 is .55, though 0.55 * 100 is more than 55 in floating point."""
    targets = ((torch.arange(100) < 54) | (torch.arange(100) == 99))[:, None]
    scored = Judged.of(torch.arange(100.0).flip(0)[:, None], targets)
    assert float(best_thresholds(scored, RecallAtPrecision(0.55)).labels) < 0
    for hits, predicted in ((0, 0), (0, 5), (4, 4)):
        h, p, positives = (torch.tensor(float(number)) for number in (hits, predicted, 4))
        assert float(RecallAtPrecision(0.5)(h, p, positives, rows=9)) == {0: 0.0, 5: -1.0, 4: 1.0}[predicted]


@pytest.mark.slow
def test_many_labels_come_in_parts() -> None:
    random = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(1500, 4000, generator=random), torch.rand(1500, 4000, generator=random) < 0.01
    scored = Judged.of(scores, targets)
    assert len(list(scored.parts())) > 1
    best = best_thresholds(scored, FBeta())
    for part in (slice(0, 3), slice(2795, 2800), slice(3997, 4000)):
        alone = best_thresholds(Judged.of(scores[:, part], targets[:, part]), FBeta())
        assert torch.equal(best.labels[part], alone.labels)


def test_a_bounded_search_for_the_shared_threshold_is_nearly_the_best() -> None:
    scores, targets = example(0, ties=False)
    scored = Judged.of(scores, targets)
    exact, bounded = (best_thresholds(scored, FBeta(), cuts).shared for cuts in (4096, 20))
    f1 = [float(worth(FBeta(), scores > threshold, targets).sum()) for threshold in (exact, bounded)]
    assert 0.97 * f1[0] < f1[1] < f1[0]


def sparse(targets: Tensor) -> SparseTargets:
    return SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in targets])


def test_candidates_that_are_all_labels_are_as_good_as_a_matrix() -> None:
    scores, targets = example(1)
    order = torch.rand(50, 6, generator=torch.Generator().manual_seed(1)).argsort(1)
    dense = Judged.of(scores, targets)
    scored = Judged.of(Scores(scores.gather(1, order), order, 6), sparse(targets))
    assert torch.equal(scored.positives, dense.positives)
    for objective in OBJECTIVES:
        found, expected = best_thresholds(scored, objective), best_thresholds(dense, objective)
        torch.testing.assert_close(found.labels, expected.labels, equal_nan=True)
        assert found.shared == expected.shared


def test_positives_that_are_no_candidates_count_as_missed() -> None:
    """One candidate of 4 rows; the label is true in two others, too: recall falls, and F1 with it."""
    scores, labels = torch.tensor([[3.0], [2.0], [1.0], [0.0], [-1.0]]), torch.tensor([[0], [0], [0], [1], [1]])
    truth = SparseTargets.from_indices([[0], [], [0], [0], [0, 7]])  # label 7 is none of the model's
    scored = Judged.of(Scores(scores, labels, 2), truth)
    assert scored.positives.tolist() == [4, 0]
    assert scored.listed_positives.tolist() == [2, 0]
    lowest = float(np.nextafter(np.float32(1), np.float32(0)))  # F1 is 2/3 of 2 hits, 2/5 of 1: nothing lies below
    assert best_thresholds(scored, FBeta()).labels.tolist() == pytest.approx([lowest, torch.nan], nan_ok=True, abs=0)
    floor = RecallAtPrecision(1.0)
    assert float(best_thresholds(scored, floor).labels[0]) == 2.5


def test_thresholds_lie_midway_and_never_cut_ties() -> None:
    one = np.float32(1)
    above = float(np.nextafter(one, np.float32(2)))
    for column, true, expected in (
        ([2.0, 1.0, 1.0, 0.0], [1, 0, 0, 0], 1.5),
        ([2.0, 2.0, 1.0, 0.0], [1, 0, 0, 0], 1.5),
        ([above, 1.0, 0.0, 0.0], [1, 0, 0, 0], 1.0),
        ([0.0, -0.0, -1.0, -2.0], [0, 1, 0, 0], -0.5),
        ([3e38, -3e38, -3.2e38, -3.4e38], [1, 0, 0, 0], 0.0),
        ([-1.0, -2.0, -3.0, -4.0], [1, 1, 1, 1], float(np.nextafter(np.float32(-4), np.float32(-5)))),
    ):
        scored = Judged.of(torch.tensor(column)[:, None], torch.tensor(true)[:, None])
        assert float(best_thresholds(scored, FBeta()).labels) == expected


def test_where_nothing_should_be_predicted_nothing_is() -> None:
    scored = Judged.of(torch.tensor([[3.0], [2.0], [2.0]]), torch.tensor([[0], [1], [0]]))
    best = best_thresholds(scored, Cost(false_positive=9.0))
    assert (float(best.labels), best.shared) == (3.0, 3.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FBeta(-1.0), "beta"),
        (lambda: RecallAtPrecision(1.5), "floor"),
        (lambda: Cost(false_positive=0.0, true_negative=1.0), "a false positive must not cost less"),
        (lambda: Judged.of(torch.zeros(2, 3), torch.zeros(2, 2)), r"targets have shape \(2, 2\) but scores \(2, 3\)"),
        (lambda: Judged.of(torch.zeros(2, 2), torch.full((2, 2), 0.5)), "targets must be 0 or 1"),
        (lambda: Judged.of(torch.tensor([[torch.nan]]), torch.zeros(1, 1)), "1 of 1 scores are NaN or infinite"),
        (
            lambda: Judged.of(torch.tensor([[1e300]], dtype=torch.float64), torch.zeros(1, 1)),
            "1 of 1 scores are NaN or infinite in float32",
        ),
        (lambda: Cost(false_negative=float("nan")), "false_negative must be finite, got nan"),
        (lambda: Judged.of(torch.zeros(2, 0), torch.zeros(2, 0)), "scores must be floats"),
        (
            lambda: Judged.of(
                Scores(torch.zeros(2, 1), torch.zeros(2, 1).long(), 1), SparseTargets.from_indices([[0]])
            ),
            "targets have 1 rows but logits",
        ),
    ],
)
def test_bad_input_is_named(make: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
