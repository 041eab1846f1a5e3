"""Makes inputs of blocks of cells: texts, paths of images, or a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os.path import isfile  # that of Path raises OSError for a long name
from pathlib import Path
from typing import Any, Protocol

from lopsided.data.image_files import ImageFiles
from lopsided.data.inputs import Inputs, Texts
from lopsided.data.labels.forms import Where, is_missing
from lopsided.data.labels.names import is_text
from lopsided.data.opening import shown
from lopsided.data.storage import UserError

_ONE_ROW = "; of a file of whole columns make one of rows, such as pandas' to_json(orient='records', lines=True)"

Column = Callable[[str], Sequence[Any]]  # from a name to the cells of all rows of a block


class Maker(Protocol):
    """Makes inputs of one kind from the columns that it names."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def make(self, where: Where, column: Column, rows: int) -> Inputs:
        """Makes the inputs of some rows. Raises UserError for a cell that cannot be one."""
        ...

    def join(self, parts: Sequence[Any]) -> Inputs:
        """Joins what `make` returned."""
        ...


@dataclass(frozen=True)
class TextMaker:
    """Makes texts; those of several columns are joined with line ends, and one of them may be empty."""

    names: tuple[str, ...]

    def make(self, where: Where, column: Column, rows: int) -> Texts:
        parts = [self._texts(where, name, column(name)) for name in self.names]
        return Texts(tuple(parts[0]) if len(parts) == 1 else tuple(map("\n".join, zip(*parts, strict=True))))

    def _texts(self, where: Where, name: str, cells: Sequence[Any]) -> list[str]:
        texts = ["" if len(self.names) > 1 and is_missing(cell) else cell for cell in cells]
        for row, text in enumerate(texts):
            if not isinstance(text, str) or not is_text(text):
                got = "nothing" if text is None else shown(text)
                hint = _ONE_ROW * isinstance(text, list | dict)
                raise UserError(f"{where(row)}: {shown(name)} must be valid text, got {got}{hint}")
        return texts

    def join(self, parts: Sequence[Texts]) -> Texts:
        return Texts(tuple(text for part in parts for text in part.texts))


@dataclass(frozen=True)
class ImageMaker:
    """Makes inputs of paths of images, relative to a folder. Each must exist, and is opened when it is needed."""

    names: tuple[str, ...]
    folder: Path

    def make(self, where: Where, column: Column, rows: int) -> ImageFiles:
        paths = column(self.names[0])
        for row, path in enumerate(paths):
            if not isinstance(path, str) or is_missing(path) or not is_text(path):
                raise UserError(f"{where(row)}: {shown(self.names[0])} must be the path of an image, got {shown(path)}")
            if not isfile(self.folder / path):
                raise UserError(
                    f"{where(row)}: no file {shown(self.folder / path, 200)}; say where it is with --image-folder"
                )
        return ImageFiles(self.folder, tuple(paths))

    def join(self, parts: Sequence[ImageFiles]) -> ImageFiles:
        return ImageFiles(self.folder, tuple(name for part in parts for name in part.names))
