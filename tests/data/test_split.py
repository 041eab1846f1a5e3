"""The stratified split: every row in one part, groups together, and the share of every label."""

import time
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from lopsided.data.split import stratified_split
from lopsided.targets import SparseTargets


@st.composite
def problems(draw: st.DrawFn) -> tuple[SparseTargets, tuple[float, ...], Tensor]:
    rows = draw(st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=25))
    weights = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    groups = draw(st.lists(st.integers(0, 9), min_size=len(rows), max_size=len(rows)))
    fractions = tuple(weight / sum(weights) for weight in weights)
    return SparseTargets.from_indices(rows), fractions, torch.tensor(groups)


def off(parts: Sequence[Tensor], fractions: Sequence[float]) -> list[float]:
    """How many rows each part has beyond its share."""
    rows = sum(map(len, parts))
    return [len(part) - fraction * rows for part, fraction in zip(parts, fractions, strict=True)]


@pytest.mark.slow
@given(problems())
def test_every_row_stands_in_one_part_and_every_part_has_its_share(
    problem: tuple[SparseTargets, tuple[float, ...], Tensor],
) -> None:
    targets, fractions, _ = problem
    parts = stratified_split(targets, fractions, seed=1)
    assert torch.cat(parts).sort().values.tolist() == list(range(len(targets.crow) - 1))
    assert all((part.diff() > 0).all() for part in parts)
    assert max(map(abs, off(parts, fractions))) < len(parts)


@given(problems())
def test_no_group_is_parted(problem: tuple[SparseTargets, tuple[float, ...], Tensor]) -> None:
    targets, fractions, groups = problem
    parts = stratified_split(targets, fractions, 1, groups)
    assert torch.cat(parts).sort().values.tolist() == list(range(len(groups)))
    assert sum(len(groups[part].unique()) for part in parts) == len(groups.unique())
    assert max(map(abs, off(parts, fractions))) <= len(parts) * int(groups.bincount().max())


def test_groups_of_one_row_change_nothing() -> None:
    targets = SparseTargets.from_indices([[row % 7, 7 + row % 3] for row in range(90)])
    alone = stratified_split(targets, (0.7, 0.3), 5)
    for part, other in zip(alone, stratified_split(targets, (0.7, 0.3), 5, torch.arange(90)), strict=True):
        assert torch.equal(part, other)


def test_labels_keep_their_shares_by_groups() -> None:
    """A label that stands in 30 groups of 5 rows each has 6 of them in each fifth."""
    groups = torch.arange(300).repeat_interleave(5)
    targets = SparseTargets.from_indices([[group % 10] for group in groups.tolist()])
    for part in stratified_split(targets, [0.2] * 5, 0, groups):
        assert targets.col[part].bincount(minlength=10).tolist() == [30] * 10


def test_rare_labels_keep_their_shares() -> None:
    generator = torch.Generator().manual_seed(0)
    share = torch.tensor([0.5, 0.2, 0.05, 0.01, 0.005])
    targets = torch.rand(2000, 5, generator=generator) < share
    fractions = (0.6, 0.2, 0.2)
    parts = stratified_split(targets, fractions, seed=1)
    assert sorted(row for part in parts for row in part.tolist()) == list(range(2000))
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(len(part) - fraction * 2000) <= 2
        error = (targets[part].sum(0) - fraction * targets.sum(0)).abs()
        assert (error <= 1.0).all(), f"positives off by {error.tolist()}"
    again, other = stratified_split(targets, fractions, seed=1), stratified_split(targets, fractions, seed=2)
    assert all(map(torch.equal, parts, again))
    assert not all(map(torch.equal, parts, other))


def test_split_beats_chance_on_correlated_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    topic = torch.randint(12, (600, 1), generator=generator)
    targets = (torch.rand(600, 40, generator=generator) < 0.3) & (torch.arange(40) % 12 == topic)
    fractions = (0.8, 0.1, 0.1)

    def worst(parts: Sequence[Tensor]) -> float:
        counts = torch.stack([targets[part].sum(0) for part in parts])
        wanted = torch.tensor(fractions)[:, None] * targets.sum(0)
        return float((counts - wanted).abs().mean())

    at_random = torch.randperm(600, generator=generator).split([480, 60, 60])
    assert worst(stratified_split(targets, fractions)) < 0.5 * worst(at_random)


def test_a_label_of_one_row_is_trained_on() -> None:
    """Of 10 labels with one positive among 100 rows, none is tested without having been seen."""
    targets = SparseTargets.from_indices([[row] if row < 10 else [10] for row in range(100)])
    training, _, _ = stratified_split(targets, (0.6, 0.2, 0.2))
    assert set(range(10)) <= set(training.tolist())


def test_rows_with_a_label_each_of_their_own_are_still_shared_out() -> None:
    targets = SparseTargets.from_indices([[row] for row in range(100)])
    assert [len(part) for part in stratified_split(targets, (0.6, 0.2, 0.2))] == [60, 20, 20]


def test_unknown_and_soft_labels_count_as_what_they_are() -> None:
    """The first 20 rows are positive, the next 20 unknown, the rest stored negatives: only positives are shared."""
    values = torch.tensor([1.0, float("nan"), 0.0]).repeat_interleave(20)
    targets = SparseTargets(torch.arange(61), torch.zeros(60, dtype=torch.long), values, 1)
    for part in stratified_split(targets, (0.5, 0.5)):
        assert (part < 20).sum() == 10
        assert len(part) == 30


def test_dense_targets_are_split_like_sparse_ones() -> None:
    dense = torch.rand(200, 6, generator=torch.Generator().manual_seed(3)) < 0.2
    sparse = SparseTargets(torch.nn.functional.pad(dense.sum(1).cumsum(0), (1, 0)), dense.nonzero()[:, 1], None, 6)
    assert all(map(torch.equal, stratified_split(dense, (0.5, 0.5)), stratified_split(sparse, (0.5, 0.5))))


def test_no_rows_and_no_labels() -> None:
    nothing = SparseTargets(torch.zeros(1, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    assert [len(part) for part in stratified_split(nothing, (0.5, 0.5))] == [0, 0]
    assert [len(part) for part in stratified_split(torch.zeros(10, 0, dtype=torch.bool), (0.7, 0.3))] == [7, 3]


def test_what_cannot_be_split_is_refused() -> None:
    targets = torch.ones(4, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="sum to 1"):
        stratified_split(targets, (0.5, 0.6))
    with pytest.raises(ValueError, match="each of the 4 rows"):
        stratified_split(targets, (0.5, 0.5), 0, torch.zeros(3, dtype=torch.long))


@pytest.mark.slow
def test_a_hundred_thousand_rows_and_a_thousand_labels_take_seconds() -> None:
    """It takes 0.3 s of one core here; the published method, written down plainly, 5 s."""
    generator = torch.Generator().manual_seed(0)
    col = (1000 * torch.rand(100_000, 5, generator=generator) ** 3).long()
    targets = SparseTargets(torch.arange(0, 500_001, 5), col.flatten(), None, 1000)
    start = time.perf_counter()
    parts = stratified_split(targets, (0.6, 0.2, 0.2))
    assert time.perf_counter() - start < 10
    counts = torch.stack([col[part].flatten().bincount(minlength=1000) for part in parts]).double()
    wanted = torch.tensor([[0.6], [0.2], [0.2]]) * counts.sum(0)
    assert (counts - wanted).abs().mean() < 2  # 8 at random
