"""Reads which categories the images of a COCO instances file show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from os.path import isfile  # that of Path raises OSError for a long name
from pathlib import Path
from typing import Any

import torch

from lopsided.data.dataset import Dataset
from lopsided.data.formats.base import BLOCK_ROWS, Format
from lopsided.data.formats.jsonl import parse
from lopsided.data.image_files import ImageFiles
from lopsided.data.inputs import Inputs
from lopsided.data.labels.names import is_text
from lopsided.data.labels.targets import sparse_targets
from lopsided.data.opening import OnBytes, ignore, open_bytes, shown
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

_START = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"(?:info|images|annotations|categories|licenses|type)"')
_EXAMPLE = '{"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [...], "categories": [...]}'


def read(path: Path, options: ReadOptions, on_bytes: OnBytes = ignore) -> Dataset:
    """Reads images with the categories of their annotations; one without annotations has no label.

    The labels are all categories that the file declares, by their numbers. A crowd (iscrowd) shows its category, too.
    Images lie in options.image_folder, else beside the file or in a folder whose name ends the file's, such as
    train2017 of instances_train2017.json. Raises UserError for anything malformed.
    """
    content = _content(path, options, on_bytes)
    images = _images(path, content, options)
    row_of = {image["id"]: row for row, image in enumerate(content["images"])}
    if len(row_of) < len(images):
        raise UserError(f"{path}: two images have the same id")
    categories = {
        _field(path, "category", category, "id", int): str(category.get("name", category["id"]))
        for category in _list(path, content, "categories")
    }
    names = [categories[number] for number in sorted(categories)]
    if wrong := [name for name in names if not is_text(name)]:
        raise UserError(f"{path}: the name of a category must be valid text, got {shown(wrong[0])}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path}: two categories have the name {shown(twice)}")
    column_of = {number: column for column, number in enumerate(sorted(categories))}
    entries = []
    for annotation in _list(path, content, "annotations"):
        image, category = annotation.get("image_id"), annotation.get("category_id")
        known = isinstance(image, int | str) and isinstance(category, int) and image in row_of and category in column_of
        if not known:
            got = shown(annotation, 100)
            raise UserError(f"{path}: an annotation of an image or category that the file lacks: {got}")
        entries.append((row_of[image], column_of[category]))
    row, column = torch.tensor(entries, dtype=torch.long).reshape(-1, 2).T
    targets = sparse_targets(row, column, None, len(images), len(names))
    return Dataset(images, targets, tuple(names), notes=(f"inputs: {len(images)} images in {images.folder}",))


def read_inputs(path: Path, options: ReadOptions, on_bytes: OnBytes = ignore) -> Iterator[Inputs]:
    """Yields the images in blocks; annotations may be there, or not."""
    images = _images(path, _content(path, options, on_bytes), options)
    for rows in torch.arange(len(images)).split(BLOCK_ROWS):
        yield images.take(rows)


def _content(path: Path, options: ReadOptions, on_bytes: OnBytes) -> dict[str, Any]:
    with open_bytes(path, options, on_bytes) as file:
        text = file.read().decode("utf-8-sig")
    content = parse(str(path), text)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected {_EXAMPLE}, got {shown(content)}")
    return content


def _list(path: Path, content: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = content.get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UserError(f"{path}: expected a list {shown(name)} as in {_EXAMPLE}, got {shown(items)}")
    return items


def _field(path: Path, what: str, item: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(item.get(name), kind):
        raise UserError(f"{path}: expected {shown(name)} of each {what}, got {shown(item, 100)}")
    return item[name]


def _images(path: Path, content: dict[str, Any], options: ReadOptions) -> ImageFiles:
    images = _list(path, content, "images")
    if not images:
        raise UserError(f"{path}: no images")
    names = tuple(_field(path, "image", image, "file_name", str) for image in images)
    for image in images:
        _field(path, "image", image, "id", (int, str))
    part = path.name.partition(".")[0].rpartition("_")[2]
    near = (path.parent, path.parent.parent)
    folders = [folder / inside for folder in near for inside in ("", part, "images", f"images/{part}")]
    if options.image_folder:
        folders = [options.image_folder]
    folder = next((folder for folder in folders if isfile(folder / names[0])), folders[0])
    missing = [name for name in names if not isfile(folder / name)]
    if missing:
        several = f" nor {len(missing) - 1} others of {len(names)}" if len(missing) > 1 else ""
        raise UserError(
            f"{path}: no file {shown(folder / missing[0], 200)}{several}; say where they are with --image-folder"
        )
    return ImageFiles(folder, names)


def recognizes(path: Path, start: bytes) -> bool:
    """Tells such a file from other JSON by the lists that it begins with."""
    return _START.match(start) is not None


FORMAT = Format("coco", (".json",), recognizes, read=read, read_inputs=read_inputs)
