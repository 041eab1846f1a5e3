"""Defines what a person may say about a file when what it holds can be read in two ways."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Panel = Literal["Comparison", "Training", "Decision", "Rows", "Reading of files"]  # of the help, in that order


def option(
    default: Any, text: str, *, unset: str = "told by the file", panel: Panel = "Reading of files", **limits: Any
) -> Any:
    """Returns a field that is an option of a command: its default, its help text, and limits.

    unset: says what None, or nothing, stands for. panel: the heading under which the help lists it.
    """
    return Field(default, description=text, json_schema_extra={"unset": unset, "panel": panel}, **limits)


class ReadOptions(BaseModel):
    """Says how a file is to be read. A field that is None or empty is found out from the file, and noted.

    Each field is an option of the commands: `text_columns` is --text-columns, or --text-column for short.

    >>> ReadOptions(label_columns="toxic,obscene").label_columns
    ('toxic', 'obscene')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # to list options, it need not check any

    format: str | None = option(None, "Format of the file; see docs/data.md.")
    encoding: str | None = option(None, "Of the characters, such as cp1252.")
    delimiter: str | None = option(None, "Between the columns of a CSV.")
    quoting: Literal["standard", "none"] | None = option(
        None, "Whether a quotation mark may enclose a cell (standard) or is a letter (none)."
    )
    sheet: str | None = option(None, "Of an .xlsx file.", unset="the only one that is filled")
    column_names: tuple[str, ...] = option((), "Names of the columns of a CSV without a header.", unset="line 1")
    text_columns: tuple[str, ...] = option((), "Columns of texts, joined with line ends.")
    label_columns: tuple[str, ...] = option((), "Columns of labels: names, or patterns such as 'is_*'.")
    separator: str | None = option(None, "Between the labels of a cell; '' if a cell is one label.")
    label_form: Literal["names", "vector", "columns"] | None = option(
        None, "What a cell holds: names of labels, a vector of values, or (columns) the value of one label."
    )
    labels_file: Path | None = option(None, "Names of the labels, one a line, for numbers in the data.", unset="none")
    lower_case: bool = option(
        False, "Write names of labels in lower case, so that Billing and billing are one.", unset="no"
    )
    absent: Literal["negative", "unknown"] | None = option(
        None, "A label that a row could mention and does not: negative or unknown.", unset="asked where it matters"
    )
    unknown: tuple[str, ...] = option((), "More cells that mean that a label is unknown.", unset="none")
    positive: tuple[str, ...] = option((), "Cells that mean that a label is positive, such as ja.", unset="none")
    negative: tuple[str, ...] = option((), "Cells that mean that a label is negative, such as -1.", unset="none")
    join_by: str | None = option(
        None,
        "Column; lines that agree there are one row with all labels. Takes some 100 bytes of memory a row.",
        unset="none",
    )
    group_column: str | None = option(None, "Column; rows that agree there are not parted by a split.", unset="none")

    targets_file: Path | None = option(None, "Has the labels, if they do not stand in the data file.", unset="none")
    filter_file: Path | None = option(
        None, "Lines of a row and a label, both numbered from 0, that are not to be judged.", unset="none"
    )
    decimal: Literal[".", ","] | None = option(
        None, "Before the fraction of a number, . or ,; the other sign groups digits.", unset="a point"
    )
    feature_columns: tuple[str, ...] = option((), "Columns of inputs that are no texts; the array of a .npz file.")
    category_columns: tuple[str, ...] = option((), "Of them, those whose numbers stand for categories.")
    unknown_array: str | None = option(None, "Of a .npz file, true where a label is unknown.", unset="none")
    max_unpacked: float | None = option(
        None,
        "Gigabytes that a compressed file may unpack to, and those that the rows of a Parquet or Arrow file may take.",
        unset="2",
        gt=0,
    )
    max_line: float | None = option(
        None, "Megabytes that a line of a text, or a record of JSON, may have.", unset="32", gt=0
    )
    image_column: str | None = option(None, "Column of the paths of images.")
    image_folder: Path | None = option(None, "What those paths are relative to.", unset="the file's folder")

    def with_categories(self, names: Sequence[str]) -> ReadOptions:
        """Returns the same, but for columns that hold categories elsewhere: here they may look like numbers."""
        return self.model_copy(update={"category_columns": tuple(names)}) if names else self

    @field_validator(
        "column_names",
        "text_columns",
        "label_columns",
        "unknown",
        "positive",
        "negative",
        "feature_columns",
        "category_columns",
        mode="before",
    )
    @classmethod
    def _from_one_string(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


DEFAULT = ReadOptions()
