"""Writes predictions as JSON lines, as CSV or as Parquet, block by block."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from lopsided.data.excerpts import cell, escaped
from lopsided.data.storage import UserError

ENDINGS = ("", ".jsonl", ".json", ".ndjson", ".csv", ".parquet")  # a pipe or a device has none: JSON lines
Add = Callable[[Sequence[dict[str, Any]]], None]  # takes some rows' labels and values


def check_ending(out: Path) -> None:
    """Raises UserError for a name that says no format in which predictions are written."""
    if out.suffix.lower() not in ENDINGS:
        raise UserError(f"--out: {out} must end in .jsonl, .csv or .parquet; - is standard output")


@contextmanager
def writer_for(out: Path, file: BinaryIO, values: str, names: Sequence[str] = ()) -> Iterator[Add]:
    """Yields a function that writes some predictions, in the format that the name of `out` says.

    values: what stands beside the labels, "probabilities" or "scores". names: of texts that say which row it is.
    """
    ending = out.suffix.lower()
    if ending == ".parquet":
        with _parquet(file, values, names) as add:
            yield add
    else:
        yield _csv(file, values, names) if ending == ".csv" else _json_lines(file)


def _json(value: Any) -> str:
    """Returns JSON that a person can read, in which nothing is obeyed by a terminal."""
    return escaped(json.dumps(value, ensure_ascii=False))


def _json_lines(file: BinaryIO) -> Add:
    def add(predictions: Sequence[dict[str, Any]]) -> None:
        file.writelines(_json(each).encode() + b"\n" for each in predictions)

    return add


def _csv(file: BinaryIO, values: str, names: Sequence[str]) -> Add:
    """Writes a JSON list into each cell: names of labels may hold any sign that could stand between them."""
    lists = ["labels", values]

    def write(rows: Iterable[Sequence[str]]) -> None:
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        file.write(text.getvalue().encode())

    write([[*map(cell, names), *lists]])

    def add(predictions: Sequence[dict[str, Any]]) -> None:
        texts = ([cell(each[name]) for name in names] for each in predictions)
        cells = ([_json(each[name]) for name in lists] for each in predictions)
        write([*some, *others] for some, others in zip(texts, cells, strict=True))

    return add


@contextmanager
def _parquet(file: BinaryIO, values: str, names: Sequence[str]) -> Iterator[Add]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise UserError("Parquet needs the package pyarrow; install it with: pip install 'lopsided[files]'") from None
    texts = dict.fromkeys(names, pa.string())
    schema = pa.schema({**texts, "labels": pa.list_(pa.string()), values: pa.list_(pa.float64())})
    with parquet.ParquetWriter(file, schema) as writer:
        yield lambda predictions: writer.write_table(pa.Table.from_pylist(list(predictions), schema))
