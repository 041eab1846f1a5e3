"""Defines inputs that are image files, decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lopsided.data.inputs import Excerpt, as_png, digest
from lopsided.data.storage import UserError

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_EXCERPT = 64  # pixels of the longer side of what a report shows


@dataclass(frozen=True)
class ImageFiles:
    """Holds the paths of images; a row costs memory only while it is decoded.

    folder: what the names are relative to. names: one file a row.
    """

    kind: ClassVar[str] = "image"
    folder: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Tensor) -> ImageFiles:
        return ImageFiles(self.folder, tuple(self.names[row] for row in rows.tolist()))

    def path(self, row: int) -> Path:
        return self.folder / self.names[row]

    def decode(self, row: int, at_least: int | None = None) -> Tensor:
        """Returns the image as (3, height, width) uint8 RGB, turned the way that its EXIF data say.

        With `at_least`, a JPEG may come smaller, with no side below that many pixels, which is several times as fast.
        Threads can decode at the same time. Raises UserError for a file that is missing or no image.
        """
        image = self._open(row, at_least)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def excerpt(self, row: int) -> Excerpt:
        image = self._open(row, _EXCERPT)
        image.thumbnail((_EXCERPT, _EXCERPT))
        return as_png(torch.from_numpy(np.array(image)).permute(2, 0, 1))

    def keys(self) -> Iterator[bytes]:
        """Yields keys of the contents of the files."""
        for row in range(len(self)):
            try:
                yield digest(self.path(row).read_bytes())
            except OSError as error:
                raise UserError(f"{self.path(row)}: {error.strerror}") from None

    def _open(self, row: int, at_least: int | None) -> Any:
        """Returns a Pillow image in RGB."""
        image_module, ops = _pillow()
        path = self.path(row)
        try:
            with image_module.open(path) as image:
                if at_least is not None:
                    image.draft("RGB", (at_least, at_least))  # of JPEGs alone
                upright = ops.exif_transpose(image)
                if upright.mode.startswith("I;16"):  # Pillow would cut off all above 255
                    upright = image_module.fromarray((np.array(upright) >> 8).astype(np.uint8))
                if upright.mode in ("I", "F"):  # and here, too; what is white is not known
                    raise ValueError("pixels of 32 bits; save it with 8 or 16 bits")
                return upright.convert("RGB")
        except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or str(error).replace(f" {str(path)!r}", "")
            raise UserError(f"{path}: cannot be read as an image: {reason}") from None


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise UserError("image files need Pillow; install it with: pip install 'lopsided[images]'") from None
    return Image, ImageOps
