"""Reads the columnar formats of Arrow: Parquet, Arrow and Feather files, and Hugging Face's folders of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lopsided.data.formats.base import BLOCK_ROWS, Block, Format
from lopsided.data.labels.names import is_text
from lopsided.data.opening import OnBytes, Say, Unpacked, readable, shown
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError
from lopsided.data.tables import Vectors

if TYPE_CHECKING:
    import pyarrow


_AT_ONCE = 256  # rows of a Parquet file; one text may stand for the texts of all of them, and be a megabyte
_CELL = 8  # bytes that a cell of text takes in Python, however few it has in a file
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}  # of the cells of a Parquet file; those of others take _CELL


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Gives pyarrow, and turns its errors into a UserError."""
    try:
        import pyarrow
    except ImportError:
        raise UserError(f"{path}: needs the package pyarrow; install it with: pip install 'lopsided[files]'") from None
    try:
        with readable(path):
            yield pyarrow
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: {shown(' '.join(str(error).split()), 100)}") from None


def read_parquet(path: Path, options: ReadOptions, say: Say, on_bytes: OnBytes) -> Iterator[Block]:
    """Yields the rows of a Parquet file in blocks."""
    with opened(path):
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            total = max(1, file.metadata.num_rows)
            yield from _blocks(tables(path, file, options), 1, path.stat().st_size / total, say, on_bytes)


def tables(path: Path, file: pyarrow.parquet.ParquetFile, options: ReadOptions) -> Iterator[pyarrow.Table]:
    """Yields the rows of a Parquet file in blocks.

    Raises UserError as soon as the file says, or shows, that they have more bytes than options.max_unpacked allows.
    """
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    sizes = (
        max(column.total_uncompressed_size, _WIDTHS.get(column.physical_type, _CELL) * column.num_values)
        for column in columns
    )
    Unpacked(path, options).add(sum(sizes))
    return _bounded(path, file.iter_batches(_AT_ONCE), options)


