"""Names every model: the encoder, and with it the body, that `--model` chooses."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pkgutil
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from lopsided.data.storage import UserError
from lopsided.losses.names import split_specs

if TYPE_CHECKING:
    from lopsided.data.inputs import Inputs
    from lopsided.models.encoder import Encoder

# a module and its class, imported when it is asked for; of those that take the same inputs, the first is the default
_HOMES = {
    "ngrams": "ngrams:NGrams",
    "transformer": "transformers:Transformer",
    "static": "static:Static",
    "linear_bag": "bag:LinearBag",
    "tree": "bag:Tree",
    "bag": "bag:UnitLength",
    "mlp": "tables:MlpTable",
    "linear": "tables:LinearTable",
    "convnet": "convnet:Pixels",
    "resnet": "image_files:ResNetImages",
    "patches": "patches:Patches",
    "vision": "vision:Vision",
    "pairs": "pairs:PairWords",
    "pair_transformer": "pair_transformer:PairTransformer",
}


class _Models(Mapping[str, "type[Encoder]"]):
    """Holds the encoders by name, in the order of `_HOMES`."""

    def __getitem__(self, name: str) -> type[Encoder]:
        module, _, kind = _HOMES[name].partition(":")
        return cast("type[Encoder]", getattr(importlib.import_module(f"lopsided.models.{module}"), kind))

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)


MODELS = _Models()
_TRUSTED: set[str] = set()
TRUST = "LOPSIDED_TRUST"  # the variable that names the code of the user's own that a stored model may run
_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text, in quotation marks"}
_SPEC = re.compile(r"\s*(\w+(?:[.:]\w+)*)\s*(?:\((.*)\))?\s*", re.DOTALL)


def read_model(spec: str) -> tuple[type[Encoder], dict[str, Any]]:
    """Reads a model by name, with settings or without. Raises ValueError, which names what is known, for others.

    >>> read_model("ngrams(hidden=128)")
    (<class 'lopsided.models.ngrams.NGrams'>, {'hidden': 128})
    """
    name, settings = _split(spec)
    kind = class_of(name)
    _, *parameters = inspect.signature(kind.fit).parameters.values()
    _check_settings(name, settings, {parameter.name: parameter.default for parameter in parameters})
    return kind, settings


def _check_settings(name: str, settings: dict[str, Any], known: dict[str, Any]) -> None:
    for setting, value in settings.items():
        if setting not in known:
            raise ValueError(f"{name} has no setting {setting!r}: it has {', '.join(known) or 'none'}")
        wanted = type(known[setting])
        if wanted in _KINDS and type(value) is not wanted and not (wanted is float and type(value) is int):
            raise ValueError(f"{name}: {setting} must be {_KINDS[wanted]}, got {value!r}")


def check_model(spec: str) -> None:
    """Raises ValueError as `read_model` does, but imports no code: neither of the user's own, nor torch."""
    name, settings = _split(spec)
    if ":" not in name:
        _check_known(name)
        _check_settings(name, settings, settings_of(name))


def settings_of(name: str) -> dict[str, Any]:
    """Returns the settings of a model of `_HOMES` with their defaults, read in its source.

    >>> settings_of("bag")
    {'hidden': 256, 'dropout': 0.3, 'unit_length': True}
    """
    module, _, kind = _HOMES[name].partition(":")
    source = pkgutil.get_data("lopsided.models", f"{module}.py")
    own = next(each for each in ast.parse(source or b"").body if isinstance(each, ast.ClassDef) and each.name == kind)
    fit = next(each for each in own.body if isinstance(each, ast.FunctionDef) and each.name == "fit")
    names = [each.arg for each in fit.args.args[2:]]  # without the class and the inputs
    return dict(zip(names, map(ast.literal_eval, fit.args.defaults), strict=True))


def trust(spec: str) -> None:
    """Lets the code of a model of the user's own run in this process: the user has named it."""
    _TRUSTED.add(_split(spec)[0])


def class_of(name: str) -> type[Encoder]:
    """Returns the encoder of that name. Raises ValueError for an unknown one.

    A file must not choose what code runs: raises UserError for code of the user's own that the user has named neither
    by --model nor in the environment variable LOPSIDED_TRUST.
    """
    if ":" in name:
        if name not in _TRUSTED.union(os.environ.get(TRUST, "").split(",")):
            raise UserError(f"the model is made by code of your own, {name}: to run it, set {TRUST}={name}")
        from lopsided.models.custom import custom

        return custom(name, MODELS)
    _check_known(name)
    return MODELS[name]


def _check_known(name: str) -> None:
    if name not in _HOMES:
        known = f"{', '.join(MODELS)}, or package.module:make_model"
        raise ValueError(f"unknown model {name!r}: known are {known}")


def _split(spec: str) -> tuple[str, dict[str, Any]]:
    """Splits name(setting=value, ...); a value that is no Python literal, such as a path, is a text."""
    match = _SPEC.fullmatch(spec)
    settings: dict[str, Any] = {}
    for part in split_specs(match[2] or "") if match else ():
        setting, equals, value = (each.strip() for each in part.partition("="))
        if not equals or not setting.isidentifier() or setting in settings:
            match = None
            break
        try:
            settings[setting] = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            settings[setting] = value
    if match is None:
        raise ValueError(f"cannot read the model {spec[:60]!r}: write a name or name(setting=value, ...)")
    return match[1], settings


def fit_encoder(spec: str | None, inputs: Inputs, num_labels: int = 1) -> Encoder:
    """Fits the encoder of that name, or one that suits such inputs and so many labels, to training inputs.

    Raises ValueError for a model that does not take them, and for settings that it cannot take.
    """
    from lopsided.models.encoder import takes

    if spec is None:
        return _suiting(inputs, num_labels)
    kind, settings = read_model(spec)
    if not takes(kind, inputs):
        suited = [name for name, each in MODELS.items() if takes(each, inputs)]
        raise ValueError(f"{kind.name} takes no {inputs.kind} inputs: choose among {', '.join(suited)}")
    return kind.fit(inputs, **settings)


def _suiting(inputs: Inputs, num_labels: int) -> Encoder:
    """Fits the default model for such inputs and so many labels."""
    from lopsided.data.image_files import ImageFiles
    from lopsided.data.inputs import Images
    from lopsided.models.encoder import takes
    from lopsided.models.patches import MANY_IMAGES

    if isinstance(inputs, ImageFiles) or (isinstance(inputs, Images) and inputs.pixels.shape[1] == 3):  # photographs
        return MODELS["patches" if len(inputs) <= MANY_IMAGES else "resnet"].fit(inputs)
    encoder = next(kind for kind in MODELS.values() if takes(kind, inputs)).fit(inputs)
    for_labels = getattr(encoder, "for_labels", None)  # told by name, since not every class is imported
    return encoder if for_labels is None else cast("Encoder", for_labels(num_labels))
