"""Makes targets of a matrix with a value for each row and label, and bounds how wide one may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lopsided.data.storage import UserError
from lopsided.targets import SparseTargets

_CELLS = 2**24  # looked at at once
_ALWAYS_TAKEN, _LABELS_AN_ENTRY = 2**20, 100  # labels; beyond, only so many for each that stands in a row


def targets_of_matrix(values: np.ndarray) -> SparseTargets:
    """Makes targets of (rows, labels) values in [0, 1], NaN where unknown; all that is not 0 is listed.

    The matrix may be memory-mapped: it is read in parts. Raises ValueError for other values, with row and column.

    >>> targets = targets_of_matrix(np.array([[0, 1], [np.nan, 0.5]]))
    >>> targets.col.tolist(), targets.values.tolist()
    ([1, 0, 1], [1.0, nan, 0.5])
    """
    rows, labels = values.shape
    lengths = np.zeros(rows + 1, dtype=np.int64)
    columns, listed = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    step = max(1, _CELLS // max(labels, 1))
    for start in range(0, rows, step):
        part = values[start : start + step]
        row, column = part.nonzero()
        chosen = part[row, column].astype(np.float32)
        outside = (chosen < 0) | (chosen > 1)
        if outside.any():
            place = int(outside.argmax())
            where = f"row {start + row[place] + 1}, column {column[place] + 1}"
            raise ValueError(f"{where}: expected 0, 1, a value between or NaN, got {chosen[place]:g}")
        lengths[start + 1 : start + 1 + len(part)] = np.bincount(row, minlength=len(part))
        columns.append(column.astype(np.int64))
        listed.append(chosen)
    all_listed = np.concatenate(listed)
    soft = None if (all_listed == 1).all() else torch.from_numpy(all_listed)
    return SparseTargets(torch.from_numpy(lengths.cumsum()), torch.from_numpy(np.concatenate(columns)), soft, labels)


def refuse_gaps(path: Path, num_labels: int, listed: np.ndarray, by: str) -> None:
    """Raises UserError if hardly any of the labels occurs, since a model has numbers for each.

    listed: the label of each entry. by: what says how many labels there are.
    """
    if num_labels > max(_ALWAYS_TAKEN, _LABELS_AN_ENTRY * len(listed)):
        raise UserError(
            f"{path}: {num_labels} labels by {by}, but the rows have {len(np.unique(listed))} different ones; a model "
            "needs memory for each: number them without gaps"
        )
