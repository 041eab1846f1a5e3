"""What the counts of the training labels do to logits and weights, of all labels or of a range: before any executor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lopsided.losses.frequencies import Balanced
from lopsided.targets import Supervision


@dataclass(frozen=True)
class Counted:
    """Holds (L,) tensors that are made from the counts; `lopsided.losses.frequencies` has the formulas."""

    balance: Balanced
    offset: Tensor  # added to the logits
    margins: Tensor  # taken from those of positives
    rarity: Tensor  # 1 / n
    weight: Tensor | None  # of labels
    sampled: Tensor | None = None  # (..., 1), the sum of the rarity of the labels of each row

    def turned(self, z: Tensor, supervision: Supervision, labels: slice = slice(None)) -> tuple[Tensor, Tensor | None]:
        """Returns logits of some labels as the formula takes them, in their dtype, and the weight of these labels.

        A label weighs the same in all rows, (l,), or each entry has its own weight, (..., l); None for no weights.
        """
        balance, weight = self.balance, None if self.weight is None else self.weight[labels]
        turned = z.to(torch.promote_types(z.dtype, torch.float32))
        if balance.margin or balance.rebalancing is not None:
            y = _positive(supervision, turned)
            turned = turned - y * self.margins[labels]
            if balance.rebalancing is not None:
                rarity, how = self.rarity[labels], balance.rebalancing
                sampled = (y * rarity).sum(-1, keepdim=True) if self.sampled is None else self.sampled
                ratio = rarity / sampled.to(y.dtype)  # infinite in a row without a label, whose entries weigh alpha + 1
                weight = how.alpha + (how.steepness * (ratio - how.middle)).sigmoid()
        return (balance.scale * (turned + self.offset[labels])).to(z.dtype), weight

    def having_seen(self, parts: Iterable[tuple[slice, Supervision]], start: int, nothing: Tensor) -> Counted:
        """Returns the same with `sampled`, added up over ranges of the labels from `start` on; nothing: (B, 0)."""
        if self.balance.rebalancing is None:
            return self
        total = nothing.new_zeros(len(nothing), 1, dtype=torch.float32)
        for place, supervision in parts:
            shape = nothing.new_empty(()).expand(len(nothing), place.stop - place.start)
            rarity = self.rarity[start + place.start : start + place.stop]
            total += (_positive(supervision, shape.float()) * rarity).sum(-1, keepdim=True)
        return replace(self, sampled=total)


def _positive(supervision: Supervision, z: Tensor) -> Tensor:
    """Returns (..., L) targets, 0 where they are unknown, without weights and smoothing."""
    plain = supervision._replace(weight=None, pos_weight=None, label_smoothing=0.0)
    return plain.weights(z.shape, z.dtype)[0]
