"""A user's own module is trained, stored and used as those that are there."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from lopsided.data.inputs import Table
from lopsided.models.custom import custom
from lopsided.models.encoder import Encoder
from lopsided.models.tables import LinearTable, MlpTable

MODELS = cast("dict[str, type[Encoder]]", {"mlp": MlpTable, "linear": LinearTable})
TABLE = Table.of_numbers(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)))
OWN = '''
import torch
from lopsided.models.tables import LinearTable

class Product(torch.nn.Module):
    """Multiplies pairs of two linear layers, which no linear model can."""
    def __init__(self, inputs, depth):
        super().__init__()
        self.width = depth
        self.one, self.other = torch.nn.Linear(inputs, depth), torch.nn.Linear(inputs, depth)

    def forward(self, numbers, codes):
        return self.one(numbers) * self.other(numbers)

def make_model(encoder, depth=8):
    return Product(encoder.columns.scale.width, depth)

def without_width(encoder):
    return torch.nn.Identity()

def no_module(encoder):
    return 3

class Encoded(LinearTable):
    name = "my_models:Encoded"

number = 3
'''


@pytest.fixture
def own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that the user stands in, with a file of models."""
    (folder / "my_models.py").write_text(OWN)
    (folder / "broken.py").write_text("import no_such_package")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    for name in ("my_models", "broken"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("own")
def test_the_body_is_what_the_function_makes() -> None:
    encoder = custom("my_models:make_model", MODELS).fit(TABLE, depth=5)
    body = encoder.make_body()
    assert type(body).__name__ == "Product"
    assert body(*encoder.encode(TABLE).batch(torch.arange(4))).shape == (4, 5)
    assert encoder.recipe(200, 3) == MlpTable.fit(TABLE).recipe(200, 3)


@pytest.mark.usefixtures("own")
def test_a_stored_one_gives_the_same() -> None:
    kind = custom("my_models:make_model", MODELS)
    encoder = kind.fit(TABLE, depth=5)
    values, tensors = encoder.stored()
    again = custom(encoder.name, MODELS).from_stored(json.loads(json.dumps(values)), tensors)
    body, other = cast("nn.Module", encoder.make_body()), cast("nn.Module", again.make_body())
    other.load_state_dict(body.state_dict())

    def hidden(module: nn.Module, own: Encoder) -> Tensor:
        return cast("Tensor", module(*own.encode(TABLE).batch(torch.arange(9))))

    torch.testing.assert_close(hidden(body, encoder), hidden(other, again), atol=0, rtol=0)


@pytest.mark.usefixtures("own")
def test_the_settings_are_those_of_the_function() -> None:
    parameters = inspect.signature(custom("my_models:make_model", MODELS).fit).parameters
    assert {name: each.default for name, each in parameters.items()} == {"encoder": inspect.Parameter.empty, "depth": 8}


@pytest.mark.usefixtures("own")
def test_an_encoder_of_the_user_is_taken_as_it_is() -> None:
    assert custom("my_models:Encoded", MODELS).fit(TABLE).make_body().width == 3


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("my_models", {}, "is named as package.module:make_model, got 'my_models'"),
        ("../my_models:make_model", {}, "is named as package.module:make_model"),
        ("other:make_model", {}, "cannot import 'other' .* No module named 'other'"),
        ("broken:make_model", {}, "cannot import 'broken' .* No module named 'no_such_package'"),
        ("my_models:make", {}, "my_models has no 'make'"),
        ("my_models:number", {}, "must be a function that makes an nn.Module, or an encoder; it is a int"),
        ("my_models:make_model", {"dept": 3}, "unexpected keyword argument 'dept'"),
        ("my_models:without_width", {}, "has no whole number `width`: set self.width"),
        ("my_models:no_module", {}, "must return an nn.Module, it returned a int"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        custom(name, MODELS).fit(TABLE, **settings).make_body()
    assert "\n" not in str(caught.value)
