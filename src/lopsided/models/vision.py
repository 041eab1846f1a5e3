"""Encodes images by a pretrained Hugging Face vision encoder, frozen or fine-tuned."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lopsided.data.image_files import ImageFiles
from lopsided.data.inputs import Images
from lopsided.data.storage import UserError
from lopsided.models.augment import Augment, Augmentation
from lopsided.models.encoder import Body, Encoded, ThenOfImages
from lopsided.models.features import Features, Standardised, recipe_of_frozen, recipe_of_tuned, scaling_of
from lopsided.models.pixels import Squares
from lopsided.models.pretrained import device_of_encoding, import_transformers, silenced
from lopsided.models.recipe import Recipe

_ROWS = 32  # that go through the encoder at a time when no gradient is kept
_SAMPLE = 512  # training images by which features are standardised
_SIZE = 224  # pixels, where neither the encoder nor its preprocessor says a size
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, where no preprocessor says others
_POOLINGS = ("cls_mean", "cls", "mean", "pooled")


@dataclass(frozen=True)
class VisionSettings:
    """Holds what a user chose, and what the preprocessor says: mean and std of red, green and blue in [0, 1]."""

    freeze: bool
    pooling: str
    size: int
    mean: tuple[float, ...] = _MEAN
    std: tuple[float, ...] = _STD


class PretrainedVision(nn.Module):
    """Computes (n, width) hidden states of images, uint8 (n, 3, size, size); in training they are augmented."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, settings: VisionSettings, augmentation: Augmentation) -> None:
        super().__init__()
        self.model, self.pooling, self.augment = model, settings.pooling, Augment(augmentation)
        for name, numbers in (("mean", settings.mean), ("std", settings.std)):
            self.register_buffer(name, torch.tensor(numbers)[:, None, None], persistent=False)
        resizes = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if resizes else {}
        self.width = self._try(settings.size)

    @torch.enable_grad()
    def _try(self, size: int) -> int:
        """Returns the width; what the pooling does not reach, as a pooler, is excluded from training."""
        hidden = self._pooled(torch.full((1, 3, size, size), 128, dtype=torch.uint8))
        hidden.sum().backward()
        for weight in self.model.parameters():
            weight.requires_grad_(weight.grad is not None)
            weight.grad = None
        return hidden.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Computes them; without gradients, some rows at a time."""
        if torch.is_grad_enabled():
            return self._pooled(images)
        return torch.cat([self._pooled(part) for part in images.split(_ROWS)])

    def _pooled(self, images: Tensor) -> Tensor:
        pixels = (self.augment(images.float() / 255) - self.mean) / self.std
        output = self.model(pixel_values=pixels, **self.options)
        if self.pooling == "pooled":
            pooled: Tensor = output.pooler_output.flatten(1)
            return pooled
        states: Tensor = output.last_hidden_state
        if states.ndim == 4:  # (n, width, h, w), a map of places
            return states.mean((2, 3))
        parts = {"cls": [states[:, 0]], "mean": [states.mean(1)], "cls_mean": [states[:, 0], states.mean(1)]}
        return torch.cat(parts[self.pooling], 1)


class Vision:
    """Encodes images by a Hugging Face model from a folder or, by its name, from the hub.

    freeze: the encoder stays as it is; its features are computed once for a data set and held in memory, and the head
    alone is trained, in seconds. Else the encoder is fine-tuned, which takes a GPU or patience, and learns more.
    pooling: "cls" takes the state of the first token, "mean" the mean of all, "cls_mean" both, "pooled" what the model
    itself gives for an image. Of models with maps of places, as ResNet, all but the last take the mean of the places.
    size: images become squares of so many pixels; None for what the encoder's preprocessor says. `flip` and those
    after it: see `Augmentation`, for fine-tuning alone. Configuration and weights are stored with the model.
    """

    name: ClassVar[str] = "vision"
    inputs: ClassVar[Any] = Images | ImageFiles

    def __init__(
        self,
        config: dict[str, Any],
        weights: dict[str, Tensor] | None,
        settings: VisionSettings,
        augmentation: Augmentation,
        scaling: Tensor | None = None,
    ) -> None:
        """weights: None for those that a stored network brings along. scaling: (2, width), mean and deviation of frozen
        features; None where there are none.
        """
        self.config, self.weights, self.settings = config, weights, settings
        self.augmentation, self.scaling = augmentation, scaling

    @classmethod
    def fit(
        cls, inputs: Images | ImageFiles, path: str = "", freeze: bool = True, pooling: str = "cls_mean",
        size: int | None = None, flip: bool = True, crop: float = 0.25, cutout: float = 0.0, colour: float = 0.2,
        randaugment: bool = False,
    ) -> Vision:  # fmt: skip
        """Raises ValueError for settings that it cannot take, UserError for what is not there or no such encoder."""
        if not path:
            raise ValueError("vision: say which, as in vision(path=FOLDER), or by its name on the hub")
        if pooling not in _POOLINGS:
            raise ValueError(f"vision: pooling must be one of {', '.join(_POOLINGS)}, got {pooling!r}")
        if size is not None and size < 1:
            raise ValueError(f"vision: size must be at least 1, got {size}")
        augmentation = Augmentation(flip, crop, cutout, colour, randaugment)
        config, weights = _load(path)
        settings = replace(_preprocessing(path, config), freeze=freeze, pooling=pooling)
        encoder = cls(config, weights, settings if size is None else replace(settings, size=size), augmentation)
        try:
            _ = encoder._frozen if freeze else encoder._make_network()
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"{path!r} cannot encode images of {encoder.settings.size} pixels: {reason}") from None
        if freeze:
            rows = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:_SAMPLE]
            encoder.scaling = scaling_of(encoder._features(inputs.take(rows)))
        return encoder

    def encode(self, inputs: Images | ImageFiles) -> Encoded:
        if not self.settings.freeze:
            return Squares(inputs, self.settings.size)
        return Features(self._features(inputs))

    def make_body(self) -> Body:
        """Makes the body. One that is fine-tuned has its pretrained weights only before it is stored."""
        return self._make_network() if self.scaling is None else Standardised(*self.scaling)

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        """Gives a frozen encoder's head some thousand steps; else a few epochs of small steps."""
        return recipe_of_frozen(rows) if self.settings.freeze else recipe_of_tuned(rows)

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values = {"config": self.config, "settings": asdict(self.settings), "augmentation": asdict(self.augmentation)}
        if self.scaling is None or self.weights is None:
            return values, {}
        return values, {f"encoder.{name}": tensor for name, tensor in self.weights.items()} | {"scaling": self.scaling}

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> Vision:
        weights = {name.removeprefix("encoder."): t for name, t in tensors.items() if name.startswith("encoder.")}
        settings, augmentation = VisionSettings(**values["settings"]), Augmentation(**values["augmentation"])
        encoder = cls(values["config"], weights or None, settings, augmentation, tensors.get("scaling"))
        if settings.freeze:
            _ = encoder._frozen  # what is wrong with it is told now
        return encoder

    def in_graph(self, inputs: Images | ImageFiles, body: nn.Module) -> tuple[Encoded, nn.Module]:
        if not self.settings.freeze:
            return self.encode(inputs), body
        return Squares(inputs, self.settings.size, keep=False), ThenOfImages(self._frozen, body)

    @cached_property
    def _frozen(self) -> PretrainedVision:
        return self._make_network()

    def _make_network(self) -> PretrainedVision:
        """Makes the network, in evaluation mode; torch's random state stays as it is."""
        transformers = import_transformers()
        with torch.random.fork_rng(devices=[]):
            config = transformers.AutoConfig.for_model(**self.config)
            model = _of_images(transformers.AutoModel.from_config(config)).float().eval()
            if self.weights is not None:
                model.load_state_dict(self.weights)
            return PretrainedVision(model, self.settings, self.augmentation).eval()

    @torch.no_grad()
    def _features(self, inputs: Images | ImageFiles) -> Tensor:
        """Computes (rows, width) float32 features, on the CPU."""
        squares = Squares(inputs, self.settings.size, keep=False)
        device = device_of_encoding()
        body = self._frozen.to(device)
        features = torch.empty(len(squares), body.width)
        for rows in torch.arange(len(squares)).split(_ROWS):
            features[rows] = body(*(each.to(device) for each in squares.batch(rows))).float().cpu()
        return features


