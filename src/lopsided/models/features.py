"""Holds rows of features that a frozen encoder computed once, and the body that takes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lopsided.models.encoder import Batch
from lopsided.models.recipe import Recipe
from lopsided.models.tokens import places


@dataclass(frozen=True)
class Features:
    """Holds (rows, width) float32 features in memory."""

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, rows: Tensor) -> Batch:
        return (self.values[rows],)


@dataclass(frozen=True)
class States:
    """Holds states of the tokens of rows in memory, those of row i from indptr[i] to indptr[i + 1].

    indptr: (rows + 1,) int64. values: (tokens, width) float16, since they are many.
    """

    indptr: Tensor
    values: Tensor

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def batch(self, rows: Tensor) -> Batch:
        """Returns (n, longest, width) float32 states, and (n, longest) bool, True where a token stands."""
        mask, entries = places(self.indptr, rows)
        states = torch.zeros(*mask.shape, self.values.shape[1])
        states[mask] = self.values[entries].float()
        return states, mask


class Standardised(nn.Module):
    """Gives each feature mean 0 and deviation 1 in the training rows. mean, deviation: (width,).

    >>> Standardised(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]))(torch.tensor([[3.0, 5.0]]))
    tensor([[1., 5.]])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.width = len(mean)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.where(deviation > 0, deviation, 1.0).reciprocal())

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) * self.scale


def scaling_of(features: Tensor) -> Tensor:
    """Returns (2, width), the mean and the deviation of each feature: what `Standardised` takes."""
    return torch.stack([features.mean(0), features.std(0, correction=0)])


def recipe_of_frozen(rows: int) -> Recipe:
    """Returns how a head on given features is trained: some thousand steps of falling size."""
    batch_size = max(16, min(256, rows // 64))
    epochs = max(5, min(50, 3000 * batch_size // rows))
    return Recipe(epochs, batch_size, learning_rate=1e-3, schedule="cosine")


def recipe_of_tuned(rows: int) -> Recipe:
    """Returns how a pretrained encoder is fine-tuned with its head: the usual few epochs of small steps."""
    epochs = max(3, min(20, 2000 * 32 // rows))
    return Recipe(epochs, 32, learning_rate=1e-3, weight_decay=0.01, schedule="cosine", body_rate=0.05, clip_norm=1.0)
