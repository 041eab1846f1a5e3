"""`lopsided fit`: train one model on sparse rows, with a checkpoint after every epoch.

config.json              what was asked, and the SHA-256 of the data files
checkpoint.safetensors   weights and optimisers' state after the last finished epoch, the history, and after the last of
                         all the decision rule and the map from scores to probabilities
metrics.csv              a line per epoch
results*.json            what `lopsided evaluate` found

Rules are tuned on the CANDIDATES best labels of each validation row, as the scores of all never exist: what is no
candidate is not predicted.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.progress import Progress as Bars
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lopsided.data.readers import read_rows
from lopsided.data.sparse_files import SparseRows
from lopsided.data.storage import UserError, replace_atomically
from lopsided.decision import choose as tuning
from lopsided.decision.choose import Decision
from lopsided.jobs.config import FitConfig
from lopsided.jobs.folder import ConfigFolder
from lopsided.metrics.scores import Judged, Scores
from lopsided.metrics.top_k import RankedMetrics
from lopsided.models.sparse_features import SparseClassifier
from lopsided.targets import SparseTargets

KS = (1, 3, 5)
CANDIDATES = 100
_RANK_ROWS = 256  # rows per batch when no gradient is kept

_DECISION = "decision."

History = list[dict[str, float]]  # of every epoch, by name


@dataclass(frozen=True)
class Checkpoint:
    """The model after the last finished epoch."""

    model: SparseClassifier
    rows: int  # it was trained on
    history: History
    decision: Decision | None = None  # None before the end of training

    @property
    def labels_per_row(self) -> float:
        return float(self.model.label_counts.sum()) / self.rows


class FitFolder(ConfigFolder[FitConfig]):
    """The folder of one training."""

    command = "fit"
    kind = FitConfig

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    def save(self, state: Checkpoint) -> None:
        """One file has all that the next epoch starts from, so that a kill at any time leaves a whole state."""
        tensors, history = state.model.state(), state.history
        metadata = {"rows": str(state.rows), "history": json.dumps(history)}
        if state.decision is not None:
            stored, metadata["decision"] = tuning.to_tensors(state.decision)
            tensors |= {_DECISION + name: tensor for name, tensor in stored.items()}
        replace_atomically(self.checkpoint, lambda path: save_file(tensors, path, metadata))
        lines = [[epoch.get(name, "") for name in history[-1]] for epoch in history]
        self.write_metrics_lines(list(history[-1]), lines)

    def load(self) -> Checkpoint | None:
        """What the last finished epoch, or the tuning after the last of all, left; None without any."""
        if not self.checkpoint.exists():
            return None
        try:
            with safe_open(self.checkpoint, framework="pt") as file:
                tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
            rows, history = int(metadata["rows"]), json.loads(metadata["history"])
            counts, features = tensors["model.label_counts"], len(tensors["model.embedding.weight"])
            model = self.make_model(features, counts, rows)
            model.load_state(tensors)
            stored = {n.removeprefix(_DECISION): t for n, t in tensors.items() if n.startswith(_DECISION)}
            header = metadata.get("decision")
            decision = None if header is None else tuning.from_tensors(stored, header)
        except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
            problem = " ".join(str(error).split())[:200]
            raise UserError(f"{self.checkpoint}: damaged ({problem}); delete it to train again") from None
        return Checkpoint(model, rows, history, decision)

    def trained(self) -> tuple[Checkpoint, Decision]:
        """The checkpoint and its rule, one that needs no tuning where training did not come to its end."""
        found = self.load()
        if found is None:
            raise UserError(f"{self.path}: no epoch is finished yet; go on with: lopsided fit {self.path}")
        return found, found.decision or _untuned(self.config, found)

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


def fit(folder: FitFolder, train: SparseRows, valid: SparseRows | None, bars: Bars) -> None:
    """Train the epochs that are left, each of which depends on the checkpoint before and the seed alone; then tune."""
    config = folder.config
    state = folder.load() or Checkpoint(_new_model(folder, train), len(train), [])
    if state.decision is not None:
        return
    model, history = state.model, state.history
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
        folder.save(state)
        _say(epoch, epochs, bars)
    bars.remove_task(task)
    folder.save(replace(state, decision=decide(config, state, valid, bars)))


def decide(config: FitConfig, state: Checkpoint, valid: SparseRows | None, bars: Bars) -> Decision:
    """The rule that was asked for, tuned on the validation rows if there are any."""
    if valid is None:
        return _untuned(config, state)
    parts = candidates(state.model, valid, CANDIDATES, "tuning", bars)
    scores, labels, _ = zip(*parts, strict=True)
    number = len(state.model.label_counts)
    judged = Judged.of(Scores(torch.cat(scores), torch.cat(labels), number), valid.labels)
    try:
        decision = tuning.tuned(config.decide or "per-label", judged, config.loss, state.labels_per_row)
    except ValueError as error:  # trained all the same
        bars.console.print(f"the decision rule is not tuned: {error}", highlight=False, markup=False, soft_wrap=True)
        return _untuned(config, state)
    return decision.at_least_one() if config.at_least_one else decision


def _untuned(config: FitConfig, state: Checkpoint) -> Decision:
    """The rule that was asked for or, if it is a tuned one, the default of those that are not."""
    name = None if config.decide in tuning.TUNED else config.decide
    decision = tuning.untuned(name, config.loss, state.labels_per_row)
    return decision.at_least_one() if config.at_least_one else decision


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
    for _, labels, truth in candidates(model, rows, max(metrics.ks), "ranking", bars):
        metrics.update(labels, truth)
    return metrics.result()


def candidates(
    model: SparseClassifier, rows: SparseRows, k: int, task: str, bars: Bars
) -> Iterator[tuple[Tensor, Tensor, SparseTargets]]:
    """Batches of rows: the k highest scores of each, falling, the labels that have them, and the true labels."""
    model.eval()
    bar = bars.add_task(task, total=len(rows))
    for part in torch.arange(len(rows)).split(_RANK_ROWS):
        batch, truth = rows.batch(part)
        yield *model.top(batch, k), truth
        bars.advance(bar, len(part))
    bars.remove_task(bar)
