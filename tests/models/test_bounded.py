"""A stored model of pretrained parts that describes more than its weights is refused before it takes memory."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("transformers")

from transformers import ViTConfig, ViTModel

from lopsided.data.dataset import Dataset
from lopsided.data.inputs import Texts
from lopsided.models.bounded import NoLargerThan
from lopsided.models.model import Model
from lopsided.models.static import Static
from lopsided.models.transformers import Transformer
from lopsided.models.vision import Vision
from lopsided.targets import SparseTargets
from tests.models.pictures import pictures
from tests.models.tiny import tokenizer, write_encoder

TEXTS = Texts(("alpha beta", "gamma", "one two", "three"))
LARGER = r"its settings describe a model of more than \d+ bytes, but its stored tensors have \d+"


def stored(folder: Path, kind: str, freeze: bool) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """An untrained model, as it stands in a run."""
    inputs: Any = TEXTS
    if kind == "static":
        save_file({"embeddings": torch.randn(14, 8)}, folder / "model.safetensors")
        tokenizer().save(str(folder / "tokenizer.json"))
        encoder: Any = Static.fit(inputs, path=str(folder), freeze=freeze)
    elif kind == "transformer":
        encoder = Transformer.fit(inputs, path=write_encoder(folder), freeze=freeze)
    else:
        small: dict[str, Any] = {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
        }
        ViTModel(ViTConfig(image_size=24, patch_size=8, **small)).save_pretrained(folder)
        inputs = pictures(4)[0]
        encoder = Vision.fit(inputs, path=str(folder), freeze=freeze, size=24)
    data = Dataset(inputs, SparseTargets.from_indices([[0], [1], [0, 1], []]), ("a", "b"))
    header, tensors = Model.new(encoder, "bce", data).stored()
    return json.loads(json.dumps(header)), {name: tensor.clone() for name, tensor in tensors.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "freeze", "field", "value"),
    [
        ("static", False, "shape", [2**33, 8]),
        ("transformer", True, "vocab_size", 2**28),
        ("transformer", False, "vocab_size", 2**28),
        ("transformer", True, "num_hidden_layers", 2**30),
        ("vision", True, "intermediate_size", 2**28),
        ("vision", False, "num_hidden_layers", 2**30),
    ],
)
def test_it_is_refused(tmp_path: Path, kind: str, freeze: bool, field: str, value: Any) -> None:
    header, tensors = stored(tmp_path, kind, freeze)
    assert Model.from_stored(header, tensors).encoder.name == kind
    values = header["encoder_values"]
    values.get("config", values)[field] = value
    with pytest.raises(ValueError, match=LARGER):
        Model.from_stored(header, tensors)


@pytest.mark.parametrize("make", [partial(torch.arange, 2**40), partial(torch.linspace, 0, 1, 2**40)])
def test_a_range_is_refused_too(make: Callable[[], torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=LARGER), NoLargerThan([]):
        make()


@pytest.mark.parametrize("kind", ["transformer", "vision"])
def test_another_model_than_the_weights_are_of_is_told_when_it_is_read(tmp_path: Path, kind: str) -> None:
    header, tensors = stored(tmp_path, kind, freeze=True)
    header["encoder_values"]["config"]["intermediate_size"] = 48
    with pytest.raises(RuntimeError, match="size mismatch"):
        Model.from_stored(header, tensors)
