"""Where the positives of sorted lists stand: all that average precision, AUROC and the metrics of rankings need.

A list is a label, of all rows; or a row, of all labels; or all labels of all rows at once. Items of equal score have
no order: a positive is known by how many items score more than it, and how many at least as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class ListRanks:
    """The P positives of S lists of `length` items, one number or (S,), list by list and by falling score."""

    length: int | Array
    positives: Array  # (S,) int64, how many each list has
    list: Array  # (P,) int64, the list of each
    above: Array  # (P,) int64, items of its list that score more
    upto: Array  # (P,) int64, items that score at least as much, itself included
    better: Array  # (P,) int64, positives that score more
    hits: Array  # (P,) int64, positives that score at least as much

    def sum(self, values: Array) -> Array:
        """Maps (P,) to (S,) float64, added up over the positives of each list."""
        return np.bincount(self.list, weights=values, minlength=len(self.positives))

    def average_precision(self) -> Array:
        """Returns (S,) float64, NaN without positives: the mean over the positives of the precision at their score."""
        return average_precision(self.list, self.hits / self.upto, len(self.positives))

    def auroc(self) -> Array:
        """Returns (S,) float64, NaN without positives or negatives: the share of pairs in order, ties by half."""
        disordered = self.sum((self.above - self.better + self.upto - self.hits) / 2)
        return 1 - ratio(disordered, self.positives * (self.length - self.positives))

    def ranking_loss(self) -> Array:
        """Returns (S,) float64, the share of pairs that are not in order, ties included; 0 without pairs."""
        disordered = self.sum((self.upto - self.hits).astype(np.float64))
        return np.nan_to_num(ratio(disordered, self.positives * (self.length - self.positives)))

    def coverage(self) -> Array:
        """Returns (S,) int64, how far down all positives are found; 0 without any."""
        depth = np.zeros(len(self.positives), np.int64)
        np.maximum.at(depth, self.list, self.upto)
        return depth

    def gain(self, discounts: Array) -> Array:
        """Returns (S,) float64, the discounts of the places of the positives, added up; the mean over orders of ties.

        discounts: (k,) of the first places; those further down count nothing.
        """
        total = np.concatenate([[0.0], discounts.cumsum()])
        within = total[self.upto.clip(max=len(discounts))] - total[self.above.clip(max=len(discounts))]
        return self.sum(within / (self.upto - self.above))


def average_precision(lists: Array, precision: Array, count: int, weights: Array | None = None) -> Array:
    """Maps (P,) lists of positives, precision at their scores and weights to (count,), the mean of each list.

    NaN for a list without positives. Items of equal score enter together, as scikit-learn has it.
    """
    total = np.bincount(lists, weights=precision if weights is None else precision * weights, minlength=count)
    return ratio(total, np.bincount(lists, weights=weights, minlength=count))


def ratio(numerator: Array, denominator: Array) -> Array:
    """Divides in float64; NaN where the denominator is 0."""
    result: Array = np.where(denominator == 0, np.nan, numerator / np.where(denominator == 0, 1, denominator))
    return result


def one_list(keys: Array, true_keys: Array, length: int, positives: int) -> ListRanks:
    """Returns a single list. keys: sorted scores with their sign turned; true_keys: those of the positives, sorted."""
    zero = np.zeros(len(true_keys), np.int64)
    return _with_unstored(_located(keys, true_keys, zero, zero, zero, length, 1), np.array([positives]), len(keys))


def dense_lists(scores: Array, lists: Array, items: Array) -> ListRanks:
    """Makes ranks from (S, N) scores, a list each, whose positives are at (lists, items)."""
    keys = list_keys(scores, np.arange(len(scores))[:, None])
    true_keys = np.sort(keys[lists, items])
    keys.sort(axis=1)
    return sorted_lists(keys.reshape(-1), true_keys, *scores.shape)


def stored_lists(lists: Array, scores: Array, true: Array, length: int | Array, positives: Array) -> ListRanks:
    """Makes ranks of lists of which (E,) items are stored, the others equal and below. positives: (S,), all of them."""
    keys = list_keys(scores, lists)
    true_keys = np.sort(keys[true])
    keys.sort()
    ranks = sorted_lists(keys, true_keys, len(positives), length)
    return _with_unstored(ranks, positives, np.bincount(lists, minlength=len(positives)))


def sorted_lists(keys: Array, true_keys: Array, lists: int, length: int | Array) -> ListRanks:
    """Makes ranks from the sorted keys of `list_keys`."""
    numbers = np.arange(lists) << 32
    of = true_keys >> 32
    start, first = keys.searchsorted(numbers)[of], true_keys.searchsorted(numbers)[of]
    return _located(keys, true_keys, of, start, first, length, lists)


def list_keys(scores: Array, lists: Array) -> Array:
    """Returns int64 that order items by list and falling score, equal where both are. Scores float32 or float64."""
    if scores.dtype == np.float64:
        rising = np.unique(scores, return_inverse=True)[1].reshape(scores.shape)
        return (lists << 32) + (scores.size - rising)
    return (lists << 32) + ((~ordered(scores)).astype(np.int64) + (1 << 31))


def ordered(scores: Array) -> Array:
    """Maps float32 to int32 in the same order, equal where the scores are."""
    bits = (scores + np.float32(0)).view(np.int32)  # + 0 makes -0 and 0 one
    rising: Array = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))  # the bits of negative floats rise as they fall
    return rising


def _located(
    keys: Array, true_keys: Array, of: Array, start: Array, first: Array, length: int | Array, lists: int
) -> ListRanks:
    """Finds the positives among the keys. of: the list of each; start, first: where it starts in keys and true_keys."""
    return ListRanks(
        length,
        np.bincount(of, minlength=lists),
        of,
        above=keys.searchsorted(true_keys, "left") - start,
        upto=keys.searchsorted(true_keys, "right") - start,
        better=true_keys.searchsorted(true_keys, "left") - first,
        hits=true_keys.searchsorted(true_keys, "right") - first,
    )


def _with_unstored(ranks: ListRanks, positives: Array, stored: Array | int) -> ListRanks:
    """Returns the same with the positives that are not stored, all equal and at the end of their list."""
    absent = positives - ranks.positives
    if not absent.any():
        return ranks
    of = np.repeat(np.arange(len(positives)), absent)
    above, better = np.broadcast_to(stored, positives.shape)[of], ranks.positives[of]
    return ListRanks(
        ranks.length,
        positives,
        np.concatenate([ranks.list, of]),
        np.concatenate([ranks.above, above]),
        np.concatenate([ranks.upto, np.broadcast_to(ranks.length, positives.shape)[of]]),
        np.concatenate([ranks.better, better]),
        np.concatenate([ranks.hits, positives[of]]),
    )
