"""Tells which relations of test documents the training documents state already, in the same words."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lopsided.data.dataset import Dataset
from lopsided.data.pairs import Document, Pairs


def seen_facts(train: Dataset, test: Dataset) -> Tensor:
    """Returns (positives,) bool, one for each entry of `test.targets`: whether training states that fact.

    A fact is a relation of two names. It is stated where any mention of the head and any of the tail have these names
    in some training document. The labels of both must be the same, in one order, as `lopsided.data.readers.aligned`
    makes them.

    Source: the official scorer of DocRED (Yao et al., arXiv 1906.06127), for Ign-F1. It reads a mention's field `name`;
    here the words of the mention are its name. In Re-DocRED that gives the same for all relations of the test file.

    Raises TypeError for rows that are no pairs of entities, ValueError for other labels.
    """
    if list(train.label_names) != list(test.label_names):
        raise ValueError("training and test rows must have the same labels: call lopsided.data.readers.aligned on both")
    stated = {fact for facts in _facts(train) for fact in facts}
    return torch.tensor([not stated.isdisjoint(facts) for facts in _facts(test)], dtype=torch.bool)


Fact = tuple[str, str, int]  # names of head and tail, and the relation


def _facts(data: Dataset) -> Iterator[set[Fact]]:
    """Yields the facts that each positive states: a relation of every name of its head with every name of its tail."""
    if not isinstance(data.inputs, Pairs):
        raise TypeError(f"facts are of pairs of entities, got rows of kind {data.inputs.kind!r}")
    pairs = data.inputs.pairs[data.targets.row].tolist()
    for (number, head, tail), relation in zip(pairs, data.targets.col.tolist(), strict=True):
        document = data.inputs.documents[number]
        heads, tails = _names(document, head), _names(document, tail)
        yield {(one, other, relation) for one in heads for other in tails}


def _names(document: Document, entity: int) -> set[str]:
    return {" ".join(document.tokens[start:stop]) for start, stop in document.mentions[entity]}