def _of_images(model: Any) -> Any:
    """Returns the half of a model of texts and images, as of CLIP, that encodes images; else the model."""
    return getattr(model, "vision_model", model)


def _load(path: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the configuration and the weights of a folder or a hub."""
    transformers = import_transformers()
    try:
        with silenced(transformers):
            model = transformers.AutoModel.from_pretrained(path).float()
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"cannot load a vision encoder from {path!r}: {reason}") from None
    encoder = _of_images(model)
    if encoder.main_input_name != "pixel_values":
        raise UserError(f"{path!r} is a {model.config.model_type}, which takes no images: give a vision encoder")
    return json.loads(model.config.to_json_string(use_diff=False)), dict(encoder.state_dict())


def _preprocessing(path: str, config: dict[str, Any]) -> VisionSettings:
    """Reads size, mean and std of an encoder's preprocessor, where it has one."""
    transformers = import_transformers()
    try:
        values = json.loads(
            Path(transformers.utils.cached_file(path, "preprocessor_config.json")).read_text(encoding="utf-8")
        )
    except OSError:
        values = {}
    sizes = (values.get("crop_size"), values.get("size"), config.get("image_size"))
    size = next((pixels for each in sizes if (pixels := _pixels(each))), _SIZE)
    mean, std = (values.get(f"image_{name}") for name in ("mean", "std"))
    if values.get("do_normalize") is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    return VisionSettings(False, "mean", size, tuple(mean or _MEAN), tuple(std or _STD))


def _pixels(size: Any) -> int | None:
    """Reads a size as preprocessors write it: a number, or one by a name."""
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    return size if isinstance(size, int) and size > 0 else None
