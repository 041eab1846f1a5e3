"""Chooses the reader for a file of rows that `lopsided fit` and `lopsided evaluate` take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lopsided.data.sparse_files import SparseRows, read_sparse
from lopsided.data.storage import UserError

READERS = dict.fromkeys((".txt", ".svm", ".svmlight", ".libsvm"), read_sparse)  # by file ending


def read_sparse_rows(path: Path, on_bytes: Callable[[int], None] = lambda count: None) -> SparseRows:
    """Reads a file by its ending. Raises UserError for anything a user got wrong."""
    if path.is_dir():
        raise UserError(f"{path}: a folder, but neither a data file nor a run folder (which has a config.json)")
    if path.suffix.lower() not in READERS:
        raise UserError(f"{path}: cannot tell its format; name it {', '.join(READERS)}")
    return READERS[path.suffix.lower()](path, on_bytes)
