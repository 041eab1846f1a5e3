"""Defines what stands between inputs and the head: an encoder, fitted to training inputs, and a body, trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor

from lopsided.data.inputs import Inputs
from lopsided.models.recipe import Recipe

if TYPE_CHECKING:
    from typing_extensions import Self

Batch = tuple[Tensor, ...]  # what the body takes


class Encoded(Protocol):
    """Holds encoded rows."""

    def __len__(self) -> int: ...

    def batch(self, rows: Tensor) -> Batch:
        """Returns the arguments of the body for rows, by (n,) int64 number, on the CPU."""
        ...


class Body(Protocol):
    """Maps a batch to (n, width) hidden states; an `nn.Module`."""

    width: int

    def __call__(self, *batch: Tensor) -> Tensor: ...


class Encoder(Protocol):
    """Turns inputs of one kind into batches. A class in `MODELS`; the keywords of `fit` are the settings of its name.

    name: what `--model` says, as in "mlp" or "mlp(hidden=512)". inputs: the class of inputs that it takes.
    """

    name: ClassVar[str]
    inputs: ClassVar[type[Any]]

    @classmethod
    def fit(cls, *inputs: Any, **settings: Any) -> Self:
        """Makes the encoder from training inputs, one argument. Raises ValueError for a setting that it cannot take."""
        ...

    def encode(self, inputs: Any) -> Encoded:
        """Encodes rows: once for a data set, or row by row when they are asked for, where they would not fit."""
        ...

    def make_body(self) -> Body:
        """Makes an untrained body, with weights from torch's random state."""
        ...

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        """Returns how a model of so many training rows and labels is trained, unless a user says otherwise."""
        ...

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns all that `from_stored` needs: values for JSON, and tensors."""
        ...

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> Self: ...


def takes(encoder: type[Encoder], inputs: Inputs) -> bool:
    """Tells whether the encoder is one for such inputs."""
    return isinstance(inputs, encoder.inputs)
