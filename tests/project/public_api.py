"""The public names of the library with their parameters, one a line: `python -m tests.project.public_api` writes them.

Public are the names in `__all__` of `lopsided` and of its rooms below `data`; in a room without `__all__`, the names
without a leading underscore in its modules. Types are left out, since Python versions print them differently.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

SNAPSHOT = Path(__file__).with_name("public_api.txt")
MODULES = ("", ".losses", ".targets", ".nn", ".compat", ".integrations", ".testing", ".metrics", ".decision")


def public_names(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The names that a user may import from a module or, if it has no list of them, from those inside it."""
    if hasattr(module, "__all__"):
        yield from ((f"{module.__name__}.{name}", getattr(module, name)) for name in module.__all__)
        return
    inside = pkgutil.iter_modules(getattr(module, "__path__", []))
    for part in [module, *(importlib.import_module(f"{module.__name__}.{each.name}") for each in inside)]:
        for name, value in vars(part).items():
            defined = inspect.isclass(value) or inspect.isfunction(value)
            if defined and not name.startswith("_") and value.__module__ == part.__name__:
                yield f"{part.__name__}.{name}", value


def parameters(value: Any) -> str:
    """What stands between the parentheses, without types; nothing for a protocol, which is not called."""
    if getattr(value, "_is_protocol", False):
        return ""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def members(name: str, value: type) -> Iterator[str]:
    """The methods and properties of a class that this project defines."""
    ours = [base for base in value.__mro__ if base.__module__.startswith("lopsided")]
    for member in sorted({key for base in ours for key in vars(base) if not key.startswith("_")}):
        found = inspect.getattr_static(value, member)
        if isinstance(found, property):
            yield f"{name}.{member}"
        elif isinstance(found, classmethod | staticmethod) or inspect.isfunction(found):
            yield f"{name}.{member}{parameters(getattr(value, member))}"


def public_api() -> str:
    """The whole list; what is public under two names stands under the shorter one."""
    lines, seen = [], set()
    for module in MODULES:
        for name, value in sorted(public_names(importlib.import_module(f"lopsided{module}"))):
            if not callable(value):
                lines.append(name)
            elif id(value) not in seen:
                seen.add(id(value))
                lines.append(name + parameters(value))
                lines += members(name, value) if isinstance(value, type) else []
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    SNAPSHOT.write_text(public_api())