def _bounded(path: Path, batches: Iterable[pyarrow.RecordBatch], options: ReadOptions) -> Iterator[pyarrow.Table]:
    """Yields rows in blocks. Raises UserError as soon as they take more than options.max_unpacked allows."""
    import pyarrow

    unpacked = Unpacked(path, options)
    part: list[pyarrow.RecordBatch] = []
    for batch in map(_checked, batches):
        for column in batch.columns:
            is_number = pyarrow.types.is_primitive(column.type)  # it takes what it has in a file
            unpacked.add(len(column) * column.type.bit_width // 8 if is_number else column.nbytes + _CELL * len(column))
        part.append(batch)
        if sum(each.num_rows for each in part) >= BLOCK_ROWS:
            yield pyarrow.Table.from_batches(part)
            part = []
    if part:
        yield pyarrow.Table.from_batches(part)


def read_arrow(path: Path, options: ReadOptions, say: Say, on_bytes: OnBytes) -> Iterator[Block]:
    """Yields the rows of an Arrow file, of the file or the stream format, in blocks."""
    yield from _blocks(_batches(path, options), 1, 0, say, on_bytes)
    on_bytes(path.stat().st_size)


def read_folder(path: Path, options: ReadOptions, say: Say, on_bytes: OnBytes) -> Iterator[Block]:
    """Yields the rows of a data set that Hugging Face's `save_to_disk` wrote, in blocks."""
    if (path / "dataset_dict.json").exists():
        splits = _inside(path, "dataset_dict.json", "splits")
        if len(splits) != 1:
            raise UserError(f"{path}: holds several data sets; name one: {', '.join(map(str, splits))}")
        path = splits[0]
    files = _inside(path, "state.json", "_data_files")
    names = _class_names(_read_json(path / "dataset_info.json").get("features"))
    rows = 1
    for file in files:
        for block in _blocks(_batches(file, options), rows, 0, say, on_bytes, names):
            rows += len(block)
            yield block
        on_bytes(file.stat().st_size)


def _inside(folder: Path, file: str, field: str) -> list[Path]:
    """Returns the files or folders that a file of a folder lists, which lie in it."""
    listed = _read_json(folder / file).get(field)
    listed = listed if isinstance(listed, list) else [listed]
    names: list[Any] = [each.get("filename") if isinstance(each, dict) else each for each in listed]
    for name in names:
        if not isinstance(name, str) or name in ("", "..") or Path(name).name != name or not is_text(name):
            raise UserError(f"{folder / file}: field {field}: expected names of files beside it, got {shown(name)}")
    return [folder / name for name in names]


def _read_json(path: Path) -> dict[str, Any]:
    with readable(path):
        text = path.read_bytes()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, got {shown(text[:40])}")
    return content


def _batches(path: Path, options: ReadOptions) -> Iterator[pyarrow.Table]:
    with opened(path) as pyarrow, pyarrow.OSFile(str(path)) as file:
        try:
            reader = pyarrow.ipc.open_file(file)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        except pyarrow.ArrowInvalid:
            file.seek(0)
            batches = iter(pyarrow.ipc.open_stream(file))
        yield from _bounded(path, chain.from_iterable(map(_pieces, batches)), options)


def _checked(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    """Returns rows whose offsets lie in their buffers and whose texts are texts; what uses others may crash."""
    batch.validate(full=True)
    return batch


def _pieces(batch: pyarrow.RecordBatch) -> Iterator[pyarrow.RecordBatch]:
    return (batch.slice(start, BLOCK_ROWS) for start in range(0, batch.num_rows, BLOCK_ROWS))


def _blocks(
    batches: Iterable[pyarrow.Table],
    first_row: int,
    row_bytes: float,
    say: Say,
    on_bytes: OnBytes,
    names: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Block]:
    row = first_row
    for batch in batches:
        if names is None:
            names = _class_names(_features_in((batch.schema.metadata or {}).get(b"huggingface", b"{}")))
        if row == 1 and names:
            say(f"names of labels are those that the file declares for {', '.join(map(shown, names))}")
        yield _block(batch, row, names)
        on_bytes(int(row_bytes * (row - 1 + batch.num_rows)) - int(row_bytes * (row - 1)))
        row += batch.num_rows


def _block(batch: pyarrow.Table, row: int, names: Mapping[str, Sequence[str]]) -> Block:
    def column(name: str) -> Sequence[Any]:
        cells = vectors_of(batch.column(name)) or batch.column(name).to_pylist(maps_as_pydicts="lossy")
        return [_named(cell, names[name]) for cell in cells] if name in names else cells

    return Block(batch.schema.names, column, range(row, row + batch.num_rows), "row")


def vectors_of(column: pyarrow.ChunkedArray) -> Vectors | None:
    """Returns lists of numbers with a fraction, all of one length and without gaps; None for all other cells."""
    import pyarrow
    from pyarrow import compute

    lists = pyarrow.ListType | pyarrow.LargeListType | pyarrow.FixedSizeListType
    if not isinstance(column.type, lists) or column.type.value_type not in (pyarrow.float32(), pyarrow.float64()):
        return None
    numbers, lengths = column.combine_chunks().flatten(), compute.list_value_length(column).unique()
    if len(lengths) != 1 or column.null_count or numbers.null_count:
        return None
    return Vectors(numbers.to_numpy().reshape(len(column), lengths[0].as_py()))


def _features_in(metadata: bytes) -> Any:
    """Returns what Hugging Face's metadata say of the columns."""
    try:
        return json.loads(metadata)["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _class_names(features: Any) -> dict[str, list[str]]:
    """Returns the names behind the numbers of columns that Hugging Face calls ClassLabel, or lists of it."""
    result: dict[str, list[str]] = {}
    for name, feature in features.items() if isinstance(features, dict) else ():
        while isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        while isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
            feature = feature["feature"]
        if (
            isinstance(feature, dict)
            and feature.get("_type") == "ClassLabel"
            and isinstance(feature.get("names"), list)
        ):
            result[name] = list(map(str, feature["names"]))
    return result


def _named(cell: Any, names: Sequence[str]) -> Any:
    if isinstance(cell, list):
        return [_named(item, names) for item in cell]
    return names[cell] if isinstance(cell, int) and 0 <= cell < len(names) else None


def _is_folder(path: Path, start: bytes) -> bool:
    return (path / "state.json").exists() or (path / "dataset_dict.json").exists()


FORMATS = (
    Format("parquet", (".parquet", ".pq"), blocks=read_parquet),
    Format("arrow", (".arrow", ".feather"), blocks=read_arrow),
    Format("huggingface", recognizes=_is_folder, blocks=read_folder),
)
