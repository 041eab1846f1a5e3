"""Ign-F1, by which relations between entities of documents are judged beside F1."""

from __future__ import annotations

from typing import Any

from lopsided.metrics.counts import Counts, quotient


def ign_f1(counts: Counts, seen: Any) -> Any:
    """Computes Ign-F1: precision leaves out the hits that training states as a fact, recall does not.

    counts: relations predicted rightly, predicted, and true, of all pairs. seen: how many of those predicted rightly
    stand in the training documents, see `lopsided.data.facts.seen_facts`. Numbers, or arrays of one shape.

    Source: Yao et al., arXiv 1906.06127, section 5, and its official scorer, which is the same but for 0 / 0: here 0.

    >>> ign_f1(Counts(hits=6, predicted=10, positives=12), seen=2)  # precision 4 / 8, recall 6 / 12
    0.5
    """
    precision, recall = quotient(counts.hits - seen, counts.predicted - seen), counts.recall()
    return quotient(2 * precision * recall, precision + recall)
