"""Rows that are drawn by their labels; mixtures of rows; two passes through dropout."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import lopsided
from lopsided.data.dataset import Dataset
from lopsided.data.inputs import Table, Texts
from lopsided.data.storage import UserError
from lopsided.models.mixup import mixed, mixed_targets
from lopsided.models.model import Network
from lopsided.models.ngrams import NGrams
from lopsided.models.tables import MlpTable
from lopsided.targets import SparseTargets
from lopsided.training.loop import train
from lopsided.training.order import class_aware, random_seed
from lopsided.training.rows import Rows


def test_every_label_is_drawn_equally_often_and_rows_without_labels_as_they_are() -> None:
    lists = [[0]] * 500 + [[1]] * 50 + [[2]] * 5 + [[]] * 445
    data = Dataset(Texts(("",) * 1000), SparseTargets.from_indices(lists), ("a", "b", "c"))
    drawn = class_aware(data, torch.Generator().manual_seed(3))
    assert len(drawn) == 1000
    counts = [int(((drawn >= low) & (drawn < high)).sum()) for low, high in ((0, 500), (500, 550), (550, 555))]
    np.testing.assert_allclose(counts, 555 / 3, atol=4 * np.sqrt(555 * 2 / 9))
    assert sorted(drawn[drawn >= 555].tolist()) == list(range(555, 1000))
    assert not torch.equal(drawn, class_aware(data, torch.Generator().manual_seed(4)))


def test_torch_draws_other_numbers_for_another_seed_epoch_step_or_process() -> None:
    places = [(0, 1), (4096, 1), (2**32 - 1, 1), (0, 2), (0, 1, 1), (0, 1, 2), (0, 1, 0, 1), (0, 1, 1, 1)]
    drawn = {float(torch.rand((), generator=torch.Generator().manual_seed(random_seed(*each)))) for each in places}
    assert len(drawn) == len(places)


def test_mixed_targets_are_those_of_dense_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = (torch.rand(6, 5, generator=generator) < 0.4).float()
    dense[2, 3] = torch.nan
    targets = SparseTargets.from_csr(dense.to_sparse_csr())
    order = torch.randperm(6, generator=generator)
    expected = 0.3 * dense + 0.7 * dense[order]
    made = mixed_targets(targets, order, 0.3, 5)
    found = torch.zeros(6, 5)
    assert made.values is not None
    found[made.row, made.col] = made.values
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_mixup_is_the_loss_of_mixed_states() -> None:
    network = Network(nn.Linear(3, 4), lopsided.LinearHead(4, 5, "bce", reduction="batchmean"))
    batch, targets = torch.randn(6, 3), SparseTargets.from_indices([[0], [1, 2], [], [3], [4], [0, 4]])
    torch.manual_seed(0)
    value = network((batch,), targets, mixup=0.4)
    torch.manual_seed(0)
    hidden, soft = mixed(network.body(batch), targets, 0.4, 5)
    torch.testing.assert_close(value, network.head(hidden, soft))
    assert not torch.allclose(value, network((batch,), targets))


def test_r_drop_is_that_of_the_library() -> None:
    head = lopsided.LinearHead(64, 5, "asl", reduction="batchmean")
    network = Network(nn.Sequential(nn.Linear(3, 64), nn.Dropout(0.5)), head)
    batch, targets = torch.randn(6, 3), SparseTargets.from_indices([[0], [1, 2], [], [3], [4], [0, 4]])
    torch.manual_seed(0)
    value = network((batch,), targets, r_drop=2.0)
    torch.manual_seed(0)
    criterion = lopsided.loss("asl", reduction="batchmean")
    expected = lopsided.r_drop(lambda x: head.logits(network.body(x)), batch, targets, criterion, 2.0)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("change", [{"sampling": "class_aware"}, {"mixup": 0.3}, {"r_drop": 1.0}])
def test_each_option_trains_another_model(change: dict[str, object]) -> None:
    numbers = torch.randn(80, 3, generator=torch.Generator().manual_seed(0))
    lists = [[label for label in range(2) if row[label] > 0.5 * label] for row in numbers]
    data = Dataset(Table.of_numbers(numbers), SparseTargets.from_indices(lists), ("a", "b"))
    encoder = MlpTable.fit(data.inputs, hidden=8)  # type: ignore[arg-type]
    rows = Rows(encoder.encode(data.inputs), data)  # type: ignore[arg-type]
    recipe = replace(encoder.recipe(80, 2), epochs=2)
    plain, other = (train(encoder, "bce", rows, each, 0) for each in (recipe, replace(recipe, **change)))  # type: ignore[arg-type]
    assert np.isfinite(other.history[-1].train_loss)
    weights = [trained.model.network.head.weight for trained in (plain, other)]
    assert not torch.allclose(*weights)  # type: ignore[arg-type]


def test_nothing_to_mix_is_one_line() -> None:
    data = Dataset(Texts(("a dog", "a cat")), SparseTargets.from_indices([[0], [1]]), ("a", "b"))
    encoder = NGrams.fit(data.inputs)  # type: ignore[arg-type]
    rows = Rows(encoder.encode(data.inputs), data)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--mixup mixes hidden states"):
        train(encoder, "bce", rows, replace(encoder.recipe(2, 2), mixup=0.2), 0)
