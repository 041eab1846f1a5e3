"""Images are decoded in parallel to squares, changed at random in training alone, and learnt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lopsided.data.image_files import ImageFiles
from lopsided.data.inputs import Images
from lopsided.data.storage import UserError
from lopsided.models import pixels
from lopsided.models.augment import Augment, Augmentation
from lopsided.models.image_files import ResNetImages
from lopsided.models.pixels import Squares, square
from tests.models.pictures import pictures, write
from tests.models.training import error_share, logits_of

NOTHING = Augmentation(flip=False, crop=0, cutout=0, colour=0)


def test_files_and_memory_give_the_same_squares(tmp_path: Path) -> None:
    images, _ = pictures(9)
    rows = torch.tensor([8, 0, 3, 3])
    (from_files,) = Squares(write(tmp_path, images), 16).batch(rows)
    (from_memory,) = Squares(images, 16).batch(rows)
    assert from_files.shape == (4, 3, 16, 16)
    assert from_files.dtype == torch.uint8
    torch.testing.assert_close(from_files, from_memory, atol=0, rtol=0)


def test_the_whole_image_is_seen_and_grey_has_three_channels() -> None:
    wide = torch.zeros(1, 10, 40, dtype=torch.uint8)
    wide[:, :, :20] = 200
    result = square(wide, 8)
    assert result.shape == (3, 8, 8)
    assert (result[:, :, :3] == 200).all()
    assert (result[:, :, 5:] == 0).all()


def test_few_images_are_decoded_once_and_many_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(tmp_path, pictures(6)[0])
    decoded: list[int] = []
    decode = ImageFiles.decode

    def counted(self: ImageFiles, row: int, at_least: int | None = None) -> torch.Tensor:
        decoded.append(row)
        return decode(self, row, at_least)

    monkeypatch.setattr(ImageFiles, "decode", counted)
    few = Squares(files, 16)
    for rows in ([0, 1, 1], [1, 2], [2, 0]):
        few.batch(torch.tensor(rows))
    assert sorted(decoded) == [0, 1, 2]
    monkeypatch.setattr(pixels, "_KEPT_BYTES", 6 * 3 * 16 * 16 - 1)
    many = Squares(files, 16)
    many.batch(torch.tensor([4]))
    many.batch(torch.tensor([4]))
    assert sorted(decoded) == [0, 1, 2, 4, 4]


def test_a_broken_file_is_said_by_its_path(tmp_path: Path) -> None:
    files = write(tmp_path, pictures(3)[0])
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1\.png: cannot be read as an image"):
        Squares(files, 16).batch(torch.arange(3))


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(),
        replace(NOTHING, flip=True),
        replace(NOTHING, crop=0.5),
        replace(NOTHING, cutout=0.5),
        replace(NOTHING, colour=0.5),
        replace(NOTHING, randaugment=True),
    ],
)
def test_training_images_vary_and_those_of_evaluation_do_not(augmentation: Augmentation) -> None:
    images = pictures(16)[0].pixels.float() / 255
    augment = Augment(augmentation)
    torch.manual_seed(0)
    one, other = augment(images), augment(images)
    assert one.shape == images.shape
    assert one.min() >= 0
    assert one.max() <= 1
    assert not torch.equal(one, images)
    assert not torch.equal(one, other)
    torch.manual_seed(0)
    assert torch.equal(augment(images), one)
    assert augment.eval()(images) is images


def test_each_change_is_what_it_is_called() -> None:
    torch.manual_seed(0)
    images = torch.rand(64, 3, 20, 20)
    assert torch.equal(Augment(NOTHING)(images), images)
    flipped = Augment(replace(NOTHING, flip=True))(images)
    same = (flipped - images).abs().amax((1, 2, 3)) < 1e-5
    turned = (flipped - images.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert (same ^ turned).all()
    assert 16 < same.sum() < 48
    cut = Augment(replace(NOTHING, cutout=0.5))(images)
    share = (cut == 0.5).all(1).double().mean((1, 2))
    assert share.max() <= 0.25
    assert share.min() > 0.05
    assert torch.equal(cut.where(cut == 0.5, images), cut)
    coloured = Augment(replace(NOTHING, colour=0.3))(torch.full((64, 3, 4, 4), 0.5))
    assert coloured.min() >= 0.35 - 1e-6
    assert coloured.max() <= 0.65 + 1e-6
    assert coloured.std() > 0.03
    uniform = torch.rand(8, 3, 1, 1).expand(8, 3, 9, 9)
    torch.testing.assert_close(Augment(replace(NOTHING, crop=0.5))(uniform), uniform)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 8}, "size must be at least 16"),
        ({"dropout": 1.0}, "dropout in"),
        ({"crop": 1.0}, r"crop must be in \[0"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResNetImages.fit(pictures(2)[0], **wrong)


@pytest.mark.parametrize("shape", [(16, 16), (17, 31), (64, 48)])
def test_the_body_takes_any_size_and_a_single_row_in_training(shape: tuple[int, int]) -> None:
    body = ResNetImages.fit(pictures(2)[0], channels=4).make_body()
    images = torch.zeros(1, 3, *shape, dtype=torch.uint8)
    assert body(images).shape == (1, body.width)


def test_a_stored_encoder_is_the_same() -> None:
    images, _ = pictures(5)
    encoder = ResNetImages.fit(images, size=16, channels=4, cutout=0.3, flip=False)
    values, tensors = encoder.stored()
    again = ResNetImages.from_stored(json.loads(json.dumps(values)), tensors)
    assert again == encoder
    again.make_body().load_state_dict(encoder.make_body().state_dict())


@pytest.mark.slow
def test_what_is_shown_is_learnt_from_files(tmp_path: Path) -> None:
    (train, truth), (test, test_truth) = pictures(160), pictures(100, seed=1)
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    files = write(tmp_path / "train", train), write(tmp_path / "test", test)
    scores = logits_of(ResNetImages, files[0], truth, files[1], epochs=12, size=24, channels=8)
    assert error_share(scores, test_truth).max() < 0.12


def test_images_of_different_sizes_make_one_batch(tmp_path: Path) -> None:
    write(tmp_path, Images(torch.zeros(1, 3, 50, 20, dtype=torch.uint8)))
    (tmp_path / "0.png").rename(tmp_path / "tall.png")
    write(tmp_path, Images(torch.zeros(1, 3, 8, 9, dtype=torch.uint8)))
    encoder = ResNetImages.fit(ImageFiles(tmp_path, ("0.png", "tall.png")), size=16, channels=4)
    (batch,) = encoder.encode(ImageFiles(tmp_path, ("0.png", "tall.png"))).batch(torch.arange(2))
    assert batch.shape == (2, 3, 16, 16)


def test_without_a_size_small_images_keep_theirs(tmp_path: Path) -> None:
    for shape, size in (((8, 9), 16), ((20, 32), 32), ((300, 200), 64)):
        assert ResNetImages.fit(Images(torch.zeros(1, 3, *shape, dtype=torch.uint8))).size == size
    assert ResNetImages.fit(ImageFiles(tmp_path, ("0.png",))).size == 64
