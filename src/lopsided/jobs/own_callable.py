"""Finds the loss that a user names as file.py:MyLoss or package.module:MyLoss; what is named is run."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from lopsided.data.storage import UserError
from lopsided.losses.names import read

_MODULE = "_checked_file"  # what the file is called in Python, which no import in it can mean


def named_callable(spec: str) -> tuple[str, Callable[..., Any]]:
    """Returns the name in a spec, and its callable: a function as it is, a class built with its defaults or settings.

    >>> named_callable("torch.nn:BCEWithLogitsLoss(reduction=None)")
    ('BCEWithLogitsLoss', BCEWithLogitsLoss())

    Raises UserError where there is none, or where the code raises anything.
    """
    head, bracket, rest = spec.partition("(")
    place, colon, attribute = head.rpartition(":")
    if not (place and colon):
        raise UserError(f"{spec}: name a loss as file.py:MyLoss or package.module:MyLoss")
    try:
        name, settings = read(attribute + bracket + rest)
    except ValueError as error:
        raise UserError(f"{spec}: {error}") from None
    module = _run(place)
    target = getattr(module, name, None)
    if not callable(target):
        has = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        near = difflib.get_close_matches(name, has)
        known = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(has) or 'none'}"
        raise UserError(f"{place} has no callable {name!r}; {known}")
    if not isinstance(target, type):
        return name, functools.partial(target, **settings) if settings else target
    try:
        built = target(**settings)
    except (Exception, SystemExit) as error:  # of code that is not ours
        how = f"with settings, as in '{place}:{name}(gamma=2)'" if not settings else "with other settings"
        raise UserError(f"{name} cannot be built: {type(error).__name__}: {error}; name it {how}") from None
    if not callable(built):
        raise UserError(f"{spec}: what the class {name} builds cannot be called")
    return name, built


def _run(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix == ".py" and not path.is_file():
        raise UserError(f"{place}: there is no such file")
    from lopsided.models.custom import import_here

    try:
        return _run_file(path) if path.suffix == ".py" else import_here(place)
    except (Exception, SystemExit) as error:  # of code that is not ours
        raise UserError(f"{place} cannot be imported: {type(error).__name__}: {error}") from None


def _run_file(path: Path) -> ModuleType:
    """Runs a file as Python runs a script, which finds what lies beside it, but not as `__main__`."""
    sys.path.insert(0, str(path.resolve().parent))
    found = importlib.util.spec_from_file_location(_MODULE, path)
    assert found is not None
    assert found.loader is not None
    module = sys.modules[_MODULE] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
