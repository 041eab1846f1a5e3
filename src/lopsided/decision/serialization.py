"""Stores rules and calibrators as tensors and a line of JSON in safetensors: nothing in a file is executed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

_HEADER = "lopsided"  # of the metadata of a file


class Portable:
    """Lets frozen dataclasses of numbers, tensors and each other be moved to a device and saved without pickle."""

    def to(self, device: torch.device | str) -> Self:
        """Returns the same on another device."""
        changed = {name: part.to(device) for name, part in vars(self).items() if isinstance(part, Tensor | Portable)}
        return replace(self, **changed)  # type: ignore[type-var]

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file, for `lopsided.decision.rules.load_rule`."""
        tensors, header = to_tensors(self)
        save_file({name: tensor.cpu() for name, tensor in tensors.items()}, path, {_HEADER: header})


def to_tensors(value: Any) -> tuple[dict[str, Tensor], str]:
    """Returns the tensors of a dataclass, those of its parts with dots in their names, and a JSON header of the rest.

    >>> from lopsided.decision.calibrators import Temperature
    >>> to_tensors(Temperature(0.5))
    ({}, '{"kind": "Temperature", "temperature": 0.5}')
    """
    tensors: dict[str, Tensor] = {}
    return tensors, json.dumps(_described(value, "", tensors))


def _described(value: Any, prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    header: dict[str, Any] = {"kind": type(value).__name__}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, Tensor):
            tensors[prefix + field.name] = part.clone()  # safetensors refuses shared memory
        elif isinstance(part, str | int | float | None):
            header[field.name] = part
        else:
            header[field.name] = _described(part, f"{prefix}{field.name}.", tensors)
    return header


def load(path: str | Path, kinds: Iterable[type]) -> Any:
    """Reads what `Portable.save` wrote, one of these kinds. Raises ValueError for any other file."""
    with safe_open(path, framework="pt") as file:
        header = (file.metadata() or {}).get(_HEADER)
        if header is None:
            raise ValueError(f"{path} holds no rule and no calibrator: write it with rule.save(path)")
        return from_tensors({name: file.get_tensor(name) for name in file.keys()}, header, kinds)  # noqa: SIM118


def from_tensors(tensors: dict[str, Tensor], header: str, kinds: Iterable[type]) -> Any:
    """Restores what `to_tensors` stored, one of these kinds. Raises ValueError, KeyError or TypeError otherwise."""
    return _made(json.loads(header), "", tensors, {kind.__name__: kind for kind in kinds})


def _made(header: dict[str, Any], prefix: str, tensors: dict[str, Tensor], kinds: dict[str, type]) -> Any:
    if header["kind"] not in kinds:
        raise ValueError(f"stored is a {header['kind']!r}, known are {', '.join(kinds)}")
    kind = kinds[header["kind"]]
    parts = {}
    for field in fields(kind):
        if field.name not in header and (prefix + field.name in tensors or field.default is MISSING):
            parts[field.name] = tensors[prefix + field.name]
        elif field.name not in header:
            continue  # a setting that was added after the file was written
        elif isinstance(header[field.name], dict):
            parts[field.name] = _made(header[field.name], f"{prefix}{field.name}.", tensors, kinds)
        else:
            parts[field.name] = header[field.name]
    return kind(**parts)
