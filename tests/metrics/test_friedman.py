"""Mean ranks over data sets, against the worked example of Demsar (2006), scipy, and brute force."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lopsided.metrics.friedman import rank_losses

# Demsar, JMLR 7 (2006), table 6: AUC of C4.5 with m and cf at their defaults or tuned. It prints .975 twice on
# one data set, but gives them the ranks 2 and 3, which are of numbers that differ.
TREES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
AUC = [
    [0.763, 0.768, 0.771, 0.798],
    [0.599, 0.591, 0.590, 0.569],
    [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657],
    [0.882, 0.888, 0.886, 0.898],
    [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685],
    [0.583, 0.583, 0.563, 0.625],
    [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000],
    [0.940, 0.962, 0.965, 0.962],
    [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.975],
    [0.957, 0.978, 0.946, 0.970],
]


def test_the_example_of_demsar() -> None:
    found = rank_losses(AUC, TREES)
    assert found.losses == ("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")
    assert [round(rank, 3) for rank in found.mean_ranks] == [1.964, 2.000, 2.893, 3.143]
    assert round(found.critical_difference, 2) == 1.25
    assert found.groups == (found.losses,)  # 3.143 - 1.964 < 1.25
    # his statistics are those without a correction for ties, which makes ours larger
    uncorrected = 12 * 14 / (4 * 5) * (sum(rank**2 for rank in found.mean_ranks) - 4 * 5**2 / 4)
    assert round(uncorrected, 2) == 9.28
    assert round(13 * uncorrected / (14 * 3 - uncorrected), 2) == 3.69
    assert found.friedman > uncorrected
    assert found.iman_davenport_p < 0.05


def test_friedman_is_that_of_scipy_with_and_without_ties() -> None:
    generator = np.random.default_rng(0)
    for _ in range(30):
        table = generator.integers(0, 6, (generator.integers(2, 9), generator.integers(3, 6))).astype(float)
        table[0, :2] = 0, 1
        found = rank_losses(table.tolist(), [str(number) for number in range(table.shape[1])])
        expected = stats.friedmanchisquare(*table.T)
        assert (found.friedman, found.friedman_p) == pytest.approx((expected.statistic, expected.pvalue))


def test_iman_and_davenport_is_the_analysis_of_variance_of_the_ranks() -> None:
    table = np.random.default_rng(1).random((7, 4))
    ranks = table.argsort(1).argsort(1) + 1.0
    columns = ranks.mean(0)
    residual = ((ranks - columns - ranks.mean(1, keepdims=True) + ranks.mean()) ** 2).sum() / (6 * 3)
    expected = 7 * ((columns - ranks.mean()) ** 2).sum() / 3 / residual
    found = rank_losses(table.tolist(), "abcd", higher_is_better=False)
    assert found.iman_davenport == pytest.approx(expected)
    assert found.iman_davenport_p == pytest.approx(stats.f.sf(expected, 3, 18))


def test_the_critical_difference_is_that_of_the_printed_table() -> None:
    printed = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}  # Demsar, 5a
    for losses, q in printed.items():
        found = rank_losses([list(range(losses))] * 5, [str(number) for number in range(losses)])
        assert found.critical_difference == pytest.approx(q * math.sqrt(losses * (losses + 1) / 30), rel=3e-4)


@pytest.mark.slow
def test_groups_are_the_largest_sets_without_a_difference() -> None:
    generator = np.random.default_rng(2)
    sizes = set()
    for _ in range(40):
        losses = "abcdef"
        quality = np.arange(6) * generator.choice([0.05, 0.2, 0.5])
        found = rank_losses((quality + generator.random((12, 6))).tolist(), losses)
        rank = dict(zip(found.losses, found.mean_ranks, strict=True))
        near = [
            set(group)
            for size in range(2, 7)
            for group in itertools.combinations(losses, size)
            if max(rank[one] for one in group) - min(rank[one] for one in group) < found.critical_difference
        ]
        largest = [group for group in near if not any(group < other for other in near)]
        assert sorted(map(sorted, largest)) == sorted(map(sorted, found.groups))
        sizes.add(len(found.groups))
    assert len(sizes) > 1


@pytest.mark.parametrize(("losses", "data_sets"), [(2, 2), (2, 4), (2, 7), (3, 2), (3, 4)])
def test_few_data_sets_are_judged_by_all_orders_that_chance_could_make(losses: int, data_sets: int) -> None:
    """Two losses and two data sets agree every other time; F is infinite then, and its p-value 0."""
    orders = list(itertools.permutations(range(losses)))
    every = [np.array(table, float) for table in itertools.product(orders, repeat=data_sets)]
    spread = [np.square(table.mean(0) - table.mean()).sum() for table in every]
    for table in (every[0], every[1], every[-2]):
        exact = np.mean([value >= np.square(table.mean(0) - table.mean()).sum() - 1e-9 for value in spread])
        assert rank_losses(table.tolist(), "abc"[:losses]).permutation_p == pytest.approx(exact, abs=0.015)


def test_no_difference_at_all_and_full_agreement() -> None:
    same = rank_losses([[0.5, 0.5], [0.1, 0.1]], ["bce", "asl"])
    assert (same.mean_ranks, same.friedman, same.friedman_p, same.iman_davenport_p) == ((1.5, 1.5), 0, 1, 1)
    assert same.groups == (("bce", "asl"),)
    agreed = rank_losses([[0.1, 0.2, 0.3]] * 7, ["bce", "asl", "zlpr"])
    assert (agreed.mean_ranks, agreed.friedman, agreed.iman_davenport) == ((1, 2, 3), 14, math.inf)
    assert agreed.iman_davenport_p == 0
    assert agreed.permutation_p == pytest.approx(6**-6, abs=1e-3)
    assert same.permutation_p == 1
    assert agreed.groups == (("zlpr", "asl"), ("asl", "bce"))
    down = rank_losses([[0.1, 0.2, 0.3]] * 7, ["bce", "asl", "zlpr"], higher_is_better=False)
    assert down == replace(agreed, losses=("bce", "asl", "zlpr"), groups=(("bce", "asl"), ("asl", "zlpr")))


@pytest.mark.parametrize(
    ("values", "losses", "message"),
    [
        ([[0.1, 0.2]], "ab", "at least 2 data sets and 2 losses, a value for each; got 1 data sets with 2 values"),
        ([[0.1], [0.2]], "a", "got 2 data sets with 1 values for 1 losses"),
        ([[0.1, 0.2], [0.3]], "ab", "with 1 or 2 values for 2 losses"),
        ([], "ab", "got 0 data sets with no values"),
        ([[0.1, 0.2], [0.3, math.nan]], "ab", "b has the value nan on data set 2 of 2: leave out that loss"),
    ],
)
def test_missing_values_are_refused(values: list[list[float]], losses: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_losses(values, losses)
