"""Ranges of labels, and the supervision of each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from lopsided.targets import Supervision


class LabelRanges:
    """`Supervision` of (B, L) logits, cut into ranges of `width` labels between `start` and `stop`.

    Iterating gives each range, counted from `start`, with the supervision of its labels. What is kept beside the labels
    themselves grows with their stored entries, never with rows times ranges.
    """

    def __init__(self, supervision: Supervision, shape: torch.Size, start: int, stop: int, width: int) -> None:
        self.supervision, self.shape, self.start, self.stop, self.width = supervision, shape, start, stop, width

    def __len__(self) -> int:
        return -(-(self.stop - self.start) // self.width)

    def __iter__(self) -> Iterator[tuple[slice, Supervision]]:
        sparse = None if self.supervision.crow is None else self._sparse()
        for low in range(self.start, self.stop, self.width):
            high = min(low + self.width, self.stop)

            def cut(tensor: Tensor | None, low: int = low, high: int = high) -> Tensor | None:
                return None if tensor is None else tensor[..., low:high]

            part = next(sparse) if sparse else self.supervision._replace(values=cut(self.supervision.values))
            mask, weight, pos_weight = cut(part.mask), cut(part.weight), cut(part.pos_weight)
            part = part._replace(mask=mask, weight=weight, pos_weight=pos_weight, num_labels=None)
            yield slice(low - self.start, high - self.start), part

    def _sparse(self) -> Iterator[Supervision]:
        """Yields the stored entries of each range, by row and label; of equal ones the last counts, and stays last."""
        supervision, rows = self.supervision, self.shape[0]
        assert supervision.crow is not None
        assert supervision.col is not None
        row = torch.repeat_interleave(supervision.crow.diff(), output_size=len(supervision.col))
        mine = ((supervision.col >= self.start) & (supervision.col < self.stop)).nonzero().squeeze(1)
        col, row = supervision.col[mine].long() - self.start, row[mine]
        owner = col // self.width
        order = ((owner * rows + row) * self.width + col % self.width).argsort(stable=True)
        mine, col, row = mine[order], (col % self.width)[order], row[order]
        starts = torch.arange(max(len(self), rows) + 1, device=row.device)
        # bincount would wait for the device, once for each range
        for first, last in pairwise(torch.searchsorted(owner[order], starts[: len(self) + 1]).tolist()):
            crow = torch.searchsorted(row[first:last], starts[: rows + 1])
            values = None if supervision.values is None else supervision.values[mine[first:last]]
            yield supervision._replace(values=values, crow=crow, col=col[first:last])

    def known(self) -> Tensor | None:
        """Returns (B,) how many labels of each row are known; None if all are."""
        supervision = self.supervision
        listed = supervision.crow is not None and supervision.values is None
        if supervision.mask is None and (supervision.all_known or listed):
            return None
        device = next(tensor.device for tensor in supervision.tensors if tensor is not None)
        total = torch.zeros(self.shape[0], dtype=torch.long, device=device)
        for place, part in self:
            known = part.known(torch.Size((self.shape[0], place.stop - place.start)))
            total += place.stop - place.start if known is None else known.sum(-1)
        return total
