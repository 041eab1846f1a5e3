"""Writes files that are either complete or not there."""

from __future__ import annotations

import csv
import errno
import glob
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import ValidationError

from lopsided.data.excerpts import cell, visible

if TYPE_CHECKING:
    from torch import Tensor

STANDARD_OUTPUT = Path("-")

_UMASK = os.umask(0o022)
os.umask(_UMASK)  # the umask can be read only by setting it
_END = ".part"  # of the names of temporary files
_LONGEST = 40  # characters of a file's name that stand in that of its temporary file


class UserError(Exception):
    """Reports something that the user can mend. The command prints its message as one line and exits with 2."""


def check_there(*paths: Path | None) -> None:
    """Raises UserError for the first path at which there is nothing; - is standard input."""
    for path in paths:
        if path is not None and path != Path("-") and not path.exists():
            raise UserError(f"{path}: no such file")


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` on a temporary file beside `path`, then renames it: a reader never sees half a file.

    Where there is no file to replace it writes as it comes: to -, standard output, to a device and to a named pipe.
    Raises OSError, with the path, for what cannot be written.
    """
    if path == STANDARD_OUTPUT or _is_special(path):
        with _naming(path), _opened(path) as file:
            write(file)
    else:
        replace_atomically(path, lambda temporary: _write_into(temporary, write))


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with path.open("wb") as file:
            yield file


def _write_into(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with path.open("wb") as file:
        write(file)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Lets an error of the system name the file that a user knows."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or " ".join(str(error).split()), str(path)) from None


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Does the same for a `write` that wants a path."""
    if path == STANDARD_OUTPUT or _is_special(path):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / path.name)
            with (Path(folder) / path.name).open("rb") as source:
                write_atomically(path, lambda file: shutil.copyfileobj(source, file))
        return
    with _naming(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        target = Path(os.path.realpath(path))  # what a link points to is replaced, not the link
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_UMASK
        with _temporary(target) as name:
            write(name)
            with name.open("rb+") as file:
                os.fsync(file.fileno())
            name.chmod(mode)  # that of a new temporary file would hide it from colleagues


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Gives a temporary file that then replaces another; it is locked, and what kills left of others is removed."""
    prefix = f".{target.name[:_LONGEST]}."
    remove_leftovers(target.parent, prefix)
    handle, name = -1, Path()
    while handle < 0:
        handle, made = tempfile.mkstemp(dir=target.parent, prefix=prefix, suffix=_END)
        name = Path(made)
        _lock(handle)
        if not name.exists():  # another process had taken it for a leftover, before it was locked
            os.close(handle)
            handle = -1
    try:
        yield name
        if os.name != "nt":  # which renames no open file
            name.replace(target)
    except BaseException:
        os.close(handle)
        name.unlink(missing_ok=True)
        raise
    os.close(handle)
    if os.name == "nt":
        name.replace(target)


def _lock(handle: int, wait: bool = True) -> None:
    """Locks an open file for this process; nothing on Windows, where an open file cannot be removed."""
    with suppress(ImportError):
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def remove_leftovers(folder: Path, prefix: str = ".") -> None:
    """Removes the temporary files that processes left when they were killed; those of living ones are locked."""
    for path in filter(is_temporary, folder.glob(glob.escape(prefix) + "*" + _END)):
        with suppress(OSError), path.open("rb") as file:  # or it is locked, or gone
            _lock(file.fileno(), wait=False)
            path.unlink()


def is_temporary(path: Path) -> bool:
    """Tells whether a file is one that `replace_atomically` had begun when the process was killed."""
    return re.fullmatch(rf"\..+\.\w+\{_END}", path.name, re.DOTALL) is not None and path.is_file()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    def write(temporary: Path) -> None:
        try:
            save_file(dict(tensors), temporary, metadata)
        except SafetensorError as error:  # it has the number of the system's error in words alone
            number = re.search(r"\(os error (\d+)\)", str(error))
            raise OSError(int(number[1]), os.strerror(int(number[1]))) if number else error from None

    replace_atomically(path, write)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors of a safetensors file and its metadata.

    Raises OSError, and ValueError for a damaged file or where a value is no number.
    """
    from safetensors import SafetensorError, safe_open

    with _nameable(path) as name:
        try:
            with safe_open(name, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it has no iterator
                metadata = file.metadata() or {}
        except SafetensorError as error:
            raise ValueError(str(error)) from None
    for name, tensor in tensors.items():
        if tensor.isnan().any():
            raise ValueError(f"tensor {name} has values that are no numbers")
    return tensors, metadata


@contextmanager
def _nameable(path: Path) -> Iterator[Path]:
    """Gives the path, or a link to it where the name is no text, which safetensors cannot open."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "link").symlink_to(path.absolute())
            yield Path(folder) / "link"
    else:
        yield path


@contextmanager
def intact(path: Path, repair: str) -> Iterator[None]:
    """Turns whatever a damaged file makes go wrong into one UserError; repair: what to do about it.

    Anybody may have written such a file, so that any error is the file's. FileNotFoundError is left to the caller.
    """
    try:
        yield
    except (UserError, FileNotFoundError):
        raise
    except Exception as error:
        raise damaged(path, error, repair) from None


def first_problem(error: ValidationError) -> tuple[list[str], str]:
    """Returns the place of the first bad field, and what is wrong with it, with what came there."""
    first = error.errors(include_url=False)[0]
    message = str(first["msg"]).removeprefix("Value error, ")
    if message.startswith("Input should "):
        message = f"must {message.removeprefix('Input should ')}, got {first['input']!r:.60}"
    return [*map(str, first["loc"])], message


def damaged(path: Path, error: Exception, repair: str) -> UserError:
    """Returns an error of one line that names the file, and the field where it is known."""
    problem = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ValidationError):
        field, message = first_problem(error)
        problem = f"field {'.'.join(field)}: {message}"
    return UserError(f"{path}: damaged ({problem[:200]}); {repair}")


def write_text(path: Path, text: str) -> None:
    """Writes a text but for the characters in it that a terminal obeys."""
    write_atomically(path, lambda file: file.write(visible(text).encode()))


def write_csv(path: Path, names: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Writes a header, then the lines, none of whose texts a spreadsheet would run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([cell(each) if isinstance(each, str) else each for each in line] for line in lines)
    write_text(path, text.getvalue())


def write_json(path: Path, content: Any) -> None:
    """Writes strict JSON, which every reader can parse. Raises ValueError for NaN and infinities."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
