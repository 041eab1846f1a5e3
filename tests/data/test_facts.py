"""Ign-F1 is what one gets by counting relations one at a time."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lopsided.data.dataset import Dataset
from lopsided.data.facts import seen_facts
from lopsided.data.inputs import Texts
from lopsided.data.pairs import Pairs
from lopsided.data.readers import aligned, read
from lopsided.metrics.counts import Counts
from lopsided.metrics.relations import ign_f1
from tests.relations import Submission, make_documents, official


def read_both(folder: Path, train: list[dict], test: list[dict]) -> tuple[Dataset, Dataset]:  # type: ignore[type-arg]
    for name, documents in (("train", train), ("test", test)):
        (folder / f"{name}.json").write_text(json.dumps(documents))
    one, other = aligned([read(folder / f"{name}.json") for name in ("train", "test")])
    return one, other


@pytest.mark.parametrize("seed", range(4))
def test_ign_f1_is_that_of_a_count_by_hand(tmp_path: Path, seed: int) -> None:
    train, test = make_documents(12, seed), make_documents(8, 100 + seed)
    of_train, of_test = read_both(tmp_path, train, test)
    assert isinstance(of_test.inputs, Pairs)
    seen = seen_facts(of_train, of_test)
    assert 0 < seen.sum() < len(seen)
    true = list(zip(of_test.targets.row.tolist(), of_test.targets.col.tolist(), strict=True))
    draw = random.Random(seed)
    said = {one for one in true if draw.random() < 0.7}
    said |= {(draw.randrange(len(of_test)), draw.randrange(2)) for _ in range(20)}
    hits = said & {*true}
    again = sum(one in hits for one, known in zip(true, seen.tolist(), strict=True) if known)
    submission: Submission = {
        (*of_test.inputs.pairs[row].tolist(), of_test.label_names[column]) for row, column in said
    }
    counts = Counts(len(hits), len(said), len(true))
    assert (counts.f_beta(), ign_f1(counts, again)) == pytest.approx(official(train, test, submission), abs=1e-12)


def test_without_hits_it_is_0() -> None:
    assert ign_f1(Counts(torch.tensor([0, 2]), torch.tensor([0, 2]), torch.tensor([3, 3])), 0).tolist()[0] == 0
    assert ign_f1(Counts(2, 2, 3), 2) == 0, "all that is left out"


def test_facts_are_of_pairs_with_the_same_labels(tmp_path: Path) -> None:
    one, other = read_both(tmp_path, make_documents(2, 0), make_documents(2, 1))
    with pytest.raises(ValueError, match="aligned"):
        seen_facts(replace(one, label_names=("P2", "P1")), other)
    with pytest.raises(TypeError, match="kind 'text'"):
        seen_facts(replace(one, inputs=Texts(("",) * len(one))), other)
