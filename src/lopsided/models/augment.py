"""Changes images at random while a model is trained, in plain torch, on the device of the images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from lopsided.models.randaugment import grey, rand_augment


@dataclass(frozen=True)
class Augmentation:
    """Says how images are changed: each one by itself, anew in every batch.

    flip: left and right change places in half of them. crop: the most of each side that is cut away; what is left, from
    any place, is stretched to the whole. cutout: the side of a grey square, as a share of the image's. colour: the most
    that brightness, contrast and saturation are raised or lowered by, as a share. randaugment: whether two changes that
    are drawn from many come on top, see `rand_augment`.
    """

    flip: bool = True
    crop: float = 0.25
    cutout: float = 0.0
    colour: float = 0.2
    randaugment: bool = False

    def __post_init__(self) -> None:
        for name in ("crop", "cutout", "colour"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name):g}")


class Augment(nn.Module):
    """Augments images (n, 3, height, width), float in [0, 1]; in evaluation it gives them back as they are.

    >>> images = torch.rand(2, 3, 8, 8)
    >>> Augment(Augmentation()).eval()(images) is images
    True
    """

    def __init__(self, augmentation: Augmentation) -> None:
        super().__init__()
        self.by = augmentation

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return images
        if self.by.flip or self.by.crop:
            images = _framed(images, self.by.flip, self.by.crop)
        if self.by.colour:
            images = _coloured(images, self.by.colour)
        if self.by.randaugment:
            images = rand_augment(images)
        if self.by.cutout:
            images = images.where(~_squares(images, self.by.cutout), 0.5)
        return images


def _framed(images: Tensor, flip: bool, crop: float) -> Tensor:
    """Flips and crops by one sampling of the pixels."""
    count, device = len(images), images.device
    scale = 1 - crop * torch.rand(count, 1, device=device)  # the same for both sides: shapes stay
    shift = (1 - scale) * (2 * torch.rand(count, 2, device=device) - 1)
    sign = 1 - 2 * (torch.rand(count, device=device) < 0.5).float() if flip else torch.ones(count, device=device)
    frame = torch.zeros(count, 2, 3, device=device)
    frame[:, 0, 0], frame[:, 1, 1], frame[:, :, 2] = scale[:, 0] * sign, scale[:, 0], shift
    grid = affine_grid(frame, list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _coloured(images: Tensor, most: float) -> Tensor:
    """Changes brightness, contrast (against the mean of the image) and saturation (against grey)."""
    shape = (3, len(images), 1, 1, 1)
    brightness, contrast, saturation = 1 + most * (2 * torch.rand(shape, device=images.device) - 1)
    images = images * brightness
    images = torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast)
    return torch.lerp(grey(images), images, saturation).clamp(0, 1)


def _squares(images: Tensor, share: float) -> Tensor:
    """Returns (n, 1, height, width), True in a square around a random place of each image."""
    count, _, *sides = images.shape
    inside = []
    for side in sides:
        center = torch.rand(count, 1, device=images.device) * side
        inside.append((torch.arange(side, device=images.device) + 0.5 - center).abs() < share * min(sides) / 2)
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
