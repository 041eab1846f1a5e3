"""Reads a folder of images, with a list of their labels in it or without."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lopsided.data.formats import delimited, jsonl
from lopsided.data.formats.base import BLOCK_ROWS, Block, Format
from lopsided.data.image_files import ENDINGS
from lopsided.data.opening import OnBytes, Say
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

_LISTS = {".jsonl": jsonl.read_blocks, ".csv": delimited.read_blocks, ".tsv": delimited.read_blocks}


def read_blocks(path: Path, options: ReadOptions, say: Say, on_bytes: OnBytes) -> Iterator[Block]:
    """Yields the rows of the one list in the folder; without a list, the images in it, sorted, in a column "image"."""
    lists = sorted(file for file in path.iterdir() if file.suffix.lower() in _LISTS)
    if len(lists) > 1:
        raise UserError(f"{path}: several lists of images; give one: {', '.join(str(file) for file in lists)}")
    if lists:
        say(f"the images are those that {lists[0].name} lists")
        yield from _LISTS[lists[0].suffix.lower()](lists[0], options, say, on_bytes)
        return
    names = (file.relative_to(path).as_posix() for file in sorted(path.rglob("*")) if _is_image(file))
    row = 1
    while part := list(islice(names, BLOCK_ROWS)):
        yield Block(["image"], {"image": part}.__getitem__, range(row, row + len(part)), "image")
        row += len(part)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in ENDINGS and file.is_file()


def recognizes(path: Path, start: bytes) -> bool:
    """Tells a folder in which an image lies, at any depth."""
    return path.is_dir() and any(map(_is_image, path.rglob("*")))


FORMAT = Format("images", recognizes=recognizes, blocks=read_blocks)
