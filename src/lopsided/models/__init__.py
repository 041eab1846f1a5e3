"""The models map inputs to scores."""

from __future__ import annotations

from torch import Tensor

from lopsided.data import Splits
from lopsided.models.images import image_task
from lopsided.models.task import Task
from lopsided.models.texts import text_task

__all__ = ["Task", "make_task"]


def make_task(splits: Splits) -> Task:
    """Returns the model that suits the inputs: a small convolutional network, or hashed n-grams."""
    return image_task(splits) if isinstance(splits.train.inputs, Tensor) else text_task(splits)
