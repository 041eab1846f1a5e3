"""The encoder of sparse features: rows as an embedding bag takes them, of unit length, of the features of training."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lopsided.data.inputs import SparseFeatures
from lopsided.models.bag import BagRows, UnitLength


def sparse(dense: Tensor, declared: bool = False) -> SparseFeatures:
    indptr = nn.functional.pad((dense != 0).sum(1).cumsum(0), (1, 0))
    row, column = dense.nonzero(as_tuple=True)
    return SparseFeatures(indptr, column, dense[row, column], dense.shape[1], declared)


def summed(rows: BagRows, chosen: Tensor) -> Tensor:
    """What a bag whose embeddings are the unit vectors gives: the rows, dense."""
    indices, offsets, weights = rows.batch(chosen)
    bag = nn.EmbeddingBag.from_pretrained(torch.eye(rows.features.num_features), mode="sum")
    values: Tensor = bag(indices, offsets, per_sample_weights=weights)
    return values


@pytest.fixture
def dense() -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.rand(100, 60, generator=random) * (torch.rand(100, 60, generator=random) < 0.1)


def test_batches_are_what_an_embedding_bag_takes(dense: Tensor) -> None:
    rows, chosen = sparse(dense), torch.tensor([7, 0, 99, 7])
    encoder = UnitLength.fit(rows, unit_length=False)
    torch.testing.assert_close(summed(encoder.encode(rows), chosen), dense[chosen], rtol=0, atol=0)
    taken = encoder.encode(rows.take(chosen))
    torch.testing.assert_close(summed(taken, torch.arange(4)), dense[chosen], rtol=0, atol=0)


def test_rows_of_unit_length_of_which_those_of_zeros_stay(dense: Tensor) -> None:
    indptr, indices = torch.tensor([0, 2, 3, 3]), torch.tensor([0, 1, 1])
    rows = SparseFeatures(indptr, indices, torch.tensor([3e30, -4e30, 0.0]), num_features=2)
    encoded = UnitLength.fit(rows).encode(rows)
    assert summed(encoded, torch.arange(3)).numpy() == pytest.approx(np.array([[0.6, -0.8], [0, 0], [0, 0]]))
    lengths = summed(UnitLength.fit(sparse(dense)).encode(sparse(dense)), torch.arange(100)).norm(dim=1)
    assert lengths.numpy() == pytest.approx((dense != 0).any(1).float().numpy())


def test_features_that_no_training_row_had_are_left_out_before_lengths_are_measured(dense: Tensor) -> None:
    encoder = UnitLength.fit(sparse(dense[:, :50]))
    everything, known = encoder.encode(sparse(dense)), encoder.encode(sparse(dense[:, :50]))
    assert everything.features.num_features == 50
    torch.testing.assert_close(summed(everything, torch.arange(100)), summed(known, torch.arange(100)), rtol=0, atol=0)
    wider = UnitLength.fit(sparse(torch.nn.functional.pad(dense, (0, 9), value=1.0)), unit_length=False)
    assert summed(wider.encode(sparse(dense)), torch.arange(100)).tolist() == nn.functional.pad(dense, (0, 9)).tolist()


def test_two_headers_must_say_the_same(dense: Tensor) -> None:
    encoder = UnitLength.fit(sparse(dense, declared=True))
    with pytest.raises(ValueError, match="its header says 50 features, but the training rows have 60"):
        encoder.encode(sparse(dense[:, :50], declared=True))
    assert len(encoder.encode(sparse(dense[:, :50]))) == 100


def test_memory_follows_from_the_features_that_rows_have_whatever_their_numbers(dense: Tensor) -> None:
    rows = sparse(dense)
    far = SparseFeatures(rows.indptr, rows.indices * 33_000_000 + 5, rows.values, 2**31)
    near, wide = UnitLength.fit(rows), UnitLength.fit(far)
    assert wide.make_body().embedding.weight.shape == near.make_body().embedding.weight.shape
    chosen = torch.arange(100)
    torch.testing.assert_close(summed(wide.encode(far), chosen), summed(near.encode(rows), chosen), rtol=0, atol=0)
    unseen = SparseFeatures(torch.tensor([0, 2]), torch.tensor([5, 2**31 - 1]), torch.ones(2), 2**31)
    assert wide.encode(unseen).batch(torch.tensor([0]))[0].tolist() == [0]
