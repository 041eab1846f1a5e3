"""Writes small pictures whose labels can be seen: a red patch, a horizontal line, or both."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lopsided.data.image_files import ImageFiles
from lopsided.data.inputs import Images


def pictures(rows: int, side: int = 24, seed: int = 0) -> tuple[Images, Tensor]:
    """Returns noisy pictures, and (rows, 2) bool: whether a red patch is somewhere, and a bright line."""
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(40, 120, (rows, 3, side, side), generator=draw, dtype=torch.uint8)
    truth = torch.rand(rows, 2, generator=draw) < 0.5
    places = torch.randint(2, side - 6, (rows, 3), generator=draw).tolist()
    for row, (top, left, line) in enumerate(places):
        if truth[row, 1]:
            pixels[row, :, line] = 255
        if truth[row, 0]:
            pixels[row, :, top : top + 5, left : left + 5] = torch.tensor([250, 0, 0], dtype=torch.uint8)[:, None, None]
    return Images(pixels), truth


def write(folder: Path, images: Images) -> ImageFiles:
    names = tuple(f"{row}.png" for row in range(len(images)))
    for name, pixels in zip(names, images.pixels, strict=True):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / name)
    return ImageFiles(folder, names)
