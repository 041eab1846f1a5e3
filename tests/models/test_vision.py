"""Any vision encoder of Hugging Face encodes images: here tiny ones with random weights, made in a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, ResNetConfig, ResNetModel, ViTConfig, ViTModel

from lopsided.data.storage import UserError
from lopsided.models.features import Features
from lopsided.models.vision import PretrainedVision, Vision
from tests.models.pictures import pictures, write
from tests.models.tiny import write_encoder
from tests.models.training import error_share, logits_of

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
WIDTHS = {
    "vit": {"cls": 16, "mean": 16, "cls_mean": 32, "pooled": 16},
    "resnet": {"cls": 12, "mean": 12, "cls_mean": 12, "pooled": 12},
    "clip": {"cls": 16, "mean": 16, "cls_mean": 32, "pooled": 16},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder for each encoder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vision")
    vision: dict[str, Any] = {"image_size": 24, "patch_size": 8, **SMALL}
    text = {"vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1, **SMALL}
    clip = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    resnet = ResNetConfig(embedding_size=6, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    ViTModel(ViTConfig(**vision)).save_pretrained(folder / "vit")
    CLIPModel(clip).save_pretrained(folder / "clip")
    ResNetModel(resnet).save_pretrained(folder / "resnet")
    return folder


def hidden(encoder: Any, body: Any, rows: int = 5) -> Tensor:
    """Returns what a body in evaluation makes of some pictures, those of an encoder."""
    cast("nn.Module", body).eval()
    with torch.no_grad():
        return cast("Tensor", body(*encoder.encode(pictures(rows)[0]).batch(torch.arange(rows))))


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls_mean", "pooled"])
@pytest.mark.parametrize("model", WIDTHS)
def test_every_pooling_of_every_kind_of_model_has_its_width(tiny: Path, model: str, pooling: str) -> None:
    encoder = Vision.fit(pictures(8)[0], path=str(tiny / model), pooling=pooling, freeze=False, size=24)
    body = encoder.make_body()
    assert isinstance(body, PretrainedVision)
    assert hidden(encoder, body).shape == (5, body.width) == (5, WIDTHS[model][pooling])
    body.train()
    body(*encoder.encode(pictures(3)[0]).batch(torch.arange(3))).sum().backward()
    trained = [weight for weight in body.parameters() if weight.requires_grad]
    assert len(trained) > 3
    assert all(weight.grad is not None for weight in trained), "gradients of some processes would wait for others"


@pytest.mark.parametrize("model", WIDTHS)
@pytest.mark.parametrize("freeze", [True, False])
def test_a_stored_model_gives_the_same_without_its_folder(tiny: Path, tmp_path: Path, model: str, freeze: bool) -> None:
    path = shutil.copytree(tiny / model, tmp_path / "moved")
    encoder = Vision.fit(pictures(8)[0], path=str(path), freeze=freeze, size=24)
    body = encoder.make_body()
    shutil.rmtree(path)
    values, tensors = encoder.stored()
    again = Vision.from_stored(json.loads(json.dumps(values)), tensors)
    other = again.make_body()
    cast("nn.Module", other).load_state_dict(cast("nn.Module", body).state_dict())
    torch.testing.assert_close(hidden(encoder, body), hidden(again, other), atol=0, rtol=0)
    assert bool(tensors) == freeze, "weights that are trained are stored once, with the network"


def test_frozen_features_are_those_of_the_model_itself_and_standardised(tiny: Path) -> None:
    images, _ = pictures(40)
    encoder = Vision.fit(images, path=str(tiny / "vit"), pooling="cls")
    encoded = encoder.encode(images)
    assert isinstance(encoded, Features)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (images.pixels.float() / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        expected = ViTModel.from_pretrained(tiny / "vit")(pixel_values=pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(encoded.values, expected, atol=1e-5, rtol=1e-5)
    result = hidden(encoder, encoder.make_body(), 40)
    torch.testing.assert_close(result.mean(0), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(result.std(0, correction=0), torch.ones(16), atol=1e-3, rtol=0)


def test_size_mean_and_deviation_come_from_the_preprocessor(tiny: Path, tmp_path: Path) -> None:
    path = shutil.copytree(tiny / "vit", tmp_path / "vit")
    sizes = {"crop_size": {"height": 16, "width": 16}, "size": {"shortest_edge": 20}}
    written = {**sizes, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}
    (path / "preprocessor_config.json").write_text(json.dumps(written))
    settings = Vision.fit(pictures(4)[0], path=str(path)).settings
    assert (settings.size, settings.mean, settings.std) == (16, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    (path / "preprocessor_config.json").write_text(json.dumps({"size": 32, "do_normalize": False}))
    settings = Vision.fit(pictures(4)[0], path=str(path), size=40).settings
    assert (settings.size, settings.mean, settings.std) == (40, (0.0,) * 3, (1.0,) * 3)
    assert Vision.fit(pictures(4)[0], path=str(tiny / "vit")).settings.size == 24
    assert Vision.fit(pictures(4)[0], path=str(tiny / "resnet")).settings.size == 224


def test_files_and_memory_give_the_same_features(tiny: Path, tmp_path: Path) -> None:
    images, _ = pictures(6)
    encoder = Vision.fit(images, path=str(tiny / "resnet"), size=32)
    (one,), (other,) = (encoder.encode(each).batch(torch.arange(6)) for each in (images, write(tmp_path, images)))
    torch.testing.assert_close(one, other)


def test_the_random_state_decides_nothing_about_pretrained_weights(tiny: Path) -> None:
    encoder = Vision.fit(pictures(8)[0], path=str(tiny / "vit"), freeze=False)
    torch.manual_seed(1)
    one, drawn = hidden(encoder, encoder.make_body()), torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    torch.testing.assert_close(one, hidden(encoder, encoder.make_body()), atol=0, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [True, False])
def test_what_is_shown_is_learnt(tiny: Path, freeze: bool) -> None:
    (train, truth), (test, test_truth) = pictures(240), pictures(100, seed=1)
    settings = {"path": str(tiny / "resnet"), "size": 24, "freeze": freeze, "pooling": "pooled"}
    scores = logits_of(Vision, train, truth, test, epochs=30 if freeze else 8, **settings)
    assert error_share(scores, test_truth).mean() < 0.35


def test_what_cannot_be_used_is_said_in_one_line(tiny: Path, tmp_path: Path) -> None:
    images, _ = pictures(3)
    text = write_encoder(tmp_path / "text")
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({}, ValueError, r"say which, as in vision\(path=FOLDER\)"),
        ({"path": str(tmp_path)}, UserError, "cannot load a vision encoder from"),
        ({"path": text}, UserError, "is a bert, which takes no images"),
        (
            {"path": str(tiny / "vit"), "pooling": "max"},
            ValueError,
            "pooling must be one of cls_mean, cls, mean, pooled",
        ),
        ({"path": str(tiny / "vit"), "size": 0}, ValueError, "size must be at least 1"),
        ({"path": str(tiny / "vit"), "size": 3}, UserError, "cannot encode images of 3 pixels"),
        ({"path": str(tiny / "vit"), "crop": 2.0}, ValueError, "crop must be in"),
    ]
    for settings, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            Vision.fit(images, **settings)
        assert "\n" not in str(caught.value)
