"""docs/models.md shows each model with its defaults, and a module of one's own that works."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest
import torch

from lopsided.data.inputs import Table
from lopsided.models.custom import custom
from lopsided.models.registry import MODELS
from lopsided.models.tables import MlpTable

PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text()


def test_every_model_has_a_line_with_its_settings() -> None:
    shown = re.findall(r"^\| `(\w+\(.*\))` \| ", PAGE, re.MULTILINE)
    expected = []
    for model in MODELS.values():
        _, *parameters = inspect.signature(model.fit).parameters.values()
        expected.append(f"{model.name}({', '.join(f'{each.name}={each.default!r}' for each in parameters)})")
    assert sorted(shown) == sorted(expected)


def test_the_module_of_the_page_is_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sample,) = re.findall(r"^```python my_models\.py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (folder / "my_models.py").write_text(sample)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    table = Table.of_numbers(torch.randn(20, 3))
    encoder = custom("my_models:make_model", {"mlp": MlpTable}).fit(table, width=128)
    body = encoder.make_body()
    assert body(*encoder.encode(table).batch(torch.arange(4))).shape == (4, 128)
    sys.modules.pop("my_models")
