"""Sparse targets of any shape: index lists, padded matrices, CSR matrices and dense targets say the same."""

import itertools
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lopsided
from lopsided import SparseTargets
from lopsided.nn.functional import multilabel_loss

LISTS = st.integers(1, 9).flatmap(
    lambda labels: st.tuples(
        st.just(labels), st.lists(st.sets(st.integers(0, labels - 1)).map(sorted), min_size=1, max_size=5)
    )
)


def dense(labels: int, lists: list[list[int]]) -> torch.Tensor:
    targets = torch.zeros(len(lists), labels, dtype=torch.float64)
    for row, listed in enumerate(lists):
        targets[row, listed] = 1
    return targets


def rows_of(targets: SparseTargets) -> list[list[int]]:
    bounds = targets.crow.tolist()
    return [targets.col[first:last].tolist() for first, last in itertools.pairwise(bounds)]


@given(LISTS)
def test_every_form_holds_the_same_lists(example: tuple[int, list[list[int]]]) -> None:
    labels, lists = example
    longest = max(map(len, lists))
    padded = torch.tensor([row + [-1] * (longest - len(row)) for row in lists], dtype=torch.long)
    matrix = dense(labels, lists).to_sparse_csr()
    for made in (
        SparseTargets.from_indices(lists),
        SparseTargets.from_indices(padded.reshape(len(lists), longest)),
        SparseTargets.from_csr(matrix),
        SparseTargets.from_indices(lists).to("cpu"),
    ):
        assert rows_of(made) == lists
    again = SparseTargets.from_csr(matrix)
    assert again.values is not None
    rebuilt = torch.sparse_csr_tensor(again.crow, again.col, again.values, (len(lists), labels), check_invariants=True)
    assert torch.equal(rebuilt.to_dense(), dense(labels, lists))


@pytest.mark.slow
@given(LISTS, st.sampled_from(["asl", "zlpr", "softmax", "bp_mll"]), st.randoms(use_true_random=False))
def test_losses_are_those_of_dense_targets(example: tuple[int, list[list[int]]], name: str, random: Random) -> None:
    labels, lists = example
    shuffled = [random.sample(row, len(row)) for row in lists]
    logits = torch.linspace(-4, 3, len(lists) * labels, dtype=torch.float64).reshape(len(lists), labels)
    criterion = lopsided.loss(name, reduction="none")
    expected = criterion(logits, dense(labels, lists))
    torch.testing.assert_close(criterion(logits, SparseTargets.from_indices(shuffled)), expected)
    eager = multilabel_loss(logits, SparseTargets.from_indices(shuffled), name, reduction="none", backend="eager")
    torch.testing.assert_close(eager, expected)
