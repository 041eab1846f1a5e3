"""Reads the columnar formats of Arrow: Parquet, Arrow and Feather files, and Hugging Face's folders of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lopsided.data.formats.base import BLOCK_ROWS, Block, Format
from lopsided.data.labels.names import is_text
from lopsided.data.opening import OnBytes, Say, readable, shown
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

if TYPE_CHECKING:
    import pyarrow


@contextmanager
def _arrow(path: Path) -> Iterator[Any]:
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
    with _arrow(path):
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            total = max(1, file.metadata.num_rows)
            batches = map(_checked, file.iter_batches(BLOCK_ROWS))
            yield from _blocks(batches, 1, path.stat().st_size / total, say, on_bytes)


def read_arrow(path: Path, options: ReadOptions, say: Say, on_bytes: OnBytes) -> Iterator[Block]:
    """Yields the rows of an Arrow file, of the file or the stream format, in blocks."""
    yield from _blocks(_batches(path), 1, 0, say, on_bytes)
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
        for block in _blocks(_batches(file), rows, 0, say, on_bytes, names):
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


def _batches(path: Path) -> Iterator[pyarrow.RecordBatch]:
    with _arrow(path) as pyarrow, pyarrow.OSFile(str(path)) as file:
        try:
            reader = pyarrow.ipc.open_file(file)
        except pyarrow.ArrowInvalid:
            file.seek(0)
            for batch in pyarrow.ipc.open_stream(file):
                yield from _pieces(batch)
        else:
            for number in range(reader.num_record_batches):
                yield from _pieces(reader.get_batch(number))


def _checked(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    """Returns rows whose offsets lie in their buffers and whose texts are texts; what uses others may crash."""
    batch.validate(full=True)
    return batch


def _pieces(batch: pyarrow.RecordBatch) -> Iterator[pyarrow.RecordBatch]:
    _checked(batch)
    return (batch.slice(start, BLOCK_ROWS) for start in range(0, batch.num_rows, BLOCK_ROWS))


def _blocks(
    batches: Iterable[pyarrow.RecordBatch],
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


def _block(batch: pyarrow.RecordBatch, row: int, names: Mapping[str, Sequence[str]]) -> Block:
    def column(name: str) -> list[Any]:
        cells = batch.column(name).to_pylist(maps_as_pydicts="lossy")
        return [_named(cell, names[name]) for cell in cells] if name in names else cells

    return Block(batch.schema.names, column, range(row, row + batch.num_rows), "row")


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
