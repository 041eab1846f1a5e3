"""Classifies small images: three convolutions and a linear read-out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lopsided.data import MultiLabelData, Splits
from lopsided.models.task import Budget, Task

_CHANNELS = 32


class SmallConvNet(nn.Module):
    """Maps images, uint8 (N, C, H, W) with H and W divisible by 4, to (N, outputs).

    Position matters to the read-out, which sees every place of the last feature map.
    """

    def __init__(self, channels: int, height: int, width: int, outputs: int) -> None:
        super().__init__()
        steps = ((channels, _CHANNELS // 2, 2), (_CHANNELS // 2, _CHANNELS, 2), (_CHANNELS, _CHANNELS, 1))
        self.features = nn.Sequential(*(_block(source, target, stride) for source, target, stride in steps))
        self.read_out = nn.Linear(_CHANNELS * (height // 4) * (width // 4), outputs)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.read_out(self.features(images.float() / 255).flatten(1))
        return logits


def _block(source: int, target: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(source, target, kernel_size=3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(target), nn.ReLU())


@dataclass(frozen=True)
class ImageRows:
    images: Tensor  # uint8 (N, C, H, W)
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor) -> tuple[Tensor, ...]:
        return (self.images[rows],)


def image_task(splits: Splits) -> Task:
    """Returns the task of images, trained by AdamW."""

    def encode(data: MultiLabelData) -> ImageRows:
        assert isinstance(data.inputs, Tensor)
        return ImageRows(data.inputs, data.targets)

    train = encode(splits.train)
    channels, height, width = train.images.shape[1:]
    return Task(
        train,
        encode(splits.valid),
        encode(splits.test),
        make_model=lambda outputs: SmallConvNet(channels, height, width, outputs),
        make_optimizer=lambda model, rate: torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-2),
        default_budget=Budget(epochs=7, batch_size=64, learning_rate=3e-3),
    )
