"""The labels of a batch in parts: what a part must hear of the targets, and what an executor makes of its logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from lopsided.compute import blocks as streamed
from lopsided.compute.executor import Run
from lopsided.compute.native import run as native
from lopsided.compute.triton import run as triton
from lopsided.losses.formulas import Formula
from lopsided.losses.pools import Sum
from lopsided.targets import Supervision


class Parts:
    """`Supervision` of (B, L) logits, cut into ranges of `width` labels between `start` and `stop`.

    Iterating gives each range, counted from `start`, with what was said about it. What is kept beside the labels
    themselves grows with their stored entries, never with rows times ranges.
    """

    def __init__(self, labels: Supervision, shape: torch.Size, start: int, stop: int, width: int) -> None:
        self.labels, self.shape, self.start, self.stop, self.width = labels, shape, start, stop, width

    def __len__(self) -> int:
        return -(-(self.stop - self.start) // self.width)

    def __iter__(self) -> Iterator[tuple[slice, Supervision]]:
        sparse = None if self.labels.crow is None else self._sparse()
        for low in range(self.start, self.stop, self.width):
            high = min(low + self.width, self.stop)

            def cut(tensor: Tensor | None, low: int = low, high: int = high) -> Tensor | None:
                return None if tensor is None else tensor[..., low:high]

            labels = next(sparse) if sparse else self.labels._replace(values=cut(self.labels.values))
            yield (
                slice(low - self.start, high - self.start),
                labels._replace(
                    mask=cut(labels.mask), weight=cut(labels.weight), pos_weight=cut(labels.pos_weight), num_labels=None
                ),
            )

    def _sparse(self) -> Iterator[Supervision]:
        """Stored entries of each range, by row and label. Of two equal ones the last counts, so it stays the last."""
        labels, rows = self.labels, self.shape[0]
        assert labels.crow is not None
        assert labels.col is not None
        row = torch.repeat_interleave(labels.crow.diff(), output_size=len(labels.col))
        mine = ((labels.col >= self.start) & (labels.col < self.stop)).nonzero().squeeze(1)
        col, row = labels.col[mine].long() - self.start, row[mine]
        part = col // self.width
        order = ((part * rows + row) * self.width + col % self.width).argsort(stable=True)
        mine, col, row = mine[order], (col % self.width)[order], row[order]
        starts = torch.arange(max(len(self), rows) + 1, device=row.device)
        # bincount would wait for the device, once for each range
        for first, last in pairwise(torch.searchsorted(part[order], starts[: len(self) + 1]).tolist()):
            crow = torch.searchsorted(row[first:last], starts[: rows + 1])
            values = None if labels.values is None else labels.values[mine[first:last]]
            yield labels._replace(values=values, crow=crow, col=col[first:last])

    def known(self) -> Tensor | None:
        """(B,) how many labels of each row are known; None if all are."""
        labels = self.labels
        if labels.mask is None and (labels.all_known or (labels.crow is not None and labels.values is None)):
            return None
        device = next(tensor.device for tensor in labels.tensors if tensor is not None)
        total = torch.zeros(self.shape[0], dtype=torch.long, device=device)
        for place, part in self:
            known = part.known(torch.Size((self.shape[0], place.stop - place.start)))
            total += place.stop - place.start if known is None else known.sum(-1)
        return total


class Evaluator(Protocol):
    """What an executor makes of a part. A state belongs to one executor: they keep different numbers."""

    def summarize(self, z: Tensor, labels: Supervision) -> Tensor:
        """(B, l) logits -> the state of the part."""

    def both(self, z: Tensor, labels: Supervision, out: Tensor) -> tuple[Tensor, Tensor]:
        """State and slopes in one, where labels are independent."""

    def slopes(self, z: Tensor, labels: Supervision, state: Tensor, out: Tensor) -> Tensor:
        """(B, l) logits and the state of all parts -> the gradient of the rows; may lie in `out`."""

    def merge(self, states: Tensor) -> Tensor:
        """(parts, ...) -> (...)."""

    def value(self, state: Tensor) -> Tensor:
        """(B,) loss of the rows."""

    def has_positive(self, state: Tensor) -> Tensor:
        """(B,) bool."""


class Streamed:
    """Plain torch, any device. States are float64 where there is float64, since they are merged once for each part."""

    def __init__(self, loss: Formula) -> None:
        self.loss = loss

    def summarize(self, z: Tensor, labels: Supervision) -> Tensor:
        return _precise(self.loss.summarize(*self._heard(z, labels)))

    def both(self, z: Tensor, labels: Supervision, out: Tensor) -> tuple[Tensor, Tensor]:
        wide = z.to(torch.promote_types(z.dtype, torch.float32))
        rows, slopes = streamed.evaluate(wide, labels, self.loss, True)
        assert slopes is not None
        return _precise(rows.unsqueeze(0)), slopes.to(z.dtype)

    def slopes(self, z: Tensor, labels: Supervision, state: Tensor, out: Tensor) -> Tensor:
        wide, weights = self._heard(z, labels)
        return self.loss.grad(wide, weights, state.to(wide.dtype)).to(z.dtype)

    def merge(self, states: Tensor) -> Tensor:
        return self.loss.pool.merge(states)

    def value(self, state: Tensor) -> Tensor:
        return self.loss.value(state)

    def has_positive(self, state: Tensor) -> Tensor:
        return self.loss.pool.has_positive(state)

    def _heard(self, z: Tensor, labels: Supervision) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        if not z.shape[-1]:  # an empty shard: a label that nobody hears
            nothing = z.new_zeros(len(z), 1)
            return nothing, (nothing, nothing)
        known = labels.known(z.shape)
        return z if known is None else torch.where(known, z, 0.0), labels.weights(z.shape, z.dtype)


def _precise(state: Tensor) -> Tensor:
    return state if state.device.type == "mps" else state.double()


class Compiled:
    """An executor that keeps of each side of a row the peak, the sum of exponentials, and two plain sums."""

    def __init__(self, loss: Formula, run: Callable[..., Run]) -> None:
        self.loss, self.run = loss, run
        self._sums = isinstance(loss.pool, Sum)

    def summarize(self, z: Tensor, labels: Supervision) -> Tensor:
        if self._sums:
            return self.run(z, labels, self.loss, with_gradient=False).value.double()
        state = torch.empty(len(z), 2, 4, dtype=torch.float64, device=z.device)
        self.run(z, labels, self.loss, with_gradient=False, found=state)
        return state

    def both(self, z: Tensor, labels: Supervision, out: Tensor) -> tuple[Tensor, Tensor]:
        return self.run(z, labels, self.loss, out=out).value.double(), out

    def slopes(self, z: Tensor, labels: Supervision, state: Tensor, out: Tensor) -> Tensor:
        self.run(z, labels, self.loss, out=out, whole=state)
        return out

    def merge(self, states: Tensor) -> Tensor:
        return states.sum(0) if self._sums else native.join(states)

    def value(self, state: Tensor) -> Tensor:
        if self._sums:
            return state
        nothing = torch.empty(len(state), 0, dtype=torch.float64, device=state.device)
        return self.run(nothing, Supervision(nothing), self.loss, with_gradient=False, whole=state).value

    def has_positive(self, state: Tensor) -> Tensor:
        return state[:, 0, 2] > 0


def evaluator(executor: str, loss: Formula) -> Evaluator:
    """Of the executor of that name."""
    if executor == "native":
        return Compiled(loss, native.run)
    return Compiled(loss, triton.run) if executor == "triton" else Streamed(loss)
