"""Rules and calibrators as tensors and a line of JSON, which safetensors holds: nothing in a file is executed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from torch import Tensor


def to_tensors(value: Any) -> tuple[dict[str, Tensor], str]:
    """The tensors of a frozen dataclass, those of its parts with dots in their names, and a JSON header of the rest.

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


def from_tensors(tensors: dict[str, Tensor], header: str, kinds: Iterable[type]) -> Any:
    """What `to_tensors` stored, one of these kinds. Raises ValueError, KeyError or TypeError for anything else."""
    return _made(json.loads(header), "", tensors, {kind.__name__: kind for kind in kinds})


def _made(header: dict[str, Any], prefix: str, tensors: dict[str, Tensor], kinds: dict[str, type]) -> Any:
    if header["kind"] not in kinds:
        raise ValueError(f"stored is a {header['kind']!r}, known are {', '.join(kinds)}")
    kind = kinds[header["kind"]]
    parts = {}
    for field in fields(kind):
        if field.name not in header:
            parts[field.name] = tensors[prefix + field.name]
        elif isinstance(header[field.name], dict):
            parts[field.name] = _made(header[field.name], f"{prefix}{field.name}.", tensors, kinds)
        else:
            parts[field.name] = header[field.name]
    return kind(**parts)
