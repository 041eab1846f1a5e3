"""Reads any file of rows: `read` with labels, `read_inputs` without, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lopsided.data.dataset import Dataset
from lopsided.data.formats import (
    arff,
    arrow,
    coco,
    delimited,
    docred,
    fasttext,
    image_folder,
    jsonl,
    npy,
    svmlight,
    xlsx,
)
from lopsided.data.formats.base import Format
from lopsided.data.inputs import Inputs, Numbered
from lopsided.data.labels.names import sorted_names
from lopsided.data.labels.targets import Labels, rename
from lopsided.data.opening import STANDARD_INPUT, OnBytes, Say, ending_of, ignore, open_bytes, shown
from lopsided.data.options import ReadOptions
from lopsided.data.records import Kept, all_inputs, input_blocks, read_records
from lopsided.data.storage import UserError
from lopsided.data.target_files import with_targets, without_filtered

__all__ = ["FORMATS", "ReadOptions", "aligned", "labels_beside", "read", "read_inputs", "renamed"]

_MODULES = (jsonl, delimited, xlsx, fasttext, svmlight, arff, npy, docred, coco)
_LISTED = (*(module.FORMAT for module in _MODULES), *arrow.FORMATS, image_folder.FORMAT)
FORMATS: dict[str, Format] = {form.name: form for form in _LISTED}
_OTHER_SHEETS = (".xls", ".xlsb", ".ods", ".numbers")


def read(path: Path, options: ReadOptions | None = None, on_bytes: OnBytes = ignore) -> Dataset:
    """Reads all rows of a file with their labels. What was found out about it stands in the data set's notes.

    on_bytes is called with the number of bytes read, as they are. Raises UserError for anything a user got wrong.
    """
    options = options or ReadOptions()
    data = _read(path, find_format(path, options), options, on_bytes)
    return without_filtered(data, options.filter_file, options) if options.filter_file else data


def _read(path: Path, form: Format, options: ReadOptions, on_bytes: OnBytes) -> Dataset:
    notes: list[str] = []
    targets = labels_beside(path, options)
    if targets or form.blocks is None:
        _refuse_columns_of_records(path, options)
    if targets:
        return with_targets(_all_inputs(path, form, options, on_bytes, notes.append), path, targets, options, notes)
    if form.read is not None:
        return form.read(path, options, on_bytes)
    assert form.blocks is not None
    return read_records(path, form.blocks(path, options, notes.append, on_bytes), options, notes)


def _refuse_columns_of_records(path: Path, options: ReadOptions) -> None:
    for name, column in (("--group-column", options.group_column), ("--join-by", options.join_by)):
        if column:
            raise UserError(f"{path}: {name} {shown(column)} is for a file whose columns hold rows and labels")


def labels_beside(path: Path, options: ReadOptions) -> Path | None:
    """Returns the file with the labels of the rows of another; None where they stand in that one."""
    if options.targets_file is not None:
        return options.targets_file
    form = find_format(path, options)
    return form.find_targets(path, options) if form.find_targets else None


def _all_inputs(path: Path, form: Format, options: ReadOptions, on_bytes: OnBytes, say: Say) -> Inputs:
    """Reads the inputs of all rows, whose labels stand elsewhere."""
    if form.read_all_inputs is not None:
        return form.read_all_inputs(path, options, on_bytes)
    if form.blocks is None:
        raise UserError(f"{path}: --targets-file is for files without labels, but a {form.name} file has them itself")
    return all_inputs(path, form.blocks(path, options, say, on_bytes), options, say)


def read_inputs(
    path: Path,
    options: ReadOptions | None = None,
    on_bytes: OnBytes = ignore,
    say: Say = ignore,
    keep: Sequence[str] = (),
    on_kept: Kept = ignore,
) -> Iterator[Inputs]:
    """Yields the rows of a file in blocks of some thousands, in constant memory. Labels are not looked at.

    say is called with each sentence on how the file is understood. keep: names of more columns of a file of records,
    whose cells on_kept is given before each block. Raises UserError as `read` does.
    """
    options = options or ReadOptions()
    form = find_format(path, options)
    if form.blocks is not None:
        yield from input_blocks(path, form.blocks(path, options, say, on_bytes), options, say, keep, on_kept)
    elif keep:
        raise UserError(f"{path}: --keep {shown(keep[0])}: a {form.name} file has no columns of texts")
    elif form.read_inputs is not None:
        yield from form.read_inputs(path, options, on_bytes)
    else:
        assert form.read is not None
        data = form.read(path, options, on_bytes)
        for note in data.notes:
            say(note)
        yield data.inputs


def aligned(parts: Sequence[Dataset]) -> list[Dataset]:
    """Gives all parts of a data set the same labels in the same order: those of all of them.

    Raises UserError if that is not at least two.
    """
    names = _all_names(parts)
    if len(names) < 2:
        labels = f"only the label {shown(names[0])}" if len(names) else "no labels at all"
        raise UserError(f"{labels}; a multi-label problem needs at least two different labels")
    return [renamed(part, names) for part in parts]


def renamed(part: Dataset, names: Sequence[str]) -> Dataset:
    """Returns the data set with the labels `names`, among which are all of its own."""
    if part.label_names == names:
        return part
    if isinstance(names, Numbered) and isinstance(part.label_names, Numbered) and not part.unlisted_unknown:
        return replace(part, targets=replace(part.targets, num_labels=len(names)), label_names=names)
    labels = Labels(part.targets, part.label_names, part.unlisted_unknown)
    return replace(part, targets=rename(labels, names), label_names=names)


def _all_names(parts: Sequence[Dataset]) -> Sequence[str]:
    first = parts[0].label_names
    if all(part.label_names == first for part in parts):
        return first
    if all(isinstance(part.label_names, Numbered) for part in parts):
        return Numbered(max(part.num_labels for part in parts))
    return sorted_names({name for part in parts for name in part.label_names})


def find_format(path: Path, options: ReadOptions) -> Format:
    """Returns the format of a file, by options.format, its ending or its first bytes. Raises UserError if none fits."""
    if options.format is not None:
        if options.format not in FORMATS:
            raise UserError(f"no format {shown(options.format)}; --format is one of {', '.join(FORMATS)}")
        return FORMATS[options.format]
    if path != STANDARD_INPUT and not path.exists():
        raise UserError(f"{path}: no such file")
    start = b""
    if path.is_file():  # what is read from a pipe is gone
        with open_bytes(path) as file:
            start = file.peek(4096)
    ending = ending_of(path)
    fitting = [form for form in FORMATS.values() if not form.endings or ending in form.endings]
    recognized = [form for form in fitting if form.recognizes and form.recognizes(path, start)]
    by_ending = [form for form in fitting if form.endings and not form.recognizes]
    if recognized or by_ending:
        return (recognized or by_ending)[0]
    if path.is_file() and not start:
        raise UserError(f"{path}: an empty file")
    if ending in _OTHER_SHEETS:
        raise UserError(f"{path}: {ending} is not read; save the sheet as .xlsx or as CSV")
    kind = "a folder" if path.is_dir() else "a file" if path.is_file() else "input"
    raise UserError(f"{path}: {kind} whose format cannot be told; say it with --format: {', '.join(FORMATS)}")
