"""Writes files that are either complete or not there."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

_UMASK = os.umask(0o022)
os.umask(_UMASK)  # the umask can be read only by setting it


class UserError(Exception):
    """Reports something that the user can mend. The command prints its message as one line and exits with 2."""


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` on a temporary file beside `path`, then renames it: a reader never sees half a file."""

    def open_and_write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            write(file)

    replace_atomically(path, open_and_write)


def write_through(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Does the same, but writes as it comes where there is no file to replace: to -, standard output, or a device."""
    if path == Path("-"):
        write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
    elif path.exists() and not path.is_file() and not path.is_dir():
        with path.open("wb") as file:
            write(file)
    else:
        write_atomically(path, write)


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Does the same for a `write` that wants a path."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path = path.resolve()  # what a link points to is replaced, not the link
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        write(Path(name))
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_UMASK)  # mkstemp's 0600 would hide the file from colleagues
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def is_temporary(path: Path) -> bool:
    """Tells whether a file is one that `replace_atomically` had begun when the process was killed."""
    return path.name.startswith(".") and path.name.count(".") >= 3 and path.is_file()


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def write_csv(path: Path, names: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Writes a header, then the lines."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(lines)
    write_text(path, text.getvalue())


def write_json(path: Path, content: Any) -> None:
    """Writes strict JSON, which every reader can parse. Raises ValueError for NaN and infinities."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
