"""Changes one thing in a file of a run: a byte, a field, a tensor, or the file itself."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from tests.campaigns.mutations import damaged

VALUES: tuple[Callable[[], Any], ...] = (
    *(lambda: None, lambda: True, lambda: -1, lambda: 0, lambda: 1, lambda: 0.5, lambda: 1e308, lambda: -1e308),
    *(lambda: float("nan"), lambda: float("inf"), lambda: 10**400, lambda: 2**63, lambda: 2**31, lambda: 10**9),
    *(lambda: "", lambda: "x", lambda: "x" * 2000, lambda: "\x1b[31m\u202e=1+1", lambda: "\ud800", lambda: "a\0b"),
    *(lambda: "../../x", lambda: "/dev/null", lambda: "os:system", lambda: "asl(gamma_neg=1e400)", lambda: "nan"),
    *(lambda: [], lambda: {}, lambda: [None], lambda: [[]], lambda: {"kind": "Threshold"}, lambda: [1] * 10_000),
    *(lambda: {"kind": "Rule"}, lambda: {"": 1}, lambda: "bce", lambda: "powerset", lambda: "1", lambda: "0"),
)


def tamper(path: Path, random: Random) -> str:
    """Changes a file, and says how."""
    if random.random() < 0.08:
        return _replaced(path, random)
    if random.random() < 0.2:
        path.write_bytes(damaged(path.read_bytes(), random))
        return "bytes"
    if path.suffix == ".json":
        content, how = changed(json.loads(path.read_text()), random)
        path.write_text(_deep(json.dumps(content), random))
        return how
    if path.suffix == ".safetensors":
        return _tensors(path, random)
    if path.suffix == ".csv":
        return _cells(path, random)
    path.write_bytes(damaged(path.read_bytes(), random))
    return "bytes"


def _replaced(path: Path, random: Random) -> str:
    way = random.choice(("gone", "empty", "folder", "link to itself", "of another kind"))
    other = random.choice([each for each in path.parent.iterdir() if each.is_file()]).read_bytes()
    path.unlink()
    if way == "empty":
        path.touch()
    elif way == "folder":
        path.mkdir()
    elif way == "link to itself":
        path.symlink_to(path.name)
    elif way == "of another kind":
        path.write_bytes(other)
    return way


def _deep(text: str, random: Random) -> str:
    """The text, rarely with a value so deep that no recursion reaches its end."""
    return text.replace("null", "[" * 100_000 + "]" * 100_000, 1) if random.random() < 0.02 else text


def changed(content: Any, random: Random) -> tuple[Any, str]:
    """JSON with one field changed, and which."""
    path: list[Any] = []
    place = content
    while isinstance(place, dict | list) and place and (not path or random.random() < 0.8):
        path.append(random.choice(list(place) if isinstance(place, dict) else range(len(place))))
        place = place[path[-1]]
    if not path:
        return random.choice(VALUES)(), "all"
    owner = content
    for step in path[:-1]:
        owner = owner[step]
    way = random.choice(("set", "set", "set", "set", "drop", "double", "rename"))
    where = ".".join(map(str, path))
    if way == "drop":
        del owner[path[-1]]
    elif way == "double" and isinstance(owner, list):
        owner.append(place)
    elif way in ("double", "rename") and isinstance(owner, dict):
        owner[f"{path[-1]}x"] = owner.pop(path[-1]) if way == "rename" else place
    else:
        owner[path[-1]] = random.choice(VALUES)()
    return content, f"{way} {where}"


def _cells(path: Path, random: Random) -> str:
    lines = path.read_text().split("\n")
    number = random.randrange(len(lines))
    cells = lines[number].split(",")
    cells[random.randrange(len(cells))] = str(random.choice(VALUES)()).encode("utf-8", "replace").decode()
    lines[number] = ",".join(cells)
    path.write_text("\n".join(lines))
    return f"line {number + 1}"


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _tensors(path: Path, random: Random) -> str:
    header, body = _read(path)
    metadata = header.get("__metadata__", {})
    way = random.choice(("header", "metadata", "tensor", "tensor", "tensor"))
    if way == "metadata" and metadata:
        name = random.choice(list(metadata))
        try:
            content, how = changed(json.loads(metadata[name]), random)
            metadata[name] = _deep(json.dumps(content), random)
        except ValueError:
            metadata[name], how = str(random.choice(VALUES)()).encode("utf-8", "replace").decode(), "all"
        _write(path, header, body)
        return f"metadata {name}: {how}"
    if way == "tensor":
        from safetensors.torch import load

        tensors = load(path.read_bytes())
        name = random.choice(list(tensors))
        made, how = _changed(tensors.pop(name), random)
        tensors |= {} if made is None else {name: made}
        path.write_bytes(save(tensors, metadata or None))
        return f"tensor {name}: {how}"
    header, how = changed(header, random)
    _write(path, header, body)
    return f"header {how}"


def _write(path: Path, header: Any, body: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def _changed(tensor: Tensor, random: Random) -> tuple[Tensor | None, str]:
    ways: dict[str, Callable[[], Tensor | None]] = {
        "gone": lambda: None,
        "nan": lambda: _filled(tensor, float("nan")),
        "one nan": lambda: _with(tensor, float("nan")),
        "inf": lambda: _with(tensor, float("inf")),
        "huge": lambda: _with(tensor, 3e38),
        "negative": lambda: _with(tensor, -1),
        "zero": lambda: torch.zeros_like(tensor),
        "large numbers": lambda: torch.full_like(tensor, 2**30).nan_to_num(),
        "empty": lambda: torch.zeros(2**25, 0),
        "no row": lambda: tensor[:0] if tensor.ndim else torch.zeros(0),
        "longer": lambda: torch.cat([tensor.reshape(-1), tensor.reshape(-1)]),
        "a number": lambda: tensor.reshape(-1)[:1].reshape(()) if tensor.numel() else torch.tensor(1.0),
        "one more dimension": lambda: tensor[None],
        "double": lambda: tensor.double(),
        "whole": lambda: tensor.nan_to_num().long(),
        "half": lambda: tensor.half(),
        "bool": lambda: tensor.bool(),
        "turned": lambda: tensor.T if tensor.ndim == 2 else tensor.flip(0) if tensor.ndim else tensor,
    }
    way = random.choice(list(ways))
    made = ways[way]()
    return None if made is None else made.contiguous().clone(), way


def _filled(tensor: Tensor, value: float) -> Tensor:
    return torch.full(tensor.shape, value, dtype=tensor.dtype if tensor.is_floating_point() else torch.float32)


def _with(tensor: Tensor, value: float) -> Tensor:
    """The tensor with one number that is another."""
    made = tensor.clone() if tensor.is_floating_point() or value == -1 else tensor.float()
    if made.numel() and made.dtype != torch.bool:
        made.view(-1)[0] = value if made.is_floating_point() else -1
    return made
