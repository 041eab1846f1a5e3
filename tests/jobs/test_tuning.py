"""The rows that thresholds are tuned on have chosen nothing else, where there are enough."""

from dataclasses import replace

import pytest
import torch

from lopsided.data.dataset import Dataset, Splits, Unsplit
from lopsided.data.inputs import Texts
from lopsided.jobs.tuning import tuned_on, with_tuning
from lopsided.targets import SparseTargets


def rows_of(number: int, copies: int = 1) -> Dataset:
    """Rows with one of two labels each, every text as often as is said."""
    texts = tuple(f"text {row // copies}" for row in range(number))
    return Dataset(Texts(texts), SparseTargets.from_indices([[row % 2] for row in range(number)]), ("a", "b"))


def parts(valid: Dataset | None) -> Splits:
    unsplit = Unsplit(rows_of(300), torch.arange(100), torch.arange(100, 300))
    return Splits(rows_of(100), valid, None, unsplit=unsplit)


@pytest.mark.parametrize("copies", [1, 3])
def test_a_half_of_many_validation_rows_is_kept_for_thresholds(copies: int) -> None:
    whole = parts(rows_of(300, copies))
    halved = with_tuning(whole, refit=False, seed=0)
    assert halved.valid is not None
    assert halved.tuning is not None
    assert not halved.folds
    assert len(halved.valid) + len(halved.tuning) == 300
    assert halved.tuning.label_counts().tolist() == pytest.approx([75, 75], abs=2)
    assert halved.sizes() == {"train": 100, "valid": 300}
    assert not {*halved.valid.inputs.keys()} & {*halved.tuning.inputs.keys()}, "copies stay together"
    assert tuned_on(halved) == f"{len(halved.tuning)} validation rows that chose nothing else"


@pytest.mark.parametrize("valid", [rows_of(198), rows_of(300, copies=300)])
def test_few_rows_and_copies_of_one_do_both(valid: Dataset) -> None:
    whole = with_tuning(parts(valid), refit=False, seed=0)
    assert whole.valid is whole.tuning is valid
    assert "too few" in tuned_on(whole)


def test_what_is_solved_again_has_folds_of_all_its_rows() -> None:
    solved = with_tuning(parts(rows_of(300)), refit=True, seed=0)
    assert solved.sizes() == {"train": 100, "valid": 300}, "all of the latter choose the penalty"
    assert torch.cat(solved.folds).sort().values.tolist() == list(range(300))
    assert tuned_on(solved).startswith("the 300 rows of training and validation")


def test_what_is_not_solved_again_has_none() -> None:
    """As where validation rows are a file of their own, or positives of training are hidden."""
    halved = with_tuning(replace(parts(rows_of(300)), unsplit=None), refit=True, seed=0)
    assert not halved.folds
    assert halved.tuning is not halved.valid
    assert with_tuning(parts(None), refit=True, seed=0).tuning is None
