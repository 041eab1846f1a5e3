"""Makes data of any size in the extreme-classification repository's format, with a long tail of labels.

Every label owns a few features, chosen at random. A row draws its labels with a frequency that falls with their rank r
as 1 / (r + 10), so that most labels are rare; it has most features of its labels, each with a random value, and noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lopsided.data.storage import write_atomically

_OWNED = 5  # features of a label
_SHARE_OWNED = 0.8  # chance that a row of the label has one of them
_NOISE = 5  # mean number of other features in a row
_EXTRA_LABELS = 2  # mean number of labels in a row beyond the first
_SHIFT = 10  # added to the ranks, or the first label would be in every fourth row
_BLOCK = 4096  # rows made at once


@dataclass(frozen=True)
class XmcMaker:
    """Holds the planted structure, the same for training and test.

    >>> blocks = XmcMaker(labels=50, features=100, seed=0).blocks(rows=2, part=0)
    >>> next(blocks)
    ['2 100 50']
    >>> len(next(blocks))
    2
    """

    labels: int
    features: int
    seed: int = 0

    def blocks(self, rows: int, part: int) -> Iterator[list[str]]:
        """Yields the header, then the rows, some thousand at a time; `part` tells training (0) from test (1)."""
        random = np.random.default_rng((self.seed, 0))
        owned = random.integers(self.features, size=(self.labels, _OWNED))
        by_rank = random.permutation(self.labels)
        share = (1 / (np.arange(self.labels) + 1 + _SHIFT)).cumsum()
        yield [f"{rows} {self.features} {self.labels}"]
        random = np.random.default_rng((self.seed, 1 + part))
        for start in range(0, rows, _BLOCK):
            number = min(_BLOCK, rows - start)
            row = np.repeat(np.arange(number), 1 + random.poisson(_EXTRA_LABELS, number))
            drawn = by_rank[np.searchsorted(share, random.random(len(row)) * share[-1])]
            label_row, label = _unique(row, drawn, self.labels)
            present = random.random((len(label), _OWNED)) < _SHARE_OWNED
            noise_row = np.repeat(np.arange(number), random.poisson(_NOISE, number))
            noise = random.integers(self.features, size=len(noise_row))
            mixed_row = np.concatenate([np.repeat(label_row, present.sum(1)), noise_row])
            feature_row, feature = _unique(mixed_row, np.concatenate([owned[label][present], noise]), self.features)
            pairs = zip(feature.tolist(), random.uniform(0.5, 1.5, len(feature)).tolist(), strict=True)
            labels = _by_row([str(i) for i in label.tolist()], label_row, number)
            features = _by_row([f"{i}:{value:.3f}" for i, value in pairs], feature_row, number)
            yield [" ".join([",".join(of), *listed]) for of, listed in zip(labels, features, strict=True)]


def _unique(row: np.ndarray, number: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs of a row and a number below the limit, sorted, each once."""
    pairs = np.unique(row * limit + number)
    return pairs // limit, pairs % limit


def _by_row(texts: list[str], row: np.ndarray, number: int) -> list[list[str]]:
    """Joins the texts of each of so many rows, given the row of each text, rising."""
    first = np.searchsorted(row, np.arange(number + 1)).tolist()
    return [texts[start:stop] for start, stop in pairwise(first)]


def make_xmc(
    folder: Path, maker: XmcMaker, rows: int, test_rows: int, on_rows: Callable[[int], None] = lambda count: None
) -> None:
    """Writes `folder`/train.txt and `folder`/test.txt; `on_rows` is told of every block how many rows it has.

    Memory is a few dozen bytes for each label, however many rows there are.
    """
    for part, (name, number) in enumerate({"train.txt": rows, "test.txt": test_rows}.items()):

        def write(file: BinaryIO, part: int = part, number: int = number) -> None:
            for block in maker.blocks(number, part):
                file.write("".join(line + "\n" for line in block).encode())
                on_rows(len(block))

        write_atomically(folder / name, write)
