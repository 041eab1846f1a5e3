"""Changes images by RandAugment, in plain torch, on the device of the images: what ASL's published training has."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample

_GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue in brightness, ITU-R BT.601
_DRAWS, _CHANCE, _STEPS = 2, 0.5, 9  # changes of an image, the chance of each, and the strengths it may have

Change = Callable[[Tensor, Tensor], Tensor]  # images and strengths, (n,) in [-1, 1], to images


def rand_augment(images: Tensor) -> Tensor:
    """Draws two of `CHANGES` for each image, (n, 3, height, width) in [0, 1], and makes each with chance one half.

    The strength of a change is one of nine, to either side where it has two sides; grey fills what comes from outside.
    Source: the package `randaugment` 1.0, which the official training code of ASL uses; Cubuk et al., arXiv 1909.13719,
    have a fixed strength, and no chance. Unlike in the package, its small cutout is left to `Augmentation.cutout`,
    rotation goes either way, shears leave the middle where it is, and changes of places interpolate linearly.

    >>> rand_augment(torch.rand(4, 3, 8, 8)).shape
    torch.Size([4, 3, 8, 8])
    """
    count, device = len(images), images.device
    for _ in range(_DRAWS):
        drawn = torch.randint(len(CHANGES), (count,), device=device)
        made = torch.rand(count, device=device) < _CHANCE
        side = 1 - 2 * torch.randint(2, (count,), device=device)
        strength = side * torch.randint(1, _STEPS + 1, (count,), device=device) / _STEPS
        for number, change in enumerate(CHANGES.values()):
            rows = ((drawn == number) & made).nonzero()[:, 0]
            if len(rows):
                images = images.index_copy(0, rows, change(images[rows], strength[rows]).clamp(0, 1))
    return images


def grey(images: Tensor) -> Tensor:
    """Returns (n, 1, height, width) brightness."""
    return (images * torch.tensor(_GREY, device=images.device)[:, None, None]).sum(1, keepdim=True)


def _moved(by: Callable[[Tensor, Tensor], None]) -> Change:
    """Makes a change of places: `by` sets (n, 2, 3) maps from places of the result to those of the image."""

    def change(images: Tensor, strength: Tensor) -> Tensor:
        frame = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
        by(frame, strength)
        grid = affine_grid(frame, list(images.shape), align_corners=False)
        return grid_sample(images - 0.5, grid, align_corners=False) + 0.5

    return change


def _set(row: int, column: int, most: float) -> Callable[[Tensor, Tensor], None]:
    def by(frame: Tensor, strength: Tensor) -> None:
        frame[:, row, column] = most * strength

    return by


def _rotate(frame: Tensor, strength: Tensor) -> None:
    angle = torch.pi / 6 * strength
    frame[:, 0, 0] = frame[:, 1, 1] = angle.cos()
    frame[:, 0, 1], frame[:, 1, 0] = -angle.sin(), angle.sin()


def _away_from(plain: Callable[[Tensor], Tensor]) -> Change:
    """Makes a change towards a plainer image, or away from it: by at most nine tenths."""
    return lambda images, strength: torch.lerp(plain(images), images, 1 + 0.9 * _each(strength))


def _smooth(images: Tensor) -> Tensor:
    kernel = torch.ones(3, 1, 3, 3, device=images.device)
    kernel[..., 1, 1] = 5
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = conv2d(images, kernel / 13, groups=3)
    return smooth


def _posterize(images: Tensor, strength: Tensor) -> Tensor:
    step = 2 ** _each((4 * strength.abs()).round())  # of 256 levels; up to 4 of their 8 bits go
    return (images * 255 / step + 1e-3).floor() * step / 255  # a level may lie an ulp below its number


def _solarize(images: Tensor, strength: Tensor) -> Tensor:
    return images.where(images * 255 < 256 * (1 - _each(strength.abs())), 1 - images)


def _autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return images.where(high <= low, (images - low) / (high - low).where(high > low, 1))


def _equalize(images: Tensor, strength: Tensor) -> Tensor:
    """Makes all levels of a colour equally frequent, as far as whole levels can be."""
    levels = (images * 255).round().long().flatten(2)
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    last = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - last) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    return images.where((step == 0)[..., None], table.gather(2, levels).view_as(images) / 255)


def _each(strength: Tensor) -> Tensor:
    return strength[:, None, None, None]


CHANGES: dict[str, Change] = {
    "shear x": _moved(_set(0, 1, 0.3)),
    "shear y": _moved(_set(1, 0, 0.3)),
    "translate x": _moved(_set(0, 2, 2 * 150 / 331)),  # of two, the width of an image in `affine_grid`
    "translate y": _moved(_set(1, 2, 2 * 150 / 331)),
    "rotate": _moved(_rotate),
    "colour": _away_from(grey),
    "contrast": _away_from(lambda images: grey(images).mean((2, 3), keepdim=True)),
    "brightness": _away_from(torch.zeros_like),
    "sharpness": _away_from(_smooth),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "invert": lambda images, strength: 1 - images,
}
