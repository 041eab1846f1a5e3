"""Takes torch modules of the user's own: `--model package.module:make_model`."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from lopsided.data.inputs import Inputs
from lopsided.models.bag import LinearBag, recipe_of_bags
from lopsided.models.encoder import Body, Encoded, Encoder, InGraph, takes
from lopsided.models.recipe import Recipe
from lopsided.models.tables import recipe_of_layers


def custom(name: str, models: Mapping[str, type[Encoder]]) -> type[Encoder]:
    """Returns an encoder whose body the function of that name makes; or the class of that name, if it is an encoder.

    The function gets the encoder that the first of `models` that takes the inputs has fitted to them, and the settings
    that stand in `--model "package.module:make_model(depth=3)"`. It returns an `nn.Module`, untrained, which is called
    with what that encoder gives for a batch and returns (n, width) hidden states; its attribute `width` says how many.
    The linear layer of the labels and the loss come after it.

    >>> class Deep(nn.Module):
    ...     def __init__(self, inputs: int, hidden: int) -> None:
    ...         super().__init__()
    ...         self.width = hidden
    ...         self.layer = nn.Linear(inputs, hidden)
    ...     def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
    ...         return self.layer(numbers).relu()
    >>> def make_model(encoder, hidden=64):
    ...     return Deep(encoder.columns.scale.width, hidden)

    A run remembers the name alone: the file must be there when the run is used. Raises ValueError, in one line, where
    it cannot be imported.
    """
    target = _imported(name)
    if all(hasattr(target, part) for part in ("fit", "encode", "make_body", "recipe", "stored", "from_stored")):
        return cast("type[Encoder]", target)
    if not callable(target):
        raise ValueError(
            f"{name} must be a function that makes an nn.Module, or an encoder; it is a {type(target).__name__}"
        )
    attributes = {"name": name, "models": models, "make": staticmethod(target), "fit": classmethod(_fit_of(target))}
    return type("Custom", (Custom,), attributes)


def _fit_of(make: Callable[..., Any]) -> Callable[..., Custom]:
    """Returns `Custom.fit` with the settings of a function in its signature, by which `--model` is checked."""

    def fit(cls: type[Custom], inputs: Inputs, **settings: Any) -> Custom:
        return cls.of(inputs, settings)

    own = inspect.signature(make)
    parameters = [inspect.Parameter("cls", inspect.Parameter.POSITIONAL_ONLY), *own.parameters.values()]
    fit.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return fit


def import_here(module: str) -> ModuleType:
    """Imports a module from the Python path or, as `python -m` does, from where the user stands."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    return importlib.import_module(module)


def _imported(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if not (colon and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(f"a model of your own is named as package.module:make_model, got {name!r}")
    try:
        return getattr(import_here(module), attribute)
    except ImportError as error:
        raise ValueError(
            f"cannot import {module!r} for --model {name} from {os.getcwd()} or the Python path: {error}"
        ) from None
    except AttributeError:
        raise ValueError(f"{module} has no {attribute!r}, which --model {name} asks for") from None


@dataclass(frozen=True)
class Custom:
    """Encodes as the first model does that takes the inputs, with a body of the user's own; see `custom`."""

    name: ClassVar[str] = ""
    inputs: ClassVar[type[Any]] = object
    models: ClassVar[Mapping[str, type[Encoder]]] = {}
    make: ClassVar[Any]
    base: Encoder
    settings: dict[str, Any]

    @classmethod
    def of(cls, inputs: Inputs, settings: dict[str, Any]) -> Custom:
        try:
            inspect.signature(cls.make).bind(None, **settings)
        except TypeError as error:
            raise ValueError(
                f"--model {cls.name} cannot be called with one encoder and these settings: {error}"
            ) from None
        base = next(model for model in cls.models.values() if takes(model, inputs))
        return cls(base.fit(inputs), settings)

    def encode(self, inputs: Inputs) -> Encoded:
        return self.base.encode(inputs)

    def make_body(self) -> Body:
        body = self.make(self.base, **self.settings)
        if not isinstance(body, nn.Module):
            raise ValueError(f"{self.name} must return an nn.Module, it returned a {type(body).__name__}")
        if not isinstance(getattr(body, "width", None), int):
            raise ValueError(
                f"the module of {self.name} has no whole number `width`: set self.width to how many numbers its "
                "forward returns for a row"
            )
        return cast("Body", body)

    def in_graph(self, inputs: Inputs, body: nn.Module) -> tuple[Encoded, nn.Module]:
        return self.base.in_graph(inputs, body) if isinstance(self.base, InGraph) else (self.encode(inputs), body)

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        recipe = self.base.recipe(rows, num_labels)
        if not recipe.solved:
            return recipe
        return recipe_of_bags(rows) if isinstance(self.base, LinearBag) else recipe_of_layers(rows)

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values, tensors = self.base.stored()
        return {"settings": self.settings, "base": self.base.name, "base_values": values}, tensors

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> Custom:
        base = cls.models[values["base"]].from_stored(values["base_values"], tensors)
        return cls(base, values["settings"])
