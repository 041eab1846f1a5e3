"""Makes `digits-grid`: real images that need no download, with the proportions of MS-COCO.

A canvas is a 3x3 grid of cells; a few cells hold a handwritten digit of the set that scikit-learn ships, jittered,
dimmed and on a noisy ground. The 90 labels are "digit d in cell c"; an image has 2.9 of them on average, some none.
Every cell has digits that are often there and others that are rare, so that labels have a long tail.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from lopsided.data.dataset import Dataset, Splits
from lopsided.data.inputs import Images
from lopsided.data.matrices import targets_of_matrix

CELLS = tuple(f"{row} {column}" for row in ("top", "middle", "bottom") for column in ("left", "centre", "right"))
LABELS = tuple(f"{digit} {cell}" for cell in CELLS for digit in range(10))

_CELL_PIXELS = 12
_DIGIT_PIXELS = 8
_FILLED = 0.32  # chance that a cell holds a digit: 2.88 labels per image


def digits_grid(train: int, valid: int, test: int, seed: int = 0, imbalance: float = 1.0) -> Splits:
    """Composes the three splits, each from its own digits: no handwritten digit is seen in two of them.

    train, valid, test: number of images. Images are uint8 (rows, 1, 36, 36).
    imbalance: how many times more often a cell holds its most frequent digit than its rarest, those between in
    geometric steps, as in the long-tailed CIFAR of Cui et al. (arXiv 1901.05555). Which digit is frequent depends on
    the cell, so that all ten digits are equally hard.

    >>> counts = digits_grid(train=3000, valid=1, test=1, imbalance=30).train.label_counts()
    >>> int(counts.min()), int(counts.max())
    (6, 346)
    """
    digits = load_digits()
    indices = np.arange(len(digits.target))
    fit, rest = train_test_split(indices, test_size=0.4, random_state=seed, stratify=digits.target)
    select, final = train_test_split(rest, test_size=0.5, random_state=seed, stratify=digits.target[rest])
    parts = [
        _compose(digits.images[source], digits.target[source], rows, imbalance, np.random.default_rng((seed, number)))
        for number, (source, rows) in enumerate(((fit, train), (select, valid), (final, test)))
    ]
    return Splits(parts[0], parts[1], parts[2])


def _compose(
    digits: np.ndarray, classes: np.ndarray, rows: int, imbalance: float, random: np.random.Generator
) -> Dataset:
    cells = len(CELLS)
    filled = random.random((rows, cells)) < _FILLED
    source = _sources(classes, rows, imbalance, random)
    canvas = random.normal(0, 0.08, (rows, cells, _CELL_PIXELS, _CELL_PIXELS))
    contrast = random.uniform(0.4, 1.0, (rows, cells))
    corner = random.integers(_CELL_PIXELS - _DIGIT_PIXELS + 1, size=(2, rows, cells))
    span = np.arange(_DIGIT_PIXELS)
    row, cell = np.nonzero(filled)
    height, width = (corner[axis, row, cell][:, None] + span for axis in (0, 1))
    digit = digits[source[row, cell]] / 16 * contrast[row, cell][:, None, None]
    canvas[row[:, None, None], cell[:, None, None], height[:, :, None], width[:, None, :]] += digit

    side = int(cells**0.5)
    images = canvas.reshape(rows, side, side, _CELL_PIXELS, _CELL_PIXELS).swapaxes(2, 3)
    images = images.reshape(rows, 1, side * _CELL_PIXELS, side * _CELL_PIXELS)
    targets = np.zeros((rows, cells, 10), dtype=bool)
    targets[row, cell, classes[source[row, cell]]] = True
    pixels = torch.from_numpy((images.clip(0, 1) * 255).astype(np.uint8))
    return Dataset(Images(pixels), targets_of_matrix(targets.reshape(rows, len(LABELS))), LABELS)


def _sources(classes: np.ndarray, rows: int, imbalance: float, random: np.random.Generator) -> np.ndarray:
    """Draws the digit of every cell, (rows, cells): its class, by the shares of the cell, then one of the class."""
    shares = imbalance ** -(np.arange(10) / 9)
    steps = (shares / shares.sum()).cumsum()
    rank = np.minimum(np.searchsorted(steps, random.random((rows, len(CELLS)))), 9)
    drawn = (rank + np.arange(len(CELLS))) % 10
    by_class = [np.flatnonzero(classes == digit) for digit in range(10)]
    sizes = np.array([len(members) for members in by_class])
    first = np.concatenate([[0], sizes.cumsum()[:-1]])
    return np.concatenate(by_class)[first[drawn] + random.integers(sizes[drawn])]
