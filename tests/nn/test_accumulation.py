"""Sums over the parts of a batch, divided by the sum of their counts, are the mean over the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import lopsided
from lopsided import AdaptiveAsymmetricLoss, MultiLabelLoss, SparseTargets
from tests.ranks import on_ranks
from tests.variants import example

LOSSES = ["bce", "asl", "apl", "zlpr", "lsep", "softmax", "bp_mll"]


def parts() -> list[tuple[Tensor, Tensor]]:
    """Batches that differ in rows, in unknown labels, and in rows with a positive."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for rows, positives, unknown in ((6, 0.5, 0.0), (3, 0.1, 0.5), (1, 0.0, 0.0), (2, 0.3, 1.0)):
        x = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
        y = (torch.rand(rows, 5, generator=generator) < positives).double()
        batches.append((x, y.masked_fill(torch.rand(rows, 5, generator=generator) < unknown, torch.nan)))
    return batches


def model() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(4, 5, dtype=torch.float64)


def gradient_of_one_batch(spec: str) -> Tensor:
    whole, (x, y) = model(), map(torch.cat, zip(*parts(), strict=True))
    lopsided.loss(spec)(whole(x), y).backward()
    assert whole.weight.grad is not None
    return whole.weight.grad


@pytest.mark.parametrize("spec", LOSSES)
def test_parts_give_the_gradient_of_one_batch(spec: str) -> None:
    summed, averaged = model(), model()
    criterion = lopsided.loss(spec, reduction="sum")
    count = torch.stack([criterion.count(y) for _, y in parts()]).sum()
    for x, y in parts():
        (criterion(summed(x), y) / count).backward()
        (lopsided.loss(spec)(averaged(x), y) / len(parts())).backward()
    expected = gradient_of_one_batch(spec)
    assert summed.weight.grad is not None
    assert averaged.weight.grad is not None
    torch.testing.assert_close(summed.weight.grad, expected)
    assert (averaged.weight.grad - expected).norm() > 0.1 * expected.norm()  # what a plain loop does


@pytest.mark.parametrize("spec", LOSSES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_count_is_what_the_mean_divides_by(spec: str, reduction: str) -> None:
    z, y = example()
    unknown = torch.rand(y.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    y[2, :] = torch.nan
    known = ~(unknown | y.isnan())
    of_index = y.nan_to_num().masked_fill(~known, -1)
    sparse = SparseTargets.from_csr(y.nan_to_num().to_sparse_csr())
    weights = {"weight": torch.rand(9, dtype=torch.float64), "pos_weight": (torch.arange(9) > 2).double()}
    for targets, mask, options in (
        (y, None, {}),
        (y, ~unknown, {}),
        (of_index.int(), None, {"ignore_index": -1}),
        (y.nan_to_num().bool(), None, weights),
        (y.nan_to_num(), known, {"label_smoothing": 0.1}),
        (sparse, None, {}),
        (sparse, known, {}),
    ):
        criterion = MultiLabelLoss(spec, reduction=reduction, **options)
        count = criterion.count(targets, mask)
        summed, mean = (MultiLabelLoss(spec, reduction=name, **options) for name in ("sum", "mean"))
        torch.testing.assert_close(summed(z, targets, mask) / count, mean(z, targets, mask))


def test_labels_may_be_any_dimension_and_the_adaptive_loss_counts_too() -> None:
    y = torch.tensor([[1.0, 0, 0], [0, torch.nan, torch.nan]])
    assert MultiLabelLoss("zlpr").count(y) == 2
    assert MultiLabelLoss("zlpr", label_dim=0).count(y) == 3
    assert MultiLabelLoss("softmax").count(y) == 1
    assert AdaptiveAsymmetricLoss().count(y) == 4
    assert MultiLabelLoss("bce").count(torch.full((2, 3), torch.nan)) == 0
    assert MultiLabelLoss("bce").count(SparseTargets.from_indices([[0], [1]]), num_labels=7) == 14


@pytest.mark.parametrize(
    ("spec", "targets", "message"),
    [
        ("two_way", torch.zeros(2, 3), "compares the rows of a batch"),
        ("bce", SparseTargets.from_indices([[0], [1]]), "pass num_labels="),
        ("bce", SparseTargets.from_csr(torch.eye(3).to_sparse_csr()), "mask"),
        ("bce", torch.tensor([[1, 0, -1]]), "must lie in .0, 1., got the value -1: mark unknown"),
        ("zlpr", torch.tensor([[1, 0, 2.0]]), "must lie in .0, 1., got the value 2"),
    ],
)
def test_what_cannot_be_counted_is_refused(spec: str, targets: Tensor | SparseTargets, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lopsided.loss(spec).count(targets, torch.ones(2, 4, dtype=torch.bool) if message == "mask" else None)


def worker(results: str) -> None:
    rank = dist.get_rank()
    for spec in LOSSES:
        trained, criterion = nn.parallel.DistributedDataParallel(model()), lopsided.loss(spec, reduction="sum")
        mine = parts()[rank::2]
        count = torch.stack([criterion.count(y) for _, y in mine]).sum()
        dist.all_reduce(count)
        for x, y in mine:
            (criterion(trained(x), y) * dist.get_world_size() / count).backward()
        torch.save(trained.module.weight.grad, f"{results}{rank}-{spec}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_processes_give_the_gradient_of_one_batch(tmp_path: Path) -> None:
    results = str(tmp_path / "rank")
    on_ranks(2, tmp_path, worker, results)
    for rank in range(2):
        for spec in LOSSES:
            torch.testing.assert_close(
                torch.load(f"{results}{rank}-{spec}", weights_only=True), gradient_of_one_batch(spec)
            )
