"""A small convolutional network for small images that are held in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lopsided.data.inputs import Images
from lopsided.models.encoder import Batch
from lopsided.models.recipe import Recipe

_CHANNELS = 32


class SmallConvNet(nn.Module):
    """Maps images, uint8 (N, C, H, W), to hidden states (N, width): three convolutions, every place of the last map.

    Position matters to the head, which sees every place of the last feature map.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        steps = ((channels, _CHANNELS // 2, 2), (_CHANNELS // 2, _CHANNELS, 2), (_CHANNELS, _CHANNELS, 1))
        self.features = nn.Sequential(*(_block(source, target, stride) for source, target, stride in steps))
        self.width = _CHANNELS * -(-height // 4) * -(-width // 4)

    def forward(self, images: Tensor) -> Tensor:
        pixels = (images.float() / 255).contiguous(memory_format=torch.channels_last)  # a fifth faster on a CPU
        hidden: Tensor = self.features(pixels).flatten(1)
        return hidden


def _block(source: int, target: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(source, target, kernel_size=3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(target), nn.ReLU())


@dataclass(frozen=True)
class PixelRows:
    """Holds the pixels of rows."""

    pixels: Tensor  # uint8 (N, C, H, W)

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, rows: Tensor) -> Batch:
        return (self.pixels[rows],)


@dataclass(frozen=True)
class Pixels:
    """Encodes images as they are; all have the shape of the training images.

    >>> import torch
    >>> images = Images(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    >>> encoder = Pixels.fit(images)
    >>> encoder.make_body()(*encoder.encode(images).batch(torch.arange(2))).shape
    torch.Size([2, 128])
    """

    name: ClassVar[str] = "convnet"
    inputs: ClassVar[type[Any]] = Images
    shape: tuple[int, int, int]

    @classmethod
    def fit(cls, inputs: Images) -> Pixels:
        channels, height, width = inputs.pixels.shape[1:]
        return cls((channels, height, width))

    def encode(self, inputs: Images) -> PixelRows:
        if tuple(inputs.pixels.shape[1:]) != self.shape:
            raise ValueError(
                f"images must be {self.shape} (channels, height, width) as those of training, got "
                f"{tuple(inputs.pixels.shape[1:])}"
            )
        return PixelRows(inputs.pixels)

    def make_body(self) -> SmallConvNet:
        return SmallConvNet(*self.shape)

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        batch_size = 32 if rows < 5000 else 64
        return Recipe(10, batch_size, learning_rate=3e-3, optimizer="adamw", weight_decay=1e-2, average=0.98)

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"shape": list(self.shape)}, {}

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> Pixels:
        channels, height, width = map(int, values["shape"])
        return cls((channels, height, width))
