"""Reads arrays of numpy: embeddings and other features, images, sparse matrices; and matrices of labels."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lopsided.data.dataset import Dataset
from lopsided.data.formats.base import BLOCK_ROWS, Format
from lopsided.data.inputs import Images, Inputs, Numbered, SparseFeatures, Table
from lopsided.data.labels.cells import Values
from lopsided.data.matrices import refuse_gaps, targets_of_matrix
from lopsided.data.opening import OnBytes, check_archive, ignore, read_unpacked, shown
from lopsided.data.options import DEFAULT, ReadOptions
from lopsided.data.storage import UserError
from lopsided.targets import SparseTargets

FEATURES = ("x", "features", "embeddings", "vectors", "inputs", "images", "data")  # usual names, in lower case
LABELS = ("y", "labels", "targets", "label")
LABEL_NAMES = ("classes", "label_names", "class_names", "names")
SPARSE = {"format", "shape", "data"}  # arrays of every matrix that scipy saved
_ROWS_AN_ENTRY, _ROWS_ALWAYS = 100, 2**20  # a matrix that is turned has no more rows
_RENAMED = (("X", "Y"), ("X", "y"), ("x", "y"), ("embeddings", "labels"), ("features", "labels"), ("vectors", "labels"))
_ENDINGS = (".npy", ".npz", ".jsonl", ".txt", ".csv", ".tsv")
_ALONE = ""  # the name of the array of a .npy file

Arrays = dict[str, np.ndarray]


def read(path: Path, options: ReadOptions, on_bytes: OnBytes = ignore) -> Dataset:
    """Reads a .npz file that has features and labels.

    Arrays are chosen by options.feature_columns and options.label_columns, else by their usual names.
    options.unknown_array: an array like that of the labels, true where a label is unknown.
    """
    arrays = load_arrays(path, options)
    labels = _chosen(path, arrays, options.label_columns, LABELS, "labels", "--label-columns")
    values = _with_unknown(path, arrays[labels], options, arrays)
    names = label_names_of(path, arrays, values.shape[1])
    notes = (f"labels: the array {shown(labels)}",)
    data = Dataset(_inputs(path, arrays, options), _targets(path, labels, values), names, notes=notes)
    if len(data.inputs) != len(values):
        raise UserError(f"{path}: {len(data.inputs)} rows, but {len(values)} in the array {shown(labels)}")
    return data


def read_all_inputs(path: Path, options: ReadOptions, on_bytes: OnBytes = ignore) -> Inputs:
    """Reads the features of all rows; those of a .npy file stay on disk until they are needed."""
    return _inputs(path, load_arrays(path, options), options)


def read_inputs(path: Path, options: ReadOptions, on_bytes: OnBytes = ignore) -> Iterator[Inputs]:
    """Yields the same in blocks, for each of which a .npy file is mapped anew: memory is that of a block."""
    arrays = load_arrays(path, options)
    if _ALONE in arrays and len(arrays[_ALONE].shape):
        rows = len(arrays.pop(_ALONE))
        for first in range(0, rows, BLOCK_ROWS):
            part = {_ALONE: np.array(load_arrays(path, options)[_ALONE][first : first + BLOCK_ROWS])}
            yield _inputs(path, part, options, first)
        return
    inputs = _inputs(path, arrays, options)
    for rows in torch.arange(len(inputs)).split(BLOCK_ROWS):
        yield inputs.take(rows)


def find_targets(path: Path, options: ReadOptions) -> Path | None:
    """Returns the file with the labels of the rows of this one; None where they stand in this one.

    Its name is that of this one, with another ending, or with "labels" or "y" for "embeddings" or "X", or with _labels
    at its end.
    """
    with _opened(path, options) as loaded:
        names = [] if isinstance(loaded, np.ndarray) else loaded.files
    if not set(names) >= SPARSE and (options.label_columns or any(name.lower() in LABELS for name in names)):
        return None
    stem = path.name.partition(".")[0]
    stems = {stem, *(stem + end for end in ("_labels", "-labels", "_targets", "_y", "_Y"))}
    stems |= {re.sub(f"(?<![A-Za-z]){old}|{old}(?![A-Za-z])", new, stem) for old, new in _RENAMED}
    beside = sorted(path.parent / (stem + ending) for stem in stems for ending in _ENDINGS)
    present = [other for other in beside if other.is_file() and other.name != path.name]
    if len(present) == 1:
        return present[0]
    several = f"; there are {', '.join(other.name for other in present)}" if present else ""
    raise UserError(f"{path}: name the file with the labels of its rows with --targets-file{several}")


def read_targets(path: Path, options: ReadOptions) -> tuple[SparseTargets, Sequence[str]]:
    """Reads labels, (rows, labels) values or a sparse matrix that scipy saved, and their names."""
    arrays = load_arrays(path, options)
    if set(arrays) >= SPARSE:
        indptr, indices, values, (_, width) = csr_arrays(path, arrays)
        refuse_gaps(path, width, indices, "its shape")
        present = values != 0
        starts = np.pad(present.cumsum(), (1, 0))[indptr]
        listed = _as_values(values[present], options)
        if not _are_values(listed):
            raise UserError(f"{path}: expected labels of 0, 1 or between, got {listed.min():g} to {listed.max():g}")
        soft = None if (listed == 1).all() else torch.from_numpy(listed.astype(np.float32))
        targets = SparseTargets(torch.from_numpy(starts), torch.from_numpy(indices[present]), soft, width)
        return targets, Numbered(width)
    name = (
        _ALONE
        if _ALONE in arrays
        else _chosen(path, arrays, options.label_columns, LABELS, "labels", "--label-columns")
    )
    values = _with_unknown(path, arrays[name], options, arrays)
    return _targets(path, name, values), label_names_of(path, arrays, values.shape[1])


@contextmanager
def _opened(path: Path, options: ReadOptions) -> Iterator[Any]:
    """Opens a file: an array that is mapped into memory, or an archive that reads its arrays when asked for them."""
    try:
        if path.suffix.lower() in (".npy", ".npz"):
            loaded = np.load(path, mmap_mode="c", allow_pickle=False)
        else:
            loaded = np.load(io.BytesIO(read_unpacked(path, options)), allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile) and loaded.zip is not None:
            check_archive(path, loaded.zip, options)
        with contextlib.nullcontext(loaded) if isinstance(loaded, np.ndarray) else loaded:
            yield loaded
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except UserError:
        raise
    except Exception as error:  # numpy reads a header as a piece of Python, in which anything may be wrong
        reason = "damaged, or no file of numpy"
        if str(error).startswith(("Object arrays", "Array can't be memory-mapped: Python objects")):
            reason = "holds Python objects, which could run any code; save arrays of numbers"
        raise UserError(f"{path}: {reason}") from None


def load_arrays(path: Path, options: ReadOptions = DEFAULT) -> Arrays:
    """Returns the arrays of a file by name."""
    with _opened(path, options) as loaded:
        return {_ALONE: loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}


def _chosen(path: Path, arrays: Arrays, asked: Sequence[str], usual: Sequence[str], what: str, option: str) -> str:
    """Returns the name of an array: the one asked for, else the only one of a usual name."""
    present = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in arrays.items())
    if len(asked) > 1 or (asked and asked[0] not in arrays):
        raise UserError(f"{path}: {option} must be one of its arrays: {present}; got {shown(', '.join(asked))}")
    fitting = asked or [name for name in arrays if name.lower() in usual]
    if len(fitting) != 1:
        raise UserError(f"{path}: which array holds the {what}? Say it with {option}; there are {present}")
    return fitting[0]


def _inputs(path: Path, arrays: Arrays, options: ReadOptions, first: int = 0) -> Inputs:
    """Makes inputs of arrays, whose rows begin with row `first` of the file."""
    if set(arrays) >= SPARSE:
        indptr, indices, values, (_, width) = csr_arrays(path, arrays)
        floats = _as_float32(path, values)
        return SparseFeatures(torch.from_numpy(indptr), torch.from_numpy(indices), floats, width, declared=True)
    usual = [name for name in arrays if name.lower() in FEATURES]
    asked = options.feature_columns or (tuple(arrays) if len(arrays) == 1 and not usual else ())
    array = arrays[_chosen(path, arrays, asked, FEATURES, "features", "--feature-columns")]
    if array.ndim and not len(array):
        raise UserError(f"{path}: no rows")
    if array.ndim == 2 and array.dtype.kind in "fiub":
        return Table.of_numbers(_as_float32(path, array, first))
    if array.ndim in (3, 4) and array.dtype == np.uint8:
        return Images(_pixels(path, array))
    raise UserError(
        f"{path}: expected (rows, D) numbers, or images as uint8 (rows, height, width, channels), "
        f"got {array.dtype} {array.shape}"
    )


def _as_float32(path: Path, array: np.ndarray, first: int = 0) -> torch.Tensor:
    """Returns numbers that stay on disk if they are of this type there."""
    with np.errstate(over="ignore"):
        numbers = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    for start in range(0, len(numbers), 2**16):
        if numbers[start : start + 2**16].isinf().any():
            row = start + int(
                numbers[start : start + 2**16].isinf().reshape(-1, numbers[0].numel()).any(1).int().argmax()
            )
            raise UserError(f"{path}, row {first + row + 1}: a number that is infinite or too large for float32")
    return numbers


def _pixels(path: Path, array: np.ndarray) -> torch.Tensor:
    """Returns (rows, channels, height, width); channels, one or three, may come last, or not at all."""
    if array.ndim == 3:
        array = array[..., None]
    last, first = array.shape[3] in (1, 3), array.shape[1] in (1, 3)
    if last == first:
        raise UserError(f"{path}: images must have 1 or 3 channels, the last or second dimension, got {array.shape}")
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2) if last else array))


def csr_arrays(path: Path, arrays: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    """Returns indptr, indices and values of a sparse matrix, and its shape."""
    form = arrays["format"].item()
    form = form.decode() if isinstance(form, bytes) else str(form)
    try:
        rows, width = map(int, arrays["shape"])
        turned = arrays if form == "csr" else _turned(form, arrays, rows, width)
        indptr, indices, values = (np.asarray(turned[name]) for name in ("indptr", "indices", "data"))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: a damaged sparse matrix of the format {form!r}: {error}") from None
    except NotImplementedError:
        raise UserError(
            f"{path}: a sparse matrix of the format {form!r}; save it as csr: save_npz(path, matrix.tocsr())"
        ) from None
    fits = len(indptr) == rows + 1 and len(indices) == len(values) == indptr[-1] and indptr[0] == 0
    if not fits or (np.diff(indptr) < 0).any() or (len(indices) and not 0 <= indices.min() <= indices.max() < width):
        raise UserError(f"{path}: a damaged sparse matrix: its indices do not fit its shape {rows, width}")
    return indptr.astype(np.int64), indices.astype(np.int64), values, (rows, width)


def _turned(form: str, arrays: Arrays, rows: int, width: int) -> dict[str, np.ndarray]:
    """Returns the arrays by rows of a matrix that was saved by columns (csc), or as a list of entries (coo)."""
    if form not in ("csc", "coo"):
        raise NotImplementedError
    if rows > max(_ROWS_ALWAYS, _ROWS_AN_ENTRY * len(arrays["data"])):
        raise ValueError(f"{rows} rows for {len(arrays['data'])} entries")
    from scipy import sparse

    if form == "csc":
        matrix = sparse.csc_array((arrays["data"], arrays["indices"], arrays["indptr"]), (rows, width))
        matrix.check_format(full_check=True)
    else:
        matrix = sparse.coo_array((arrays["data"], (arrays["row"], arrays["col"])), (rows, width))
    matrix = matrix.tocsr()
    return {"indptr": matrix.indptr, "indices": matrix.indices, "data": matrix.data}


def _with_unknown(path: Path, values: np.ndarray, options: ReadOptions, arrays: Arrays) -> np.ndarray:
    """Returns (rows, labels) values, NaN where the user says that they are unknown."""
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        raise UserError(
            f"{path}: expected labels as (rows, labels) numbers from 0 to 1, got {values.dtype} {values.shape}; labels "
            "as numbers or names can stand in a text file, one line a row, given with --targets-file"
        )
    if options.unknown_array is not None:
        name = options.unknown_array
        if name not in arrays or arrays[name].shape != values.shape:
            got = f"{arrays[name].shape}" if name in arrays else "no array of that name"
            raise UserError(f"{path}: --unknown-array {shown(name)} must be an array {values.shape}, got {got}")
        values = np.where(arrays[name] != 0, np.float32(np.nan), values)
    return _as_values(values, options)


def _as_values(values: np.ndarray, options: ReadOptions) -> np.ndarray:
    """Returns values with those replaced that mean unknown, negative or positive, such as -1."""
    replaced = values
    for number, meaning in Values(options).numbers.items():
        replaced = np.where(values == number, np.float32(meaning), replaced)
    return replaced


def _are_values(values: np.ndarray) -> bool:
    return bool(((values >= 0) & (values <= 1) | np.isnan(values.astype(np.float32))).all())


def _targets(path: Path, name: str, values: np.ndarray) -> SparseTargets:
    try:
        return targets_of_matrix(values)
    except ValueError as error:
        array = f", array {shown(name)}" if name else ""
        raise UserError(f"{path}{array}, {error}; if it means unknown or negative: --unknown, --negative") from None


def label_names_of(path: Path, arrays: Arrays, num_labels: int) -> Sequence[str]:
    for name, array in arrays.items():
        if name.lower() in LABEL_NAMES and array.dtype.kind == "U" and array.shape == (num_labels,):
            return tuple(array.tolist())
    return Numbered(num_labels)


FORMAT = Format(
    "npy",
    (".npy", ".npz"),
    read=read,
    read_inputs=read_inputs,
    read_all_inputs=read_all_inputs,
    find_targets=find_targets,
)
