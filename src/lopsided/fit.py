"""`lopsided fit`: train one model on sparse rows, with a checkpoint after every epoch.

config.json              what was asked, and the SHA-256 of the data files
checkpoint.safetensors   weights and optimisers' state after the last finished epoch, and the history
metrics.csv              a line per epoch
results*.json            what `lopsided evaluate` found
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress as Bars
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lopsided.config import FitConfig
from lopsided.data.readers import read_rows
from lopsided.data.xmc import SparseRows
from lopsided.errors import UserError
from lopsided.evaluation.ranked import RankedMetrics
from lopsided.files import replace_atomically
from lopsided.models.sparse_features import SparseClassifier
from lopsided.run_folder import ConfigFolder

KS = (1, 3, 5)
_RANK_ROWS = 256  # rows per batch when no gradient is kept

History = list[dict[str, float]]  # of every epoch, by name


class FitFolder(ConfigFolder[FitConfig]):
    """The folder of one training."""

    command = "fit"
    kind = FitConfig

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    def save(self, model: SparseClassifier, rows: int, history: History) -> None:
        """One file has all that the next epoch starts from, so that a kill at any time leaves a whole state."""
        metadata = {"rows": str(rows), "history": json.dumps(history)}
        replace_atomically(self.checkpoint, lambda path: save_file(model.state(), path, metadata))
        lines = [[epoch.get(name, "") for name in history[-1]] for epoch in history]
        self.write_metrics_lines(list(history[-1]), lines)

    def load(self) -> tuple[SparseClassifier, int, History] | None:
        """The model after the last finished epoch, the number of training rows, and the history; None without any."""
        if not self.checkpoint.exists():
            return None
        try:
            with safe_open(self.checkpoint, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                rows, history = int(file.metadata()["rows"]), json.loads(file.metadata()["history"])
            counts, features = tensors["model.label_counts"], len(tensors["model.embedding.weight"])
            model = self.make_model(features, counts, rows)
            model.load_state(tensors)
        except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
            problem = " ".join(str(error).split())[:200]
            raise UserError(f"{self.checkpoint}: damaged ({problem}); delete it to train again") from None
        return model, rows, history

    def make_model(self, features: int, label_counts: torch.Tensor, rows: int) -> SparseClassifier:
        c = self.config
        torch.manual_seed(c.seed)
        return SparseClassifier(features, label_counts, rows, c.hidden, c.loss, c.dropout, c.learning_rate)


@dataclass(frozen=True)
class Parts:
    train: SparseRows
    valid: SparseRows | None
    test: SparseRows | None


def read(path: Path, bars: Bars, normalize: bool, like: tuple[int, int] | None = None) -> SparseRows:
    """The rows of a file, fitted to the numbers of features and labels `like`."""
    size = path.stat().st_size if path.is_file() else None
    task = bars.add_task(f"reading {path.name}", total=size)
    rows = read_rows(path, lambda count: bars.advance(task, count))
    bars.remove_task(task)
    if like is not None:
        try:
            rows = rows.fitted_to(*like)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None
    return rows.unit_length() if normalize else rows


def read_parts(config: FitConfig, bars: Bars) -> Parts:
    """The rows to train on, and those of validation and test where they are asked for."""
    files = config.files()
    train = read(files["data"], bars, config.normalize)
    for kind, entries in (("labels", train.labels.col), ("features", train.indices)):
        if not len(entries):
            raise UserError(f"{config.data}: no {kind} at all in the training rows")
    sizes = train.num_features, train.num_labels
    others = [read(files[part], bars, config.normalize, sizes) if part in files else None for part in ("valid", "test")]
    valid, test = others
    if config.valid_share is not None:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed))
        held_out = round(config.valid_share * len(train))
        if not 0 < held_out < len(train):
            raise UserError(f"--valid: a share of {config.valid_share:g} of {len(train)} rows leaves a part empty")
        valid, train = train.take(order[:held_out]), train.take(order[held_out:].sort().values)
    return Parts(train, valid, test)


def fit(folder: FitFolder, train: SparseRows, valid: SparseRows | None, bars: Bars) -> SparseClassifier:
    """Train the epochs that are left, each of which depends on the checkpoint before and the seed alone."""
    config = folder.config
    found = folder.load()
    model, history = (found[0], found[2]) if found else (_new_model(folder, train), [])
    epochs, batch_size = _budget(config, len(train))
    total = epochs * -(-len(train) // batch_size)
    task = bars.add_task("training", total=total, completed=total * len(history) // epochs)
    for number in range(len(history) + 1, epochs + 1):
        start = time.perf_counter()
        torch.manual_seed((config.seed << 20) + number)  # order and dropout
        model.train()
        loss = 0.0
        for rows in torch.randperm(len(train)).split(batch_size):
            loss += model.step(*train.batch(rows)).item() * len(rows) / len(train)
            bars.advance(task)
            if not math.isfinite(loss):
                raise UserError(f"training diverged in epoch {number}; start anew with a lower --learning-rate")
        epoch = {"epoch": number, "train_loss": loss, "seconds": time.perf_counter() - start}
        if valid is not None:
            epoch |= {f"valid_{name}": value for name, value in rank(model, valid, RankedMetrics(KS), bars).items()}
        history.append(epoch)
        folder.save(model, len(train), history)
        _say(epoch, epochs, bars)
    bars.remove_task(task)
    return model


def _new_model(folder: FitFolder, train: SparseRows) -> SparseClassifier:
    return folder.make_model(train.num_features, train.label_counts(), len(train))


def _budget(config: FitConfig, rows: int) -> tuple[int, int]:
    """Epochs and rows per batch: about 1,000 steps, within 5 to 15 epochs, of batches that grow with the rows."""
    batch_size = config.batch_size or max(16, min(256, rows // 64))
    return config.epochs or max(5, min(15, 1000 * batch_size // rows)), batch_size


def _say(epoch: dict[str, float], epochs: int, bars: Bars) -> None:
    valid = f", validation P@1 {epoch['valid_p@1']:.3f}" if "valid_p@1" in epoch else ""
    text = f"epoch {epoch['epoch']:.0f} of {epochs}: loss {epoch['train_loss']:.4g}{valid}, {epoch['seconds']:.1f} s"
    bars.console.print(text, highlight=False, soft_wrap=True)


def rank(model: SparseClassifier, rows: SparseRows, metrics: RankedMetrics, bars: Bars) -> dict[str, float]:
    """The metrics of the model's best-ranked labels."""
    model.eval()
    task = bars.add_task("ranking", total=len(rows))
    for part in torch.arange(len(rows)).split(_RANK_ROWS):
        batch, truth = rows.batch(part)
        metrics.update(model.top(batch, max(metrics.ks)), truth)
        bars.advance(task, len(part))
    bars.remove_task(task)
    return metrics.result()
