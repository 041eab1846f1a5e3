"""Holds encoded rows, and says how many of their scores can be held."""

from __future__ import annotations

from dataclasses import dataclass

from lopsided.data.dataset import Dataset
from lopsided.models.encoder import Encoded

CANDIDATES = 100  # scores of a row that are held where all of them would be too many
_SCORES = 2**27  # the most that are held of a data set: 512 MiB


@dataclass(frozen=True)
class Rows:
    """Holds rows with what a body takes of them."""

    encoded: Encoded
    data: Dataset

    def __len__(self) -> int:
        return len(self.data)

    @property
    def keep(self) -> int | None:
        """Returns how many scores of a row are held: None for those of all labels."""
        return scores_to_keep(len(self.data), self.data.num_labels)


def scores_to_keep(rows: int, num_labels: int) -> int | None:
    """Returns how many scores of a row are held: None for those of all labels."""
    return None if rows * num_labels <= _SCORES else CANDIDATES
