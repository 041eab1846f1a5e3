"""Every snippet of docs/trainers.md runs, where its library is installed, and does what the page says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import Trainer, pipeline

import lopsided
from tests.integrations.test_sklearn import tickets
from tests.integrations.test_transformers import LABELS, arguments, model, rows, tiny_tokenizer

PAGE = (Path(__file__).parents[2] / "docs/trainers.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
OPTIONAL = ("annif", "jax", "keras", "torchvision")  # a snippet that needs one is left out where that is missing
Names = dict[str, Any]


def run(section: str, names: Names) -> Names:
    """Runs the snippets of a section, one after the other, among names that its reader has."""
    blocks = re.findall(r"^```python\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL)
    assert blocks
    for code in blocks:
        try:
            exec(compile(code, section, "exec"), names)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] not in OPTIONAL:
                raise
    return names


def test_every_section_is_run_here() -> None:
    source = Path(__file__).read_text()
    assert [section for section in SECTIONS if f'run("{section}"' not in source] == []
    linked = re.findall(r"^\|.*?\(#([\w-]+)\)", PAGE, re.MULTILINE)
    assert len(linked) >= 5


@pytest.mark.slow
def test_scikit_learn() -> None:
    texts, labels = tickets(40)
    x = TfidfVectorizer().fit_transform(texts)
    names = run("scikit-learn", {"texts": texts, "labels": labels, "x": x})
    assert names["tagger"].predict(["login"]).tolist() == [[0, 1, 0]]
    assert names["probabilities"].shape == labels.shape


@pytest.mark.slow
def test_the_trainer_of_transformers(folder: Path) -> None:
    options = arguments(folder / "out", max_steps=2, learning_rate=0.1)
    data: Any = rows(float("nan"))
    data[0]["input_ids"] = data[0]["input_ids"][:2]  # texts differ in length
    names: Names = {"Trainer": Trainer, "pipeline": pipeline, "model": model(), "arguments": options}
    names |= {"train": data, "valid": rows(-100), "tokenizer": tiny_tokenizer()}
    run("Trainer of transformers", names)
    assert "gradient_positive" in names["trainer"].state.log_history[0]
    (row,) = names["tagger"](["w3 w7"])
    assert len(row) <= LABELS
    assert all(set(each) == {"label", "score"} for each in row)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(num_workers|tensorboardX|treespec|LeafSpec|logging interval)")
def test_lightning(folder: Path) -> None:
    from lightning.pytorch import LightningModule
    from lightning.pytorch import Trainer as LightningTrainer

    random = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, generator=random)
    data = DataLoader(TensorDataset(x, (x > 0).float()), batch_size=4)
    names: Names = {"LightningModule": LightningModule, "Trainer": LightningTrainer, "torch": torch}
    names |= {"make_model": lambda: nn.Linear(3, 3), "train": data, "valid": data}
    logged = run("Lightning", names)["trainer"].callback_metrics
    assert 0 < float(logged["valid_map"]) <= 1
    assert 0 < float(logged["gradient_positive"]) < 1


@pytest.mark.slow
def test_jax_and_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for package in ("jax", "keras"):
        pytest.importorskip(package)
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    names = run("JAX and Keras", {"logits": x, "labels": (x > 0).astype("float32"), "x": x})
    expected = lopsided.loss("asl")(torch.from_numpy(x), torch.from_numpy(names["labels"]))
    assert float(names["value"]) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("section", "name"), [("timm", "train_loss_fn"), ("torchvision", "criterion")])
def test_scripts_whose_loss_is_called_with_logits_and_targets(section: str, name: str) -> None:
    names = run("timm", {"device": "cpu"}) if section == "timm" else run("torchvision", {})
    value = names[name](torch.zeros(4, 3, requires_grad=True), torch.eye(4, 3))
    value.backward()
    assert value > 0


class DetectionLoss:
    """What that of ultralytics does with `bce`: values of anchors and classes are added up, and divided."""

    bce: Callable[..., torch.Tensor] = nn.BCEWithLogitsLoss(reduction="none")

    def __call__(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.bce(scores, targets).sum() / targets.sum().clamp(min=1)


def test_ultralytics() -> None:
    trainer = SimpleNamespace(model=SimpleNamespace(init_criterion=DetectionLoss))
    run("ultralytics", {})["use_asl"](trainer)
    scores, targets = torch.randn(2, 5, 3), torch.rand(2, 5, 3)
    expected = lopsided.loss("asl", reduction="sum")(scores, targets) / targets.sum()
    torch.testing.assert_close(trainer.model.criterion(scores, targets), expected)


def test_annif(tmp_path: Path) -> None:
    pytest.importorskip("annif")
    texts, labels = tickets(40)
    documents = [
        SimpleNamespace(text=text, subject_set=np.flatnonzero(row)) for text, row in zip(texts, labels, strict=True)
    ]
    project = SimpleNamespace(subjects=["billing", "login", "crash"], datadir=str(tmp_path))
    make = run("Annif", {})["LopsidedBackend"]
    make("lopsided", {"limit": 2}, project).train(SimpleNamespace(documents=documents))
    suggested = make("lopsided", {"limit": 2}, project).suggest([SimpleNamespace(text="login")])
    assert suggested.array.toarray()[0].argmax() == 1
