"""Defines what a person may say about a file when what it holds can be read in two ways."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class ReadOptions:
    """Says how a file is to be read. A field that is None or empty is found out from the file, and noted.

    Each field is an option of the commands: `text_columns` is --text-column, `label_columns` --label-columns, any other
    has its own name with dashes.

    format: a name in `FORMATS`. encoding: of the characters, such as "cp1252". delimiter: between columns of a CSV.
    quoting: whether a quotation mark may enclose a cell ("standard") or is a letter like any other ("none").
    column_names: for a CSV without a header.
    text_columns: joined with line ends. label_columns: names, or patterns such as "is_*".
    separator: between the labels of one cell; "" if a cell is one label.
    label_form: "names" if a cell holds names or numbers of labels, "vector" if it holds a value for each label,
    "columns" if each column is a label and its cells are values.
    labels_file: names of labels, one a line; numbers in the data count its lines from 0.
    absent: what a label is that a row does not mention although it could.
    unknown, negative, positive: cells that mean that besides the usual ones, such as "-1" or "x".
    join_by: a column; rows that agree there are one row, with the labels of all of them ("" if every line is a row).
    group_column: rows that agree there never fall on both sides of a split.
    targets_file: has the labels of the rows, if they do not stand in the data file.
    filter_file: lines of a row and a label, both numbered from 0, that are not to be judged.
    feature_columns: that are inputs, if they are no texts; the array of a .npz file. category_columns: of them, those
    whose numbers stand for categories.
    unknown_array: of a .npz file, true where a label is unknown.
    image_column: with paths of images; image_folder: what they are relative to.
    """

    format: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    quoting: Literal["standard", "none"] | None = None
    column_names: tuple[str, ...] = ()
    text_columns: tuple[str, ...] = ()
    label_columns: tuple[str, ...] = ()
    separator: str | None = None
    label_form: Literal["names", "vector", "columns"] | None = None
    labels_file: Path | None = None
    absent: Literal["negative", "unknown"] | None = None
    unknown: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    join_by: str | None = None
    group_column: str | None = None
    targets_file: Path | None = None
    filter_file: Path | None = None
    feature_columns: tuple[str, ...] = ()
    category_columns: tuple[str, ...] = ()
    unknown_array: str | None = None
    image_column: str | None = None
    image_folder: Path | None = None
