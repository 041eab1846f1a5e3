"""Made data of any size in the extreme-classification repository's format, with a long tail of labels to be learnt.

Every label owns a few features, chosen at random. A row draws its labels with a frequency that falls with their rank r
as 1 / (r + 10), so that most labels are rare; it has most features of its labels, each with a random value, and noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lopsided.files import write_atomically

_OWNED = 5  # features of a label
_KEPT = 0.8  # chance that a row has one of them
_NOISE = 5  # mean number of other features in a row
_EXTRA_LABELS = 2  # mean number of labels in a row beyond the first
_SHIFT = 10  # of the ranks, without which the first label would be in every fourth row
_BLOCK = 4096  # rows made at once


@dataclass(frozen=True)
class XmcMaker:
    """The planted structure, the same for training and test; memory is a few dozen bytes per label.

    >>> train = XmcMaker(labels=50, features=100, seed=0).lines(rows=2, part=0)
    >>> next(train)
    '2 100 50'
    >>> labels, *features = next(train).split(" ")
    """

    labels: int
    features: int
    seed: int = 0

    def lines(self, rows: int, part: int) -> Iterator[str]:
        """The header, then a line per row; `part` tells training (0) from test (1)."""
        random = np.random.default_rng((self.seed, 0))
        owned = random.integers(self.features, size=(self.labels, _OWNED))
        by_rank = random.permutation(self.labels)
        share = (1 / (np.arange(self.labels) + 1 + _SHIFT)).cumsum()
        share /= share[-1]
        yield f"{rows} {self.features} {self.labels}"
        random = np.random.default_rng((self.seed, 1 + part))
        for start in range(0, rows, _BLOCK):
            block = min(_BLOCK, rows - start)
            row = np.repeat(np.arange(block), 1 + random.poisson(_EXTRA_LABELS, block))
            label_row, label = _unique(row, by_rank[np.searchsorted(share, random.random(len(row)))], self.labels)
            kept = random.random((len(label), _OWNED)) < _KEPT
            noise_row = np.repeat(np.arange(block), random.poisson(_NOISE, block))
            noise = random.integers(self.features, size=len(noise_row))
            mixed_row = np.concatenate([np.repeat(label_row, kept.sum(1)), noise_row])
            feature_row, feature = _unique(mixed_row, np.concatenate([owned[label][kept], noise]), self.features)
            value = random.uniform(0.5, 1.5, len(feature))
            listed = [f"{number}:{size:.3f}" for number, size in zip(feature.tolist(), value.tolist(), strict=True)]
            first_label, first_feature = (
                np.searchsorted(of, np.arange(block + 1)).tolist() for of in (label_row, feature_row)
            )
            names = label.astype(str).tolist()
            for i in range(block):
                labels = ",".join(names[first_label[i] : first_label[i + 1]])
                yield " ".join([labels, *listed[first_feature[i] : first_feature[i + 1]]])


def _unique(row: np.ndarray, number: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a row and a number below the limit, sorted, each once."""
    pairs = np.unique(row * limit + number)
    return pairs // limit, pairs % limit


def make_xmc(
    folder: Path, maker: XmcMaker, rows: int, test_rows: int, on_row: Callable[[], None] = lambda: None
) -> None:
    """Write `folder`/train.txt and `folder`/test.txt, line by line; `on_row` is called after every row."""
    for part, (name, number) in enumerate({"train.txt": rows, "test.txt": test_rows}.items()):
        lines = maker.lines(number, part)

        def write(file: BinaryIO, lines: Iterator[str] = lines) -> None:
            for line in lines:
                file.write(line.encode() + b"\n")
                on_row()

        write_atomically(folder / name, write)
