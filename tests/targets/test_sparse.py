"""Sparse targets are dense ones, said shorter."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lopsided import SparseTargets
from lopsided.losses import CATALOG
from lopsided.nn.functional import multilabel_loss
from lopsided.targets import Supervision
from tests import oracle
from tests.targets.test_inputs import calling, every_loss, same
from tests.variants import example


def index_lists(y: Tensor) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in y]


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_targets_are_dense_ones(name: str, dtype: torch.dtype) -> None:
    z, y = example(labels=40)
    z = z.to(dtype)
    lists = index_lists(y)
    longest = max(map(len, lists))
    padded = torch.tensor([row + [-7] * (longest - len(row)) for row in lists])
    csr = y.to_sparse_csr()
    kinds = [
        csr,
        csr.bool(),
        SparseTargets(csr.crow_indices(), csr.col_indices()),
        SparseTargets(csr.crow_indices().int(), csr.col_indices().int()),
        SparseTargets.from_indices(lists),
        SparseTargets.from_indices(padded, pad=-7),
    ]
    for targets in kinds:
        same(calling(targets, name), calling(y, name), z)


@every_loss
def test_sparse_targets_take_all_that_dense_ones_take(name: str) -> None:
    z, y = example(soft=True, labels=40)
    y = torch.where(y > 0.6, y, 0)
    stored = y.to_sparse_csr()
    mask = torch.rand(z.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    options: dict[str, Any] = {"mask": mask, "weight": torch.rand(40), "pos_weight": 1 + torch.rand(40)}
    options["label_smoothing"] = 0.1
    ours, dense = (calling(t, name, **options) for t in (stored, y))
    same(ours, dense, z)
    leading = z.view(2, 3, 40)
    torch.testing.assert_close(multilabel_loss(leading, stored, name), multilabel_loss(z, y, name))


@every_loss
def test_stored_entries_may_be_unknown(name: str) -> None:
    z, y = example(soft=True, labels=20)
    y = torch.where(y > 0.6, y, 0)
    y[3, :4] = torch.tensor([0.7, 0.8, 0.9, 0.0])
    csr = y.to_sparse_csr()
    unknown = y.masked_fill(y > 0.9, torch.nan)
    values = csr.values().masked_fill(csr.values() > 0.9, torch.nan)
    marked = torch.where(values.isnan(), -1.0, values)
    for stored in (values, marked):
        sparse = SparseTargets(csr.crow_indices(), csr.col_indices(), stored)
        same(calling(sparse, name, ignore_index=-1), calling(unknown, name, ignore_index=-1), z)


def test_sparse_targets_move_between_devices() -> None:
    moved = SparseTargets.from_csr(torch.eye(3).to_sparse_csr()).to("meta")
    assert moved.crow.device.type == moved.col.device.type == "meta"
    assert moved.values is not None
    assert moved.values.device.type == "meta"
    assert moved.num_labels == 3


def test_a_label_listed_twice_counts_once() -> None:
    z = torch.randn(2, 5)
    twice, once = SparseTargets.from_indices([[1, 3, 1], []]), SparseTargets.from_indices([[1, 3], []])
    for name in CATALOG:
        assert multilabel_loss(z, twice, name) == multilabel_loss(z, once, name)


def test_sparse_zlpr_stays_exact_where_the_official_one_turns_negative() -> None:
    """Official float32 values at positive logits 15 and 50: -1.118 and 33.88."""
    for score in (5.0, 15.0, 50.0, 80.0, 1e4):
        z = torch.tensor([[score, -10.0, -10.0]])
        rows = calling(SparseTargets.from_indices([[0]]), "zlpr", reduction="none")
        true = torch.tensor([2.0]).double().mul(torch.tensor(-10.0).double().exp()).log1p()
        true += torch.tensor(-score, dtype=torch.float64).exp().log1p()
        torch.testing.assert_close(rows(z), true.float(), rtol=1e-6, atol=0)
        assert oracle.gradient(rows, z)[0, 0] <= 0


def test_rows_with_a_positive_are_counted_without_a_dense_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [[3, 0], [], [2, 2], [1], [4, 1]]
    mask, full = torch.ones(5, 5, dtype=torch.bool), torch.ones(5, 5)
    mask[0, 3], full[2, 2] = False, 0
    weight, pos_weight = torch.tensor([1.0, 0, 1, 1, 1]), torch.tensor([0.0, 1, 1, 1, 1])
    cases: dict[str, tuple[dict[str, Any], int]] = {
        "nothing": ({}, 4),
        "mask": ({"mask": mask}, 4),
        "weight of a label": ({"weight": weight}, 3),
        "weight of a logit": ({"weight": full}, 3),
        "both weights and a mask": ({"weight": weight, "pos_weight": pos_weight, "mask": mask}, 2),
    }
    monkeypatch.delattr(Supervision, "_scattered")
    for name, (said, expected) in cases.items():
        labels = Supervision.of(SparseTargets.from_indices(lists), **said)
        assert labels.number_of("positive rows", torch.Size((5, 5))) == expected, name
    leading = Supervision.of(SparseTargets.from_indices(lists[:4]), weight=weight)
    assert leading.number_of("positive rows", torch.Size((2, 2, 5))) == 2
