"""Reads matrices of scores, or of labels, that any tool wrote: a row for each row, a column for each label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lopsided.data.formats import npy
from lopsided.data.formats.arrow import opened, tables
from lopsided.data.inputs import Numbered
from lopsided.data.opening import shown
from lopsided.data.options import DEFAULT
from lopsided.data.storage import UserError

ENDINGS = (".npz", ".npy", ".parquet", ".csv", ".tsv")
_SCORES = ("scores", "logits", "predictions", "probabilities")
_LABELS = ("truth", *npy.LABELS)


@dataclass(frozen=True)
class Matrix:
    """Holds what a file has for each row and label. names: of the labels, None where the file does not tell them.

    values: (rows, L) numbers, or a matrix of scipy in compressed sparse rows.
    """

    path: Path
    values: Any
    names: tuple[str, ...] | None

    def in_order_of(self, names: Sequence[str], other: Path) -> Any:
        """Returns the values with the columns of labels in that order. Raises UserError for other labels."""
        if self.values.shape[1] != len(names):
            raise UserError(f"{self.path}: {self.values.shape[1]} labels, but {other} has {len(names)}")
        if self.names is None or isinstance(names, Numbered) or self.names == tuple(names):
            return self.values
        if strange := sorted({*self.names} - {*names}) or sorted({*names} - {*self.names}):
            where = self.path if strange[0] in self.names else other
            raise UserError(f"{self.path}: its labels are not those of {other}: {shown(strange[0])} is only in {where}")
        place = {name: column for column, name in enumerate(self.names)}
        return self.values[:, [place[name] for name in names]]


def read_matrix(path: Path) -> Matrix:
    """Reads an array or sparse matrix of numpy or scipy, or a Parquet, CSV or TSV file with a column for each label.

    Raises UserError for what is no matrix of numbers.
    """
    ending = path.suffix.lower()
    if ending in (".npy", ".npz"):
        return _of_arrays(path)
    if ending in ENDINGS:
        return _of_table(path, ending)
    raise UserError(f"{path}: expected a matrix of numbers in a file that ends in {', '.join(ENDINGS)}")


def _of_arrays(path: Path) -> Matrix:
    arrays = npy.load_arrays(path)
    if set(arrays) >= npy.SPARSE:
        from scipy.sparse import csr_matrix  # importing it takes long

        indptr, indices, values, shape = npy.csr_arrays(path, arrays)
        return Matrix(path, csr_matrix((values, indices, indptr), shape), None)
    fitting = {name: array for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind in "fiub"}
    if len(fitting) > 1:
        fitting = {name: array for name, array in fitting.items() if name.lower() in (*_SCORES, *_LABELS)}
    if len(fitting) != 1:
        present = ", ".join(f"{name or 'one'} {array.shape} {array.dtype}" for name, array in arrays.items())
        raise UserError(f"{path}: expected one array (rows, labels) of numbers, there are: {present}")
    (values,) = fitting.values()
    names = npy.label_names_of(path, arrays, values.shape[1])
    return Matrix(path, np.asarray(values), None if isinstance(names, Numbered) else tuple(names))


def _of_table(path: Path, ending: str) -> Matrix:
    with opened(path) as pyarrow, path.open("rb") as file:
        from pyarrow import csv, parquet

        if ending == ".parquet":
            rows = parquet.ParquetFile(file)
            table = pyarrow.concat_tables([rows.schema_arrow.empty_table(), *tables(path, rows, DEFAULT)])
        else:
            table = csv.read_csv(file, parse_options=csv.ParseOptions(delimiter="\t" if ending == ".tsv" else ","))
    names = tuple(table.column_names)
    columns = [column.to_numpy() for column in table.columns]
    if len(columns) == 1 and columns[0].dtype == object and len({len(row) for row in columns[0]}) == 1:
        return Matrix(path, np.stack(columns[0].tolist()), None)  # a list in each cell
    for name, column in zip(names, columns, strict=True):
        if column.dtype.kind not in "fiub":
            raise UserError(f"{path}: column {shown(name)} holds no numbers; there must be a column for each label")
    if ending != ".parquet" and _are_numbers(names) and names != tuple(Numbered(len(names))):
        raise UserError(f"{path}: line 1 must name the labels, it has numbers: {shown(', '.join(names))}")
    return Matrix(path, np.stack(columns, 1), names)


def _are_numbers(names: Sequence[str]) -> bool:
    try:
        return bool([float(name) for name in names])
    except ValueError:
        return False
