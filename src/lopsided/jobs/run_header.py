"""Tells whose run a folder holds, by the head of its config.json, before anything that reads the rest is imported."""

from __future__ import annotations

import json
import os
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lopsided.data.storage import UserError

SCHEMA = 3
_OWN = (  # files of runs
    *("config.json", "training.json", "model.json", "results*.json", "details.json", "budget.json", "*.safetensors"),
    *("history.csv", "trials.csv", "trials.db", "missing*.csv", "labels*.csv", "README.md"),
)


def is_run_folder(path: Path) -> bool:
    """Tells whether the folder holds the config.json of a run, rather than that of some other program."""
    return _header(path) is not None


def command_of(path: Path) -> str:
    """Returns the command whose run a folder holds. Raises UserError for what this version cannot read."""
    header = _header(path)
    if header is None:
        if (path / "report.html").exists():
            raise UserError(f"{path}: a verdict on scores, not a run folder; its report is {path / 'report.html'}")
        raise UserError(f"{path}: not a run folder: name one that lopsided compare, or lopsided fit, has printed")
    if header.get("schema") != SCHEMA:
        raise UserError(
            f"{path}: written by another version of lopsided (schema {header.get('schema', 'none')}, this reads "
            f"{SCHEMA}): run it again, or use lopsided {header['lopsided']}"
        )
    return str(header.get("command"))


def output(out: Path) -> Path:
    """Returns the file to write that a user names. Raises UserError for one that a run needs."""
    real = Path(os.path.realpath(out))
    if any(fnmatch(real.name, own) for own in _OWN) and is_run_folder(real.parent):
        raise UserError(f"--out: {out} is a file of a run; name another file")
    return out


_PICTURES = ("png", "svg", "pdf")


def picture(path: Path) -> Path:
    """Returns where to write a picture; raises UserError where its ending names no format, or it cannot be written."""
    if path.suffix[1:] not in _PICTURES:
        raise UserError(f"{path}: a plot must end in {', '.join('.' + name for name in _PICTURES)}")
    return output(path)


def graph(path: Path) -> Path:
    """Returns where to write a graph. Raises UserError where its ending does not say so."""
    if path.suffix.lower() != ".onnx":
        raise UserError(f"--out: {path} must end in .onnx")
    return path


def _header(path: Path) -> dict[str, Any] | None:
    try:
        stored = json.loads((path / "config.json").read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return stored if isinstance(stored, dict) and "lopsided" in stored else None
