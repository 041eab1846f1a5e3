"""Runs `lopsided fit`: trains one model on sparse rows, with a checkpoint after every epoch.

Rules are tuned on the CANDIDATES best labels of each validation row, as not all scores are held: a label that is not a
candidate is not predicted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.progress import Progress as Bars
from torch import Tensor

from lopsided.data.readers import read_sparse_rows
from lopsided.data.sparse_files import SparseRows
from lopsided.data.storage import UserError
from lopsided.decision import choose
from lopsided.decision.choose import Decision
from lopsided.jobs.config import FitConfig
from lopsided.jobs.folder import Checkpoint, FitFolder
from lopsided.jobs.schema import FitEpoch
from lopsided.metrics.scores import Judged, Scores
from lopsided.metrics.top_k import RankedMetrics
from lopsided.models.sparse_features import SparseClassifier
from lopsided.targets import SparseTargets

KS = (1, 3, 5)
CANDIDATES = 100
_RANK_ROWS = 256  # rows per batch when no gradient is computed


@dataclass(frozen=True)
class SparseSplits:
    """Holds the rows to train on, and those of validation and test where they are asked for."""

    train: SparseRows
    valid: SparseRows | None
    test: SparseRows | None


def load_sparse_rows(path: Path, bars: Bars, normalize: bool, like: tuple[int, int] | None = None) -> SparseRows:
    """Reads the rows of a file, fitted to the numbers of features and labels `like`."""
    size = path.stat().st_size if path.is_file() else None
    task = bars.add_task(f"reading {path.name}", total=size)
    rows = read_sparse_rows(path, lambda count: bars.advance(task, count))
    bars.remove_task(task)
    if like is not None:
        try:
            rows = rows.fitted_to(*like)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None
    return rows.unit_length() if normalize else rows


def load_sparse_splits(config: FitConfig, bars: Bars) -> SparseSplits:
    """Reads the files that the configuration names. Raises UserError for anything a user got wrong."""
    files = config.files()
    train = load_sparse_rows(files["data"], bars, config.normalize)
    for kind, entries in (("labels", train.labels.col), ("features", train.indices)):
        if not len(entries):
            raise UserError(f"{config.data}: no {kind} at all in the training rows")
    sizes = train.num_features, train.num_labels
    valid, test = (
        load_sparse_rows(files[part], bars, config.normalize, sizes) if part in files else None
        for part in ("valid", "test")
    )
    if config.valid_share is not None:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed))
        held_out = round(config.valid_share * len(train))
        if not 0 < held_out < len(train):
            raise UserError(f"--valid: a share of {config.valid_share:g} of {len(train)} rows leaves a part empty")
        valid, train = train.take(order[:held_out]), train.take(order[held_out:].sort().values)
    return SparseSplits(train, valid, test)


def fit_model(folder: FitFolder, train: SparseRows, valid: SparseRows | None, bars: Bars) -> None:
    """Trains the epochs that are left, each from the checkpoint before and the seed alone; then tunes the rule."""
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
        torch.manual_seed((config.seed << 20) + number)  # it decides the order of the rows and dropout
        model.train()
        loss = 0.0
        for rows in torch.randperm(len(train)).split(batch_size):
            loss += model.step(*train.batch(rows)).item() * len(rows) / len(train)
            bars.advance(task)
            if not math.isfinite(loss):
                raise UserError(f"training diverged in epoch {number}; start anew with a lower --learning-rate")
        seconds = time.perf_counter() - start
        ranked = {} if valid is None else rank(model, valid, RankedMetrics(KS), bars)
        history.append(FitEpoch(epoch=number, train_loss=loss, seconds=seconds, valid=ranked))
        folder.save(state)
        _say(history[-1], epochs, bars)
    bars.remove_task(task)
    decision = decide(config, state, valid, bars)
    if (config.decide or ("own" if valid is None else "")) == "own" and choose.saturates(config.loss):
        bars.console.print(
            f"{config.loss} saturates: no logit stands for a probability of 0.5, so that its own threshold would "
            f"predict nothing; the rule is {decision.name} instead",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    folder.save(replace(state, decision=decision))


def trained_model(folder: FitFolder) -> tuple[Checkpoint, Decision]:
    """Returns the checkpoint and its rule; where training was stopped early, the rule is one without tuning."""
    state = folder.load()
    if state is None:
        raise UserError(f"{folder.path}: no epoch is finished yet; go on with: lopsided fit {folder.path}")
    return state, state.decision or _untuned(folder.config, state)


def load_rows_for(folder: FitFolder, state: Checkpoint, path: Path, bars: Bars) -> SparseRows:
    """Reads the rows of a file with the features and labels of the model, and perhaps more."""
    sizes = state.model.num_features, len(state.model.label_counts)
    return load_sparse_rows(path, bars, folder.config.normalize, sizes)


def decide(config: FitConfig, state: Checkpoint, valid: SparseRows | None, bars: Bars) -> Decision:
    """Returns the rule that was asked for, tuned on the validation rows if there are any."""
    if valid is None:
        return _untuned(config, state)
    parts = candidates(state.model, valid, CANDIDATES, "tuning", bars)
    scores, labels, _ = zip(*parts, strict=True)
    number = len(state.model.label_counts)
    judged = Judged.of(Scores(torch.cat(scores), torch.cat(labels), number), valid.labels)
    try:
        decision = choose.tuned(config.decide or "per-label", judged, config.loss, state.labels_per_row)
    except ValueError as error:  # the model is trained, though no rule can be tuned
        bars.console.print(f"the decision rule is not tuned: {error}", highlight=False, markup=False, soft_wrap=True)
        return _untuned(config, state)
    return decision.at_least_one() if config.at_least_one else decision


def _untuned(config: FitConfig, state: Checkpoint) -> Decision:
    """Returns the rule that was asked for or, if it is a tuned one, the default of those that are not."""
    name = None if config.decide in choose.TUNED else config.decide
    decision = choose.untuned(name, config.loss, state.labels_per_row)
    return decision.at_least_one() if config.at_least_one else decision


def _new_model(folder: FitFolder, train: SparseRows) -> SparseClassifier:
    return folder.make_model(train.num_features, train.label_counts(), len(train))


def _budget(config: FitConfig, rows: int) -> tuple[int, int]:
    """Returns epochs and rows per batch: about 1,000 steps in 5 to 15 epochs, of batches that grow with the rows."""
    batch_size = config.batch_size or max(16, min(256, rows // 64))
    return config.epochs or max(5, min(15, 1000 * batch_size // rows)), batch_size


def _say(epoch: FitEpoch, epochs: int, bars: Bars) -> None:
    valid = f", validation P@1 {epoch.valid['p@1']:.3f}" if epoch.valid else ""
    text = f"epoch {epoch.epoch} of {epochs}: loss {epoch.train_loss:.4g}{valid}, {epoch.seconds:.1f} s"
    bars.console.print(text, highlight=False, soft_wrap=True)


def rank(model: SparseClassifier, rows: SparseRows, metrics: RankedMetrics, bars: Bars) -> dict[str, float]:
    """Computes the metrics of the model's best-ranked labels."""
    for _, labels, truth in candidates(model, rows, max(metrics.ks), "ranking", bars):
        metrics.update(labels, truth)
    return metrics.result()


def candidates(
    model: SparseClassifier, rows: SparseRows, k: int, task: str, bars: Bars
) -> Iterator[tuple[Tensor, Tensor, SparseTargets]]:
    """Yields, per batch of rows, the k highest scores of each, falling, their labels, and the true labels."""
    model.eval()
    bar = bars.add_task(task, total=len(rows))
    for part in torch.arange(len(rows)).split(_RANK_ROWS):
        batch, truth = rows.batch(part)
        yield *model.top(batch, k), truth
        bars.advance(bar, len(part))
    bars.remove_task(bar)
