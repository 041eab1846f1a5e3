"""RandAugment changes images as Pillow does, and places as arithmetic says."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from lopsided.models.randaugment import CHANGES, rand_augment
from tests.models.pictures import pictures

STEPS = [step / 9 for step in (-9, -4, 1, 5, 9)]
Pillow = Callable[[Image.Image, float], Image.Image]
PILLOW: dict[str, Pillow] = {
    "colour": lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.9 * s),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.9 * s),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.9 * s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * s),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s))),
    "solarize": lambda image, s: ImageOps.solarize(image, math.ceil(round(256 - 256 * abs(s), 9))),
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "invert": lambda image, s: ImageOps.invert(image),
}
MOST, WIDE = 0.3, 150 / 331
PLACES: dict[str, Callable[[Tensor, Tensor, float, int], tuple[Tensor, Tensor]]] = {  # from the middle, in pixels
    "shear x": lambda x, y, s, side: (x + MOST * s * y, y),
    "shear y": lambda x, y, s, side: (x, y + MOST * s * x),
    "translate x": lambda x, y, s, side: (x + WIDE * s * side, y),
    "translate y": lambda x, y, s, side: (x, y + WIDE * s * side),
    "rotate": lambda x, y, s, side: (
        x * np.cos(np.pi / 6 * s) - y * np.sin(np.pi / 6 * s),
        x * np.sin(np.pi / 6 * s) + y * np.cos(np.pi / 6 * s),
    ),
}


def test_every_change_has_an_oracle() -> None:
    assert set(CHANGES) == set(PILLOW) | set(PLACES)


@pytest.mark.parametrize("name", PILLOW)
def test_colours_change_as_in_pillow(name: str) -> None:
    pixels = pictures(len(STEPS), side=40)[0].pixels
    pixels[0] //= 3  # dark, so that there is something to stretch
    pixels[1, 0] = 7  # one level alone
    changed = CHANGES[name](pixels.float() / 255, torch.tensor(STEPS)).clamp(0, 1) * 255
    for row, strength in enumerate(STEPS):
        image = PILLOW[name](Image.fromarray(pixels[row].permute(1, 2, 0).numpy()), strength)
        expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        assert (changed[row] - expected).abs().max() <= 1.5, "Pillow rounds twice"


@pytest.mark.parametrize("name", PLACES)
def test_places_move_by_so_much(name: str) -> None:
    side = 31
    y, x = torch.meshgrid(*[torch.arange(side) - (side - 1) / 2] * 2, indexing="ij")
    ramp = 0.5 + 0.006 * x + 0.01 * y  # tells where a pixel comes from, exactly so under linear interpolation
    images = ramp.expand(len(STEPS), 3, side, side)
    changed = CHANGES[name](images, torch.tensor(STEPS))
    for row, strength in enumerate(STEPS):
        from_x, from_y = PLACES[name](x, y, strength, side)
        inside = (from_x.abs() < side / 2 - 1) & (from_y.abs() < side / 2 - 1)
        outside = (from_x.abs() > side / 2 + 1) | (from_y.abs() > side / 2 + 1)
        assert inside.sum() > side**2 / 4
        torch.testing.assert_close(changed[row, 0][inside], (0.5 + 0.006 * from_x + 0.01 * from_y)[inside])
        assert (changed[row, 0][outside] == 0.5).all()


def test_a_quarter_of_images_stays_and_strengths_vary() -> None:
    torch.manual_seed(0)
    images = (pictures(1)[0].pixels.float() / 255).expand(600, -1, -1, -1)
    changed = rand_augment(images)
    same = (changed == images).flatten(1).all(1).double().mean()
    assert 0.2 < same < 0.32, "1/4, and the few that a weak change leaves alone"
    assert len(changed.flatten(1).unique(dim=0)) > 150
