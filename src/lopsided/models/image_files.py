"""Encodes images of any size, from files or from memory, for a small residual network that is trained from nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lopsided.data.image_files import ImageFiles
from lopsided.data.inputs import Images
from lopsided.models.augment import Augment, Augmentation
from lopsided.models.pixels import Squares
from lopsided.models.recipe import Recipe

_SMALLEST, _LARGEST = 16, 64  # pixels of a side: the least that the network takes, the most that it is given unasked


class SmallResNet(nn.Module):
    """Maps images, uint8 (n, 3, height, width) of any size from 16 on, to (n, width) hidden states.

    Four stages of one residual block each; height and width are halved by all but the last, channels doubled by all but
    the first. Then come the mean and the maximum over all places: what is shown counts, not where. In training, images
    are augmented.

    >>> net = SmallResNet(channels=8, augmentation=Augmentation()).eval()
    >>> net(torch.zeros(2, 3, 32, 40, dtype=torch.uint8)).shape == (2, net.width)
    True
    """

    def __init__(self, channels: int, augmentation: Augmentation, dropout: float = 0.0) -> None:
        super().__init__()
        self.augment = Augment(augmentation)
        stem = nn.Sequential(_convolution(3, channels, 3), nn.ReLU())
        widths = [channels, channels, 2 * channels, 4 * channels, 8 * channels]
        stages = [_Block(*step) for step in zip(widths[:-1], widths[1:], (2, 2, 2, 1), strict=True)]
        self.features = nn.Sequential(stem, *stages)
        self.dropout = nn.Dropout(dropout)
        self.width = 2 * widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        pixels = (self.augment(images.float() / 255) - 0.5) / 0.25
        states = self.features(pixels.contiguous(memory_format=torch.channels_last))  # faster on processors
        hidden: Tensor = self.dropout(torch.cat([states.mean((2, 3)), states.amax((2, 3))], 1))
        return hidden


class _Block(nn.Module):
    """A residual block of two convolutions (He et al., arXiv 1512.03385)."""

    def __init__(self, source: int, target: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(_convolution(source, target, 3, stride), nn.ReLU(), _convolution(target, target, 3))
        self.past = _convolution(source, target, 1, stride)

    def forward(self, states: Tensor) -> Tensor:
        sum_of_both: Tensor = self.main(states) + self.past(states)
        return sum_of_both.relu()


def _convolution(source: int, target: int, size: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(source, target, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(target))


@dataclass(frozen=True)
class ResNetImages:
    """Encodes images as squares of `size` pixels, for a `SmallResNet`.

    Without a size, files become squares of 64 pixels; images in memory keep their longer side, up to as many.

    >>> images = Images(torch.zeros(2, 1, 20, 30, dtype=torch.uint8))
    >>> encoder = ResNetImages.fit(images, size=16, channels=8)
    >>> encoder.make_body()(*encoder.encode(images).batch(torch.arange(2))).shape
    torch.Size([2, 128])
    """

    name: ClassVar[str] = "resnet"
    inputs: ClassVar[Any] = Images | ImageFiles
    size: int
    channels: int
    dropout: float
    augmentation: Augmentation

    @classmethod
    def fit(
        cls, inputs: Images | ImageFiles, size: int | None = None, channels: int = 24, dropout: float = 0.2,
        flip: bool = True, crop: float = 0.25, cutout: float = 0.0, colour: float = 0.2,
        randaugment: bool = False,
    ) -> ResNetImages:  # fmt: skip
        """Takes `flip` and those after it as `Augmentation` does."""
        if size is None:
            longer = max(inputs.pixels.shape[2:]) if isinstance(inputs, Images) else _LARGEST
            size = min(max(longer, _SMALLEST), _LARGEST)
        if size < _SMALLEST or channels < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"resnet: size must be at least {_SMALLEST}, channels at least 1 and dropout in [0, 1), got {size}, "
                f"{channels} and {dropout:g}"
            )
        return cls(size, channels, dropout, Augmentation(flip, crop, cutout, colour, randaugment))

    def encode(self, inputs: Images | ImageFiles) -> Squares:
        return Squares(inputs, self.size)

    def make_body(self) -> SmallResNet:
        return SmallResNet(self.channels, self.augmentation, self.dropout)

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        """Gives some thousand steps: a network that begins from nothing needs to see images often."""
        epochs = max(5, min(40, 2000 * 64 // rows))
        return Recipe(epochs, 64, learning_rate=3e-3, weight_decay=0.05, schedule="one_cycle")

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return asdict(self), {}

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> ResNetImages:
        return cls(**values | {"augmentation": Augmentation(**values["augmentation"])})
