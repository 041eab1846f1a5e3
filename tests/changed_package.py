"""Runs code on a changed copy of the package, in a process of its own that has not imported lopsided.

This module and those that use it must not import lopsided: see `tests/forks.py`.
"""

import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.forks import CONTEXT

ROOT = Path(__file__).parents[1]


def copy_package(folder: Path) -> Path:
    """Returns a copy of src/lopsided, without its C library."""
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info", "_native.*")
    shutil.copytree(ROOT / "src", folder / "src", ignore=left_out)
    return folder / "src/lopsided"


def run(package: Path, where: Path, function: Callable[..., Any], *arguments: Any) -> tuple[int, str]:
    """Returns the exit status of a function that runs on a package, in a working directory, and all that it printed."""
    output = package.parent / "output.txt"
    process = CONTEXT.Process(target=_run, args=(package.parent, where, output, function, *arguments))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode, output.read_text()


def _run(source: Path, where: Path, output: Path, function: Callable[..., Any], *arguments: Any) -> None:
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    assert "lopsided" not in sys.modules, "imported already, from elsewhere"
    sys.path.insert(0, str(source))
    os.environ["PYTHONPATH"] = str(source)  # of the processes that it starts
    os.chdir(where)
    warnings.simplefilter("error")
    function(*arguments)
