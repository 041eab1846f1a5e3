"""Defines what stands between inputs and the head: an encoder, fitted to training inputs, and a body, trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

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


@dataclass(frozen=True)
class Part:
    """Shows some of encoded rows, by (n,) int64 number, as if they were all."""

    encoded: Encoded
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: Tensor) -> Batch:
        return self.encoded.batch(self.rows[rows])


class Body(Protocol):
    """Maps a batch to (n, width) hidden states; an `nn.Module`."""

    width: int

    def __call__(self, *batch: Tensor) -> Tensor: ...


class DirectLinear(Protocol):
    """Maps what a `DirectBody` gives to (n, outputs) scores; an `nn.Module`."""

    def __call__(self, hidden: Any) -> Tensor: ...

    def begin_at(self, bias: Tensor) -> None:
        """Sets what the scores of each label begin about, (outputs,)."""
        ...


@runtime_checkable
class DirectBody(Protocol):
    """Hands on something else than hidden states, which a layer of its own maps to labels; an `nn.Module`."""

    width: int

    def __call__(self, *batch: Tensor) -> Any: ...

    def make_linear(self, outputs: int) -> DirectLinear: ...


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

    def make_body(self) -> Body | DirectBody:
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


@runtime_checkable
class InGraph(Protocol):
    """Is an encoder that computes features from numbers, which an exported graph can do as well."""

    def in_graph(self, inputs: Any, body: nn.Module) -> tuple[Encoded, nn.Module]:
        """Returns rows as they are before that, and one module of it and the body, which takes them."""
        ...


class Then(nn.Module):
    """Computes `body` of what `network` gives for token numbers and what stands beside them, a mask or offsets."""

    def __init__(self, network: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.network, self.body = network, body

    def forward(self, ids: Tensor, beside: Tensor) -> Tensor:
        hidden: Tensor = self.body(self.network(ids, beside))
        return hidden


class ThenOfImages(nn.Module):
    """Computes `body` of what `network` gives for images, uint8 (n, 3, size, size)."""

    def __init__(self, network: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.network, self.body = network, body

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.body(self.network(images))
        return hidden


def takes(encoder: type[Encoder], inputs: Inputs) -> bool:
    """Tells whether the encoder is one for such inputs."""
    return isinstance(inputs, encoder.inputs)
