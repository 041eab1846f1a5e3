"""Describes pairs of entities by numbers: hashes of their words and types, and of the words between and about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from lopsided.data.inputs import SparseFeatures
from lopsided.data.pairs import Document, Pairs

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Group = tuple[Ints, Hashes]  # the rows of features of one kind, and their hashes

_NEAR = 40  # words between two mentions, up to which those words say something
_KEPT = 8  # of the words between, so many after the first mention and before the second one
_BLANK = 2  # words that are added on either side of a document


@dataclass(frozen=True)
class _Words:
    """Holds the words of a document as hashes, and its mentions, in the order of their entities.

    words: (tokens + 4,). start, stop, owner: (mentions,), places in `words`, and the entity. first, count: (entities,),
    the first mention of each and how many there are. types: (entities,).
    """

    words: Hashes
    start: Ints
    stop: Ints
    owner: Ints
    first: Ints
    count: Ints
    types: Hashes

    @classmethod
    def of(cls, document: Document) -> _Words:
        spans = np.array([span for mentions in document.mentions for span in mentions], dtype=np.int64) + _BLANK
        count = np.array([len(mentions) for mentions in document.mentions], dtype=np.int64)
        blank = [0] * _BLANK
        words = np.array([*blank, *(_hash(token.lower()) for token in document.tokens), *blank], dtype=np.uint64)
        types = np.array([_hash(each) for each in document.types], dtype=np.uint64)
        owner = np.repeat(np.arange(len(count)), count)
        return cls(words, spans[:, 0], spans[:, 1], owner, count.cumsum() - count, count, types)

    def nearest(self) -> tuple[Ints, Ints, Ints]:
        """Returns, (entities, entities) each, the mentions of a head and a tail with the fewest words between them."""
        size, each = len(self.start), np.arange(len(self.start))
        gap = np.maximum(self.start[None] - self.stop[:, None], self.start[:, None] - self.stop[None]).clip(0)
        key = (gap * size + each[:, None]) * size + each  # the smallest key has the smallest gap
        key = np.minimum.reduceat(np.minimum.reduceat(key, self.first, axis=0), self.first, axis=1)
        return key // size % size, key % size, key // size // size


def pair_features(pairs: Pairs, buckets: int) -> SparseFeatures:
    """Returns the features of each pair, hashed into so many buckets; each kind of features has unit length.

    >>> words = Document("", ("Ada", "lives", "in", "Rome"), (((0, 1),), ((3, 4),)), ("PER", "LOC"))
    >>> len(pair_features(Pairs((words,), torch.tensor([[0, 0, 1], [0, 1, 0]])), 2**18))
    2
    """
    order = pairs.pairs[:, 0].argsort(stable=True)
    lengths: list[Ints] = [np.zeros(1, dtype=np.int64)]
    buckets_of, values = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.float32)]
    numbers, counts = pairs.pairs[order, 0].unique_consecutive(return_counts=True)
    for number, part in zip(numbers.tolist(), pairs.pairs[order].split(counts.tolist()), strict=True):
        groups = [*_features(_Words.of(pairs.documents[number]), part[:, 1].numpy(), part[:, 2].numpy())]
        row, hashes, weights = _joined(groups, len(part))
        lengths.append(np.bincount(row, minlength=len(part)))
        buckets_of.append((hashes % np.uint64(buckets)).astype(np.int64))
        values.append(weights)
    arrays = (np.concatenate(lengths).cumsum(), np.concatenate(buckets_of), np.concatenate(values))
    indptr, indices, weight = (torch.from_numpy(array) for array in arrays)
    return SparseFeatures(indptr, indices, weight, buckets, declared=True).take(order.argsort())


def _joined(groups: list[Group], rows: int) -> tuple[Ints, Hashes, NDArray[np.float32]]:
    """Puts groups together, ordered by rows; the features of a row that are of one group share its weight."""
    weights = [np.bincount(row, minlength=rows)[row] ** -0.5 for row, _ in groups]
    row, hashes, weight = (np.concatenate(each) for each in (*zip(*groups, strict=True), weights))
    order = row.argsort(kind="stable")
    return row[order], hashes[order], weight[order].astype(np.float32)


def _features(at: _Words, head: Ints, tail: Ints) -> Iterator[Group]:
    """Yields all features of pairs of one document: head and tail are (n,) numbers of entities."""
    yield from _of_entity(at, head, tail, 10)
    yield from _of_entity(at, tail, head, 20)
    yield from _of_both(at, head, tail)


def _of_entity(at: _Words, entity: Ints, other: Ints, kind: int) -> Iterator[Group]:
    """Yields features of the head, or of the tail: words of its mentions, words beside them, and where it stands."""
    rows, types = np.arange(len(entity)), _mix(0, at.types[entity], at.types[other])
    mention_row, mention = _ranges(at.first[entity], at.first[entity] + at.count[entity])
    row, place = _ranges(at.start[mention], at.stop[mention])
    row, names = _distinct(mention_row[row], at.words[place])
    yield row, _mix(kind, names)
    yield row, _mix(kind + 1, names, at.types[other][row])
    yield mention_row, _mix(kind + 2, at.words[at.start[mention] - 1])
    yield mention_row, _mix(kind + 3, at.words[at.stop[mention]])
    seen_first = np.minimum.reduceat(at.start, at.first)
    rank = seen_first.argsort(kind="stable").argsort()[entity]
    yield rows, _mix(kind + 4, np.minimum(at.count[entity], 4), rank == 0, at.types[entity])
    yield rows, _mix(kind + 5, np.minimum(rank, 6), types)


def _of_both(at: _Words, head: Ints, tail: Ints) -> Iterator[Group]:
    """Yields features of the two mentions that are nearest to each other, and of the words between and about them."""
    of_head, of_tail, gap = (each[head, tail] for each in at.nearest())
    rows, types = np.arange(len(head)), _mix(0, at.types[head], at.types[tail])
    forward = at.start[of_head] <= at.start[of_tail]
    left, right = np.where(forward, of_head, of_tail), np.where(forward, of_tail, of_head)
    distance = np.minimum(np.log2(gap + 1).astype(np.int64), 7)
    yield rows, types
    yield rows, _mix(30, distance, forward)
    yield rows, _mix(31, distance, forward, types)
    begin, end = at.stop[left], np.where(gap < _NEAR, at.start[right], 0)
    row, place = _ends(begin, end)
    word, after, direction = at.words[place], at.words[place + 1], forward[row]
    yield row, _mix(32, word, direction)
    yield row, _mix(33, word, types[row], direction)
    yield row, _mix(34, word, after, direction)
    about = (at.start[left] - 2, at.start[left] - 1, begin, at.start[right] - 1, at.stop[right], at.stop[right] + 1)
    for side, places in enumerate(about):
        yield rows, _mix(40 + side, at.words[places], forward, types)
    yield rows, _mix(50, at.words[begin], at.words[at.start[right] - 1], forward, distance)


def _ranges(start: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """Returns the numbers of all ranges, one after the other, and before them the range that each belongs to."""
    length = np.maximum(stop - start, 0)
    row = np.repeat(np.arange(len(length)), length)
    return row, np.arange(len(row)) + np.repeat(start - length.cumsum() + length, length)


def _ends(start: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """Returns the same for the first and the last numbers of each range alone."""
    from_last = np.maximum(start + _KEPT, stop - _KEPT)
    row, number = _ranges(np.concatenate([start, from_last]), np.concatenate([np.minimum(stop, start + _KEPT), stop]))
    return row % len(start), number


def _distinct(row: Ints, hashes: Hashes) -> tuple[Ints, Hashes]:
    """Returns each hash once a row."""
    order = np.lexsort((hashes, row))
    row, hashes = row[order], hashes[order]
    new = np.ones(len(row), dtype=bool)
    new[1:] = (row[1:] != row[:-1]) | (hashes[1:] != hashes[:-1])
    return row[new], hashes[new]


def _mix(kind: int, *parts: NDArray[np.generic]) -> Hashes:
    """Hashes numbers of a kind of feature; products wrap around."""
    mixed: Hashes = np.full(np.broadcast(*parts).shape, 0x1F123BB5 * (kind + 1), dtype=np.uint64)
    for part in parts:
        mixed = (mixed ^ part.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


@lru_cache(maxsize=2**18)
def _hash(word: str) -> int:
    return crc32(word.encode("utf-8", "surrogatepass"))
