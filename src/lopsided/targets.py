"""Targets: all that a user may say about labels becomes two weights per label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dense:
    """One number in [0, 1] per label, hard or soft, and optionally which of them are known.

    Soft targets follow the mixture convention y f+ + (1 - y) f-.
    """

    values: Tensor  # (..., L), any dtype
    mask: Tensor | None = None  # (..., L) bool, True = known

    def weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(a+, a-), each (..., L): y and 1 - y, and 0 where the label is unknown."""
        positive = self.values.to(dtype)
        negative = 1 - positive
        if self.mask is None:
            return positive, negative
        return torch.where(self.mask, positive, 0.0), torch.where(self.mask, negative, 0.0)

    def count(self, per_label: bool) -> Tensor | int:
        """How many known entries (per_label) or rows with a known entry there are."""
        if self.mask is None:
            return self.values.numel() if per_label else self.values.shape[:-1].numel()
        return (self.mask if per_label else self.mask.any(-1)).sum()
