"""The callbacks in a real Trainer of Lightning, with a tiny model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lopsided
from lopsided.integrations.lightning import LossCallback, MetricsCallback
from tests.forks import METHOD

QUIET = "num_workers|val_dataloader|tensorboardX|treespec|LeafSpec|checkpoint directory"
pytestmark = pytest.mark.filterwarnings(f"ignore:.*({QUIET})")  # what Lightning says of data and of its own code
ROWS, LABELS = 12, 3


class Tagger(LightningModule):  # type: ignore[misc]
    """A linear model with a loss; its steps are those of any LightningModule."""

    def __init__(self, criterion: nn.Module, rate: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.criterion, self.rate = nn.Linear(4, LABELS), criterion, rate

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Any:
        return self.criterion(self.linear(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.criterion(logits=self.linear(batch[0]), targets=batch[1])

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    y = (torch.rand(ROWS, LABELS, generator=generator) < 0.4).float()
    y[0, 1:] = -1
    return torch.randn(ROWS, 4, generator=generator), y


def loader(size: int = 4) -> Any:
    return DataLoader(TensorDataset(*rows()), batch_size=size)


def trainer(folder: Path, *callbacks: Any, epochs: int = 1, **settings: Any) -> Any:
    usual: dict[str, Any] = {"logger": False, "accelerator": "cpu", "num_sanity_val_steps": 0}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    options = usual | quiet | settings
    return Trainer(max_epochs=epochs, default_root_dir=folder, callbacks=list(callbacks), **options)


def test_diagnostics_are_those_of_all_batches_of_an_epoch(tmp_path: Path) -> None:
    model = Tagger(lopsided.loss("focal", ignore_index=-1, reduction="sum"))
    fitted = trainer(tmp_path, LossCallback(), accumulate_grad_batches=3, enable_checkpointing=False)
    fitted.fit(model, loader())
    x, y = rows()
    logits = model.linear(x)
    logits.retain_grad()
    model.criterion(logits, y).backward()
    tracker = lopsided.DiagnosticsTracker()
    tracker.update(logits, logits.grad, y, ignore_index=-1)
    for name, value in vars(tracker.result()).items():
        assert float(fitted.callback_metrics[name]) == pytest.approx(value, rel=1e-5), name


def test_adaptive_asymmetry_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    def model() -> Any:
        return Tagger(lopsided.AdaptiveAsymmetricLoss(target=0.5, step=1.0, ignore_index=-1), rate=0.1)

    straight, resumed, seen = model(), model(), []
    fitted = trainer(tmp_path, LossCallback(), epochs=3)
    fitted.fit(straight, loader())
    seen.append(float(fitted.callback_metrics["gamma_neg"]))
    assert seen == [pytest.approx(straight.criterion.gamma_neg)]
    assert seen[0] != 4.0
    trainer(tmp_path / "stopped").fit(model(), loader())
    (saved,) = (tmp_path / "stopped").rglob("*.ckpt")
    trainer(tmp_path / "stopped", epochs=3).fit(resumed, loader(), ckpt_path=saved)
    assert resumed.criterion.gamma_neg == pytest.approx(straight.criterion.gamma_neg)


def test_validation_with_gradients_does_not_count_as_training(tmp_path: Path) -> None:
    class Careful(Tagger):
        def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
            with torch.enable_grad():
                self.training_step((batch[0] * 9, batch[1]), index).backward()

    model, logged = Careful(lopsided.loss("focal", ignore_index=-1)), []
    for valid in (None, loader()):
        fitted = trainer(tmp_path, LossCallback(), enable_checkpointing=False, inference_mode=False)
        fitted.validate(model, loader(), verbose=False)
        fitted.fit(model, loader(), valid)
        logged.append(dict(fitted.callback_metrics))
    assert logged[0] == logged[1]
    assert "gradient_hard" in logged[0]


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
def test_training_goes_on_within_an_epoch(tmp_path: Path) -> None:
    def model() -> Any:
        return Tagger(lopsided.loss("focal", ignore_index=-1))

    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    trainer(tmp_path, LossCallback(), saving).fit(model(), loader())
    for step in (2, 3):
        fitted = trainer(tmp_path, LossCallback(), saving, epochs=2)
        fitted.fit(model(), loader(), ckpt_path=tmp_path / f"step={step}.ckpt")
        assert 0 < float(fitted.callback_metrics["gradient_positive"]) < 1


def test_metrics_are_those_of_the_validation_and_test_rows(tmp_path: Path) -> None:
    """Of the last epoch alone, whatever was validated before."""
    model = Tagger(lopsided.loss("asl", ignore_index=-1), rate=0.5)
    callbacks = LossCallback(), MetricsCallback(decide=0.2)
    fitted = trainer(tmp_path, *callbacks, epochs=2, enable_checkpointing=False, num_sanity_val_steps=1)
    fitted.fit(model, loader(), loader(5))
    expected = lopsided.metrics.MultiLabelMetrics(LABELS, "logits", decide=0.2)
    expected.update(model.linear(rows()[0]), rows()[1], ignore_index=-1)
    logged = dict(fitted.callback_metrics)
    fitted.test(model, loader(5), verbose=False)
    for name, value in expected.compute().items():
        assert float(logged[f"valid_{name}"]) == pytest.approx(value, rel=1e-5, nan_ok=True), name
        assert float(fitted.callback_metrics[f"test_{name}"]) == pytest.approx(value, rel=1e-5, nan_ok=True), name


@pytest.mark.parametrize("name", ["asl", "lsep"])
def test_decisions_are_those_of_the_loss_where_it_implies_any(tmp_path: Path, name: str) -> None:
    model = Tagger(lopsided.loss(name, ignore_index=-1))
    fitted = trainer(tmp_path, MetricsCallback(), enable_checkpointing=False)
    fitted.validate(model, loader(5), verbose=False)
    threshold = lopsided.loss("asl").decision_threshold() if name == "asl" else 0.0
    expected = lopsided.metrics.MultiLabelMetrics(LABELS, "logits", decide=threshold)
    expected.update(model.linear(rows()[0]), rows()[1], ignore_index=-1)
    decided = float(fitted.callback_metrics["valid_predicted_per_row"])
    assert decided == pytest.approx(expected.compute()["predicted_per_row"])


def test_labels_may_stand_in_another_dimension_than_the_last(tmp_path: Path) -> None:
    """As of pixels: the rows of one batch, their labels first."""

    class Turned(Tagger):
        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Any:
            return self.criterion(self.linear(batch[0]).T, batch[1].T)

        def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
            self.training_step(batch, index)

    logged = []
    for kind, dim in ((Tagger, -1), (Turned, 0)):
        model = kind(lopsided.loss("focal", ignore_index=-1, label_dim=dim))
        fitted = trainer(tmp_path, LossCallback(), MetricsCallback(), enable_checkpointing=False)
        fitted.fit(model, loader(), loader())
        logged.append({name: float(value) for name, value in fitted.callback_metrics.items()})
    assert logged[0] == pytest.approx(logged[1], rel=1e-5, nan_ok=True)


def test_a_module_without_its_loss_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Tagger must have one loss of lopsided, got none: set self\.criterion"):
        trainer(tmp_path, LossCallback()).fit(Tagger(nn.BCEWithLogitsLoss()), loader())
    model: Any = Tagger(lopsided.loss("asl"))
    model.other = copy.deepcopy(model.criterion)
    with pytest.raises(ValueError, match="must have one loss of lopsided, got criterion, other"):
        trainer(tmp_path, LossCallback()).fit(model, loader())
    with pytest.raises(ValueError, match="must have a loss of lopsided named 'third', got criterion, other"):
        trainer(tmp_path, LossCallback("third")).fit(model, loader())
    model.criterion.ignore_index = -1
    trainer(tmp_path, LossCallback("criterion"), enable_checkpointing=False).fit(model, loader())


def test_steps_that_do_not_call_the_loss_are_told_so(tmp_path: Path) -> None:
    class Silent(Tagger):
        def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
            self.linear(batch[0])

    model = Silent(lopsided.loss("bce", ignore_index=-1))
    with pytest.raises(ValueError, match="the loss was not called on valid rows: call self"):
        trainer(tmp_path, MetricsCallback(), enable_checkpointing=False).fit(model, loader(), loader())


def test_an_epoch_of_training_that_does_not_call_the_loss_is_told_so(tmp_path: Path) -> None:
    class Other(Tagger):
        first = True  # whether the first epoch calls it

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Any:
            if self.first and self.current_epoch == 0:
                return super().training_step(batch, index)
            return self.linear(batch[0]).sum()

    class Stopped(Tagger):
        def on_train_batch_end(self, *given: Any) -> None:
            raise InterruptedError

    model, callback = Other(lopsided.loss("bce", ignore_index=-1)), LossCallback()
    for model.first in (True, False):
        with pytest.raises(InterruptedError):
            trainer(tmp_path, callback).fit(Stopped(copy.deepcopy(model.criterion)), loader())
        with pytest.raises(ValueError, match="the loss was not called with gradients on training rows: call self"):
            trainer(tmp_path, callback, epochs=2, enable_checkpointing=False).fit(model, loader())
        assert model.trainer.current_epoch == model.first


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # of spawned processes and their number of threads
def test_two_processes_log_what_is_true_of_all_rows(tmp_path: Path) -> None:
    model = Tagger(lopsided.loss("focal", ignore_index=-1))
    expected = lopsided.metrics.MultiLabelMetrics(LABELS, "logits")
    expected.update(model.linear(rows()[0]), rows()[1], ignore_index=-1)
    strategy: Any = DDPStrategy(start_method=METHOD)
    fitted = trainer(
        tmp_path, LossCallback(), MetricsCallback(), strategy=strategy, devices=2, enable_checkpointing=False
    )
    fitted.fit(model, loader(), loader())
    for name, value in expected.compute().items():
        assert float(fitted.callback_metrics[f"valid_{name}"]) == pytest.approx(value, rel=1e-5, nan_ok=True), name
    assert 0 < float(fitted.callback_metrics["gradient_positive"]) < 1
