"""Encodes images by what their places have in common with small patches of the training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, unfold

from lopsided.data.image_files import ImageFiles
from lopsided.data.inputs import Images
from lopsided.models.encoder import ThenOfImages
from lopsided.models.features import Features, Standardised, scaling_of
from lopsided.models.pixels import Squares
from lopsided.models.recipe import Recipe

_SIDE, _STEP = 6, 2  # pixels of a patch, and from one place to the next
_ROWS = 64  # images that are encoded at a time
_SAMPLE, _OF_EACH = 1500, 25  # images that patches are drawn from, and how many of each
_FLAT = 10.0  # variance, of pixels up to 255, below which a patch counts as flat
_SOFTENING = 0.1  # of whitening: directions of so little variance are noise
_THRESHOLD = 0.25
MANY_IMAGES = 10_000  # above which features would take more memory, and a network learns more


@dataclass(frozen=True)
class Patches:
    """Encodes images by filters that are learnt without labels and without training, for a linear model.

    Filters are patches of 6 x 6 pixels, drawn at random from the training images; brightness and contrast are evened
    out, and neighbouring pixels decorrelated (whitening). How far a place exceeds a threshold in its likeness to each
    filter, or to its negative, is averaged in each cell of a grid, over the image and its mirror image. Coates and Ng,
    "The importance of encoding versus training with sparse coding and vector quantization", ICML 2011; they take every
    place instead of every second one, and no mirror image.

    A few thousand images teach it as much as a convolutional network of many minutes; with many more images, take
    that. Features are computed once for a data set, in some milliseconds an image, and held in memory.

    size: images become squares of so many pixels. filters: (108, patches) float32, offset: (patches,).
    scaling: (2, width), mean and deviation of the features of training images.

    >>> images = Images(torch.randint(256, (4, 3, 20, 20), dtype=torch.uint8))
    >>> encoder = Patches.fit(images, patches=5, grid=2)
    >>> encoder.make_body()(*encoder.encode(images).batch(torch.arange(4))).shape
    torch.Size([4, 40])
    """

    name: ClassVar[str] = "patches"
    inputs: ClassVar[Any] = Images | ImageFiles
    size: int
    grid: int
    filters: Tensor
    offset: Tensor
    scaling: Tensor

    @classmethod
    def fit(cls, inputs: Images | ImageFiles, patches: int = 400, grid: int = 3, size: int = 32) -> Patches:
        if patches < 1 or not 1 <= grid <= size // _SIDE:
            raise ValueError(
                f"patches: patches and grid must be at least 1, and size at least {_SIDE} times grid, got "
                f"{patches}, {grid} and {size}"
            )
        random = torch.Generator().manual_seed(0)
        rows = torch.randperm(len(inputs), generator=random)[:_SAMPLE]
        sample = Squares(inputs.take(rows), size)
        filters, offset = _filters(sample, patches, random)
        encoder = cls(size, grid, filters, offset, torch.empty(0))
        return cls(size, grid, filters, offset, scaling_of(encoder._features(sample)))

    def encode(self, inputs: Images | ImageFiles) -> Features:
        return Features(self._features(Squares(inputs, self.size, keep=False)))

    def make_body(self) -> Standardised:
        return Standardised(*self.scaling)

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        return Recipe(max(5, min(20, 60_000 // rows)), 64, learning_rate=1e-4, schedule="cosine")

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values = {"size": self.size, "grid": self.grid}
        return values, {"filters": self.filters, "offset": self.offset, "scaling": self.scaling}

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> Patches:
        return cls(int(values["size"]), int(values["grid"]), **tensors)

    def in_graph(self, inputs: Images | ImageFiles, body: nn.Module) -> tuple[Squares, nn.Module]:
        return Squares(inputs, self.size, keep=False), ThenOfImages(_Likeness(self), body)

    @torch.no_grad()
    def _features(self, squares: Squares) -> Tensor:
        """Computes (rows, 2 * patches * grid * grid) float32."""
        likeness = _Likeness(self)
        return torch.cat([likeness(*squares.batch(rows)) for rows in torch.arange(len(squares)).split(_ROWS)])


class _Likeness(nn.Module):
    """Computes the features of `Patches` of (n, 3, size, size) uint8 images."""

    def __init__(self, encoder: Patches) -> None:
        super().__init__()
        self.size, self.grid, self.filters, self.offset = encoder.size, encoder.grid, encoder.filters, encoder.offset

    def forward(self, images: Tensor) -> Tensor:
        return (self._pooled(images) + self._pooled(images.flip(3))) / 2

    def _pooled(self, pixels: Tensor) -> Tensor:
        likeness = _even(unfold(pixels.float(), _SIDE, stride=_STEP).transpose(1, 2)) @ self.filters - self.offset
        both = torch.cat([(likeness - _THRESHOLD).relu(), (-likeness - _THRESHOLD).relu()], 2)
        side = (self.size - _SIDE) // _STEP + 1
        return adaptive_avg_pool2d(both.mT.unflatten(2, (side, side)), self.grid).flatten(1)


def _filters(squares: Squares, patches: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws patches; returns (108, patches) and (patches,), so that likeness is evened pixels @ filters - offset."""
    (pixels,) = squares.batch(torch.arange(len(squares)))
    drawn = _even(_patches(pixels.float(), random))
    mean = drawn.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(drawn.T))
    whitening = vectors * (values.clamp(min=0) + _SOFTENING).rsqrt() @ vectors.T
    chosen = (drawn[torch.randint(len(drawn), (patches,), generator=random)] - mean) @ whitening
    filters = whitening @ torch.nn.functional.normalize(chosen, dim=1).T
    return filters, mean @ filters


def _patches(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Draws (n * 25, 108) patches from (n, 3, size, size) pixels."""
    count, channels, side, _ = pixels.shape
    corner = torch.randint(side - _SIDE + 1, (2, count * _OF_EACH), generator=random)
    image = torch.arange(count).repeat_interleave(_OF_EACH)
    within = torch.arange(_SIDE)
    rows, columns = (each[:, None] + within for each in corner)
    place = (image[:, None, None, None], torch.arange(channels)[:, None, None], rows[:, None, :, None])
    return pixels[(*place, columns[:, None, None, :])].flatten(1)


def _even(patches: Tensor) -> Tensor:
    """Evens out brightness and contrast of (..., 108) patches."""
    centred = patches - patches.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + _FLAT).rsqrt()
