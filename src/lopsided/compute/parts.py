"""The labels of a batch in parts: what a part must hear of the targets, and what an executor makes of its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from lopsided.compute import native, streamed
from lopsided.losses.loss import Loss
from lopsided.losses.pools import Sum
from lopsided.targets import Labels


class Parts(Sequence[tuple[slice, Labels]]):
    """`Labels` of (B, L) logits, cut into ranges of `width` labels between `start` and `stop`.

    An item is a range of labels, counted from `start`, with what was said about it.
    """

    def __init__(self, labels: Labels, shape: torch.Size, start: int, stop: int, width: int) -> None:
        self.labels, self.shape, self.start, self.stop, self.width = labels, shape, start, stop, width
        if labels.crow is not None and labels.col is not None:
            self._sort(labels.crow, labels.col.long())

    def __len__(self) -> int:
        return -(-(self.stop - self.start) // self.width)

    def __getitem__(self, index: int) -> tuple[slice, Labels]:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        low = self.start + index * self.width
        high = min(low + self.width, self.stop)
        labels, shape = self.labels, self.shape

        def cut(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.reshape(-1, shape[-1])[:, low:high].view(*tensor.shape[:-1], -1)

        part = labels._replace(
            mask=cut(labels.mask), weight=cut(labels.weight), pos_weight=cut(labels.pos_weight), num_labels=None
        )
        place = slice(low - self.start, high - self.start)
        if labels.crow is None:
            return place, part._replace(values=cut(labels.values))
        crow, entries = self._crow[index], slice(self._ends[index], self._ends[index + 1])
        values = None if labels.values is None else labels.values[self._order[entries]]
        return place, part._replace(values=values, crow=crow, col=self._col[entries] - index * self.width)

    def _sort(self, crow: Tensor, col: Tensor) -> None:
        """Stored entries by part, row and label; the later of two equal ones, which counts, stays the later."""
        rows = self.shape[0]
        row = torch.repeat_interleave(crow.diff(), output_size=len(col))
        mine = ((col >= self.start) & (col < self.stop)).nonzero().squeeze(1)
        col, row = col[mine] - self.start, row[mine]
        key = (col // self.width) * rows + row
        order = (key * self.width + col % self.width).argsort(stable=True)
        self._order, self._col = mine[order], col[order]
        counts = torch.bincount(key, minlength=len(self) * rows).view(len(self), rows)
        self._crow = torch.nn.functional.pad(counts.cumsum(1), (1, 0))
        self._ends = [0, *counts.sum(1).cumsum(0).tolist()]

    def known(self) -> Tensor | None:
        """(B,) how many labels of each row are known; None if all are."""
        labels = self.labels
        if labels.mask is None and (labels.all_known or (labels.crow is not None and labels.values is None)):
            return None
        total = torch.zeros(self.shape[0], dtype=torch.long, device=_device(labels))
        for place, part in self:
            known = part.known(torch.Size((self.shape[0], place.stop - place.start)))
            total += place.stop - place.start if known is None else known.sum(-1)
        return total


def _device(labels: Labels) -> torch.device:
    return next(tensor.device for tensor in labels.tensors if tensor is not None)


class Evaluator(Protocol):
    """What an executor makes of a part. A state belongs to one executor: they keep different numbers."""

    def first(self, z: Tensor, labels: Labels, out: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, l) logits -> state of the part; where labels are independent, and `out` is given, the gradient too."""

    def second(self, z: Tensor, labels: Labels, state: Tensor, out: Tensor) -> Tensor:
        """(B, l) logits and the state of all parts -> the gradient."""

    def merge(self, states: Tensor) -> Tensor:
        """(parts, ...) -> (...)."""

    def value(self, state: Tensor) -> Tensor:
        """(B,) loss of the rows."""

    def has_positive(self, state: Tensor) -> Tensor:
        """(B,) bool."""


class Streamed:
    """Plain torch, any device."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def first(self, z: Tensor, labels: Labels, out: Tensor | None) -> tuple[Tensor, Tensor | None]:
        wide = z.to(torch.promote_types(z.dtype, torch.float32))
        if isinstance(self.loss.pool, Sum) and z.shape[-1]:
            rows, slopes = streamed.evaluate(wide, labels, self.loss, out is not None)
            return rows.unsqueeze(0), None if slopes is None else slopes.to(z.dtype)
        return self.loss.summarize(*self._known(wide, labels)), None

    def _known(self, z: Tensor, labels: Labels) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if not z.shape[-1]:  # an empty shard: a label that nobody hears
            nothing = z.new_zeros(len(z), 1)
            return nothing, (nothing, nothing)
        known = labels.known(z.shape)
        return z if known is None else torch.where(known, z, 0.0), labels.weights(z.shape, z.dtype)

    def second(self, z: Tensor, labels: Labels, state: Tensor, out: Tensor) -> Tensor:
        wide = z.to(torch.promote_types(z.dtype, torch.float32))
        z, weights = self._known(wide, labels)
        return self.loss.grad(z, weights, state).to(out.dtype)

    def merge(self, states: Tensor) -> Tensor:
        return self.loss.pool.merge(states)

    def value(self, state: Tensor) -> Tensor:
        return self.loss.value(state)

    def has_positive(self, state: Tensor) -> Tensor:
        return self.loss.pool.has_positive(state)


class Native:
    """The C library."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def first(self, z: Tensor, labels: Labels, out: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.loss.pool, Sum):
            found = native.run(z, labels, self.loss, with_gradient=out is not None, out=out)
            return found.value.double(), found.gradient
        state = torch.empty(len(z), 2, 4, dtype=torch.float64)
        native.run(z, labels, self.loss, with_gradient=False, found=state)
        return state, None

    def second(self, z: Tensor, labels: Labels, state: Tensor, out: Tensor) -> Tensor:
        native.run(z, labels, self.loss, out=out, whole=state)
        return out

    def merge(self, states: Tensor) -> Tensor:
        return states.sum(0) if isinstance(self.loss.pool, Sum) else native.join(states)

    def value(self, state: Tensor) -> Tensor:
        if isinstance(self.loss.pool, Sum):
            return state
        nothing = torch.empty(len(state), 0, dtype=torch.float64)
        return native.run(nothing, Labels(nothing), self.loss, with_gradient=False, whole=state).value

    def has_positive(self, state: Tensor) -> Tensor:
        return state[:, 0, 2] > 0
