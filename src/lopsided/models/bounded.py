"""Bounds the memory of a model that is restored: what a file says about its size is no reason to take so much."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_BESIDE = 2**26  # bytes for what is made besides the stored tensors, such as the numbers of positions
_EACH = 2**14  # bytes that Python takes for a tensor, and for the module that it belongs to


class NoLargerThan(TorchDispatchMode):
    """Lets new tensors take twice the memory of the stored ones and 64 MiB, in all.

    Raises ValueError before more is taken.

    >>> import torch
    >>> with NoLargerThan([torch.zeros(9)]):
    ...     torch.nn.Linear(2**20, 2**20)
    Traceback (most recent call last):
    ...
    ValueError: its settings describe a model of more than 67108936 bytes, but its stored tensors have 36
    """

    def __init__(self, stored: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stored = sum(tensor.nbytes for tensor in stored)
        self.most = self.left = 2 * self.stored + _BESIDE

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Says that nothing is compiled here, so that torch does not import its compiler, which takes a second."""
        return False

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        options = options or {}
        if _makes_new(function):
            self.left -= _EACH + _bytes_of(function, arguments, options)
            if self.left < 0:
                raise ValueError(
                    f"its settings describe a model of more than {self.most} bytes, but its stored tensors have "
                    f"{self.stored}"
                )
        return function(*arguments, **options)


def _bytes_of(function: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> int:
    """Returns the size of a tensor that is not made. For that of a range torch would import sympy, which takes long."""
    if function.overloadpacket is torch.ops.aten.arange and all(isinstance(each, int) for each in arguments):
        return 8 * len(range(*arguments))
    if function.overloadpacket is torch.ops.aten.linspace:
        return 8 * int(arguments[2])
    without_memory = {"device": "meta"} | ({"generator": None} if "generator" in options else {})
    return int(function(*arguments, **options | without_memory).nbytes)


@lru_cache(None)
def _makes_new(function: Any) -> bool:
    """Tells whether an operator makes a tensor of a size that its arguments say."""
    return any(argument.name == "device" for argument in function._schema.arguments)
