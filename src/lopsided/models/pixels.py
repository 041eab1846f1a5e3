"""Decodes images to squares of one size, some rows at a time, in parallel."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lopsided.data.image_files import ImageFiles
from lopsided.data.inputs import Images
from lopsided.models.encoder import Batch

_KEPT_BYTES = 2**28  # decoded squares of so much are kept: a small data set is decoded once, a large one each epoch


def square(image: Tensor, size: int) -> Tensor:
    """Returns (3, size, size) uint8 of (1 or 3, height, width) uint8: the whole image, squeezed where it is no square.

    Nothing is cut off, as any part of the image may be what a label speaks of.
    """
    if image.shape[1:] != (size, size):
        image = interpolate(image[None], (size, size), mode="bilinear", antialias=True)[0]
    return image.expand(3, size, size)


@dataclass
class Squares:
    """Holds images, each of which is (3, size, size) uint8 when it is asked for.

    keep: decoded images are kept, unless all of them would take more than 256 MiB.
    """

    inputs: Images | ImageFiles
    size: int
    keep: bool = True
    _pixels: Tensor | None = field(default=None, repr=False)
    _is_ready: Tensor | None = field(default=None, repr=False)
    _pool: ThreadPoolExecutor | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, rows: Tensor) -> Batch:
        """Returns (n, 3, size, size) uint8. Raises UserError for a file that is missing or no image."""
        if not self.keep or len(self) * 3 * self.size**2 > _KEPT_BYTES:
            return (self._decode(rows),)
        if self._pixels is None or self._is_ready is None:
            self._pixels = torch.empty(len(self), 3, self.size, self.size, dtype=torch.uint8)
            self._is_ready = torch.zeros(len(self), dtype=torch.bool)
        missing = rows[~self._is_ready[rows]].unique()
        if len(missing):
            self._pixels[missing] = self._decode(missing)
            self._is_ready[missing] = True
        return (self._pixels[rows],)

    def _decode(self, rows: Tensor) -> Tensor:
        read: Callable[[int], Tensor] = self._read_pixels if isinstance(self.inputs, Images) else self._read_file
        if self._pool is None:
            self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "decode")
        squares = torch.empty(len(rows), 3, self.size, self.size, dtype=torch.uint8)
        for place, image in enumerate(self._pool.map(read, rows.tolist())):
            squares[place] = image
        return squares

    def _read_pixels(self, row: int) -> Tensor:
        assert isinstance(self.inputs, Images)
        return square(self.inputs.pixels[row], self.size)

    def _read_file(self, row: int) -> Tensor:
        assert isinstance(self.inputs, ImageFiles)
        return square(self.inputs.decode(row, at_least=self.size), self.size)
