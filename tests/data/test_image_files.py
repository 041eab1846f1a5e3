"""Images are decoded when they are asked for, upright and in RGB."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from lopsided.data.image_files import ImageFiles
from lopsided.data.storage import UserError

Image = pytest.importorskip("PIL.Image")


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    random = np.random.default_rng(0)
    save(tmp_path / "a/red.png", np.full((3, 5, 3), (255, 0, 0), np.uint8))
    save(tmp_path / "grey.png", random.integers(256, size=(4, 4)).astype(np.uint8))
    save(tmp_path / "deep.png", np.full((2, 2), 0x8001, np.uint16))
    return ImageFiles(tmp_path, ("a/red.png", "grey.png", "deep.png"))


def test_every_mode_comes_as_rgb(files: ImageFiles) -> None:
    assert [tuple(files.decode(row).shape) for row in range(3)] == [(3, 3, 5), (3, 4, 4), (3, 2, 2)]
    assert files.decode(0)[:, 0, 0].tolist() == [255, 0, 0]
    assert files.decode(2).unique().tolist() == [0x80], "sixteen bits are cut to eight, not clipped"


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_whose_white_is_not_known_are_refused(kind: type, tmp_path: Path) -> None:
    save(tmp_path / "a.tiff", np.full((2, 2), 0.5 if kind is np.float32 else 40_000, kind))
    with pytest.raises(UserError, match=r"a.tiff: cannot be read as an image: pixels of 32 bits; save it with 8 or 16"):
        ImageFiles(tmp_path, ("a.tiff",)).decode(0)


def test_exif_turns_the_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0] = 255  # a light upper row, which becomes the right column
    save(tmp_path / "turned.png", pixels, exif=exif)
    image = ImageFiles(tmp_path, ("turned.png",)).decode(0)
    assert image[0].tolist() == [[0, 255]] * 3


def test_a_large_jpeg_may_come_smaller(tmp_path: Path) -> None:
    save(tmp_path / "large.jpg", np.zeros((800, 640, 3), np.uint8))
    files = ImageFiles(tmp_path, ("large.jpg",))
    assert files.decode(0).shape == (3, 800, 640)
    assert 100 <= min(files.decode(0, at_least=100).shape[1:]) < 640


def test_an_excerpt_is_a_small_png(files: ImageFiles, tmp_path: Path) -> None:
    save(tmp_path / "wide.png", np.zeros((50, 400, 3), np.uint8))
    shown = ImageFiles(tmp_path, ("wide.png",)).excerpt(0)
    assert isinstance(shown, bytes)
    assert Image.open(io.BytesIO(shown)).size == (64, 8)


def test_copies_of_a_file_have_one_key(files: ImageFiles, tmp_path: Path) -> None:
    (tmp_path / "copy.png").write_bytes((tmp_path / "grey.png").read_bytes())
    keys = list(ImageFiles(tmp_path, ("grey.png", "copy.png", "deep.png")).keys())
    assert keys[0] == keys[1] != keys[2]


def test_rows_are_taken_by_number(files: ImageFiles) -> None:
    assert files.take(torch.tensor([2, 0])).names == ("deep.png", "a/red.png")


@pytest.mark.parametrize("content", [None, b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_named_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.png: cannot be read as an image: ") as caught:
        ImageFiles(tmp_path, ("x.png",)).decode(0)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("x.png") == 1
