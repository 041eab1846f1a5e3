"""An integration whose library is not installed says what to install."""

import importlib
import sys

import pytest

from lopsided.integrations import jax

PACKAGES = {"sklearn": "tool", "transformers": "transformers", "lightning": "lightning"}  # and their extras


@pytest.mark.parametrize("module", PACKAGES)
def test_the_extra_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*PACKAGES, "pytorch_lightning", *sys.modules]:
        if name.partition(".")[0] in (module, f"pytorch_{module}"):
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"lopsided.integrations.{module}", raising=False)
    with pytest.raises(
        ModuleNotFoundError, match=rf"{module}\S* is missing: pip install 'lopsided\[{PACKAGES[module]}\]'"
    ):
        importlib.import_module(f"lopsided.integrations.{module}")


def test_jax_is_asked_for_when_a_loss_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ModuleNotFoundError, match=r"jax is missing: pip install 'lopsided\[jax\]'"):
        jax.loss("asl")
