"""Patches: features of images that are learnt without labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lopsided.data.inputs import Images
from lopsided.models.image_files import ResNetImages
from lopsided.models.patches import Patches
from lopsided.models.registry import fit_encoder
from tests.models.pictures import pictures, write
from tests.models.training import error_share, logits_of


def by_hand(encoder: Patches, image: np.ndarray, grid: int) -> np.ndarray:
    """The features of a (3, 32, 32) image, place by place; a grid of 2 has cells of 7 x 7 places."""
    side = 14 // grid
    cells = np.zeros((2 * encoder.filters.shape[1], grid, grid))
    for row in range(14):
        for column in range(14):
            patch = image[:, 2 * row : 2 * row + 6, 2 * column : 2 * column + 6].astype(np.float64).ravel()
            even = (patch - patch.mean()) / np.sqrt(patch.var() + 10)
            like = even @ encoder.filters.double().numpy() - encoder.offset.double().numpy()
            above = np.concatenate([np.maximum(like - 0.25, 0), np.maximum(-like - 0.25, 0)])
            cells[:, row // side, column // side] += above / side**2
    return cells.ravel()


def test_features_are_means_of_likeness_over_the_image_and_its_mirror_image() -> None:
    images, _ = pictures(8, side=32)
    encoder = Patches.fit(images, patches=3, grid=2)
    (features,) = encoder.encode(images).batch(torch.tensor([5]))
    image = images.pixels[5].numpy()
    expected = (by_hand(encoder, image, 2) + by_hand(encoder, image[:, :, ::-1], 2)) / 2
    np.testing.assert_allclose(features[0].numpy(), expected, atol=1e-4)
    (mirrored,) = encoder.encode(Images(images.pixels[5:6].flip(3))).batch(torch.tensor([0]))
    torch.testing.assert_close(mirrored, features)


def test_filters_make_pixels_of_noise_independent_of_each_other() -> None:
    """Whitened patches have the covariance 1 where the variance is far above the softening."""
    noise = Images(torch.randint(256, (400, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8))
    smooth = Images(torch.nn.functional.avg_pool2d(noise.pixels.float(), 3, 1, 1).to(torch.uint8))
    encoder = Patches.fit(smooth, patches=40)
    patches = torch.nn.functional.unfold(smooth.pixels[:100].float(), 6, stride=6).mT.flatten(0, 1)
    even = (patches - patches.mean(1, keepdim=True)) / (patches.var(1, correction=0, keepdim=True) + 10).sqrt()
    likeness = even @ encoder.filters - encoder.offset
    deviation = likeness.std(0)
    assert deviation.min() > 0.5 * deviation.max()
    raw = even @ torch.nn.functional.normalize(torch.randn(108, 40, generator=torch.Generator().manual_seed(1)), dim=0)
    assert deviation.max() / deviation.min() < raw.std(0).max() / raw.std(0).min()


@pytest.mark.slow
def test_what_is_shown_is_learnt() -> None:
    (train, truth), (test, test_truth) = pictures(200), pictures(100, seed=1)
    scores = logits_of(Patches, train, truth, test, epochs=200, patches=60)
    assert error_share(scores, test_truth).max() < 0.1


def test_a_stored_encoder_gives_the_same_and_impossible_settings_are_refused() -> None:
    images, _ = pictures(5)
    encoder = Patches.fit(images, patches=4, grid=2)
    values, tensors = encoder.stored()
    again = Patches.from_stored(json.loads(json.dumps(values)), tensors)
    rows = torch.arange(5)
    torch.testing.assert_close(again.encode(images).batch(rows), encoder.encode(images).batch(rows), rtol=0, atol=0)
    torch.testing.assert_close(again.make_body().mean, encoder.make_body().mean)
    with pytest.raises(ValueError, match="size at least 6 times grid"):
        Patches.fit(images, grid=6)


def test_it_is_the_default_for_few_images_in_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = pictures(4)
    files = write(tmp_path, images)
    assert {type(fit_encoder(None, each)) for each in (images, files)} == {Patches}
    assert not isinstance(fit_encoder(None, Images(images.pixels[:, :1])), Patches)
    monkeypatch.setattr("lopsided.models.patches.MANY_IMAGES", 3)
    assert {type(fit_encoder(None, each)) for each in (images, files)} == {ResNetImages}
