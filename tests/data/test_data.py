"""The built-in data set and the readers."""

import numpy as np
import pytest
import torch

from lopsided.data.dataset import Dataset, Splits
from lopsided.data.digits_grid import CELLS, digits_grid
from lopsided.data.inputs import Images, Texts
from lopsided.models.heads import dense_targets
from lopsided.targets import SparseTargets


def pixels(data: Dataset) -> torch.Tensor:
    assert isinstance(data.inputs, Images)
    return data.inputs.pixels


def truth(data: Dataset) -> torch.Tensor:
    return dense_targets(data.targets, data.num_labels)


def test_digits_grid_has_the_proportions_of_coco() -> None:
    splits = digits_grid(3000, 500, 700)
    assert {name: len(part) for name, part in splits.parts().items()} == {"train": 3000, "valid": 500, "test": 700}
    assert pixels(splits.train).shape == (3000, 1, 36, 36)
    assert pixels(splits.train).dtype == torch.uint8
    assert len(set(splits.train.label_names)) == 90
    targets = truth(splits.train)
    per_row = targets.sum(1)
    assert 2.75 < per_row.double().mean() < 3.0
    assert per_row.min() == 0
    assert targets.any(0).all()
    assert targets.view(-1, 9, 10).sum(2).max() == 1, "two digits in one cell"


def test_digits_grid_labels_say_what_is_where() -> None:
    """With made-up digits, of which class d has d + 1 bright pixels, the labels can be read off the canvas."""
    from lopsided.data.digits_grid import _compose

    digits = np.zeros((10, 64))
    for digit in range(10):
        digits[digit, 3 * np.arange(digit + 1)] = 16
    data = _compose(digits.reshape(10, 8, 8), np.arange(10), 500, 1.0, np.random.default_rng(0))
    assert data.label_names[0] == f"0 {CELLS[0]}" == "0 top left"
    assert data.label_names[-1] == "9 bottom right"
    bright = pixels(data).view(500, 3, 12, 3, 12).transpose(2, 3).flatten(3) > 0.37 * 255
    count = bright.sum(3).view(500, 9)  # beyond 4.6 standard deviations of the noise
    cells = truth(data).view(500, 9, 10)
    expected = torch.where(cells.any(2), cells.int().argmax(2) + 1, 0)
    assert (count == expected).float().mean() > 0.95
    assert (expected > 0).float().mean() > 0.28


def test_digits_grid_is_seeded_and_its_splits_share_no_digit() -> None:
    first, again, other = digits_grid(60, 20, 20, 3), digits_grid(60, 20, 20, 3), digits_grid(60, 20, 20, 4)
    assert torch.equal(pixels(first.train), pixels(again.train))
    assert torch.equal(truth(first.parts()["test"]), truth(again.parts()["test"]))
    assert not torch.equal(pixels(first.train), pixels(other.train))


def test_digits_grid_composes_each_split_from_its_own_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    from lopsided.data import digits_grid as module

    pools: list[np.ndarray] = []
    compose = module._compose

    def spy(digits: np.ndarray, *rest: object) -> object:
        pools.append(digits.reshape(len(digits), -1))
        return compose(digits, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_compose", spy)
    digits_grid(5, 5, 5)
    assert sum(len(pool) for pool in pools) == 1797
    sets = [{digit.tobytes() for digit in pool} for pool in pools]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]


def test_hidden_positives_are_hidden_in_training_only() -> None:
    complete = digits_grid(2000, 50, 50)
    hidden = complete.hide_positives(0.4, seed=1)
    left, all_of_them = truth(hidden.train), truth(complete.train)
    assert 0.57 < left.sum() / all_of_them.sum() < 0.63
    assert not (left & ~all_of_them).any()
    assert hidden.valid is complete.valid
    assert hidden.test is complete.test


def test_what_is_unknown_stays_so_where_positives_are_hidden() -> None:
    values = torch.where(torch.arange(2000) % 2 == 0, torch.nan, 1.0)
    targets = SparseTargets(torch.arange(2001), torch.zeros(2000, dtype=torch.long), values, 2)
    train = Dataset(Texts(("",) * 2000), targets, ("a", "b"))
    left = Splits(train, None, None).hide_positives(0.5, seed=0).train.targets
    assert left.values is not None
    assert left.values.isnan().sum() == 1000
    assert 400 < (left.values == 1).sum() < 600
    assert left.crow[1::2].diff().min() >= 1, "each second row is unknown"
