"""Defines the run folder: every file of a comparison, each written atomically, so that a killed run can go on.

config.json     what was asked, and the SHA-256 of the data files
runs/           a .json, a .npy (test scores) and a -valid.npy (validation scores) for each finished loss and seed
trials.csv      one line per trial, if the losses were tuned
metrics.csv     one line per loss, seed and epoch
details.json    curves, labels and rows, for the report
results.json    the tables; a comparison that has them is finished
report.html     the tables and plots, self-contained
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lopsided import __version__
from lopsided.data.storage import UserError, replace_atomically, write_atomically, write_csv
from lopsided.decision import choose
from lopsided.decision.choose import Decision
from lopsided.jobs import schema
from lopsided.jobs.config import C, CompareConfig, Config, FitConfig, fingerprint
from lopsided.jobs.schema import CheckpointHeader, ConfigFile, Details, FitEpoch, HistoryLine, Results, RunRecord
from lopsided.models.sparse_features import SparseClassifier
from lopsided.models.task import Rows
from lopsided.training.loop import Epoch

Histories = dict[str, dict[int, list[HistoryLine]]]  # loss -> seed -> epochs

_DECISION = "decision."

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class TrainedRun:
    """Holds one trained model: history, and scores (rows, L) of validation and test, NaN if training diverged."""

    loss: str
    seed: int
    history: list[Epoch]
    valid_scores: Tensor
    scores: Tensor


class ConfigFolder(Generic[C]):
    """Describes a folder with a config.json: what was asked of which command, and the SHA-256 of the data files."""

    command: ClassVar[str]
    config_kind: ClassVar[type[Config]]
    file_kind: ClassVar[type[ConfigFile[Any]]]

    def __init__(self, path: Path, config: C, data_sha256: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.config = config
        self.data_sha256 = data_sha256 or {}

    @property
    def repair(self) -> str:
        """Says what to do about a damaged file."""
        return f"write it again with: lopsided {self.command} {self.path}"

    @classmethod
    def create(cls, path: Path, config: C) -> Self:
        """Makes a new folder, or returns the existing one if it holds the same configuration and data."""
        if is_run_folder(path):
            folder = cls.open(path)
            changed = [name for name, value in config if value != getattr(folder.config, name)]
            if changed:
                raise UserError(f"{path}: holds a run with other settings ({', '.join(changed)}); choose another --out")
            return folder
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path}: exists and is not a run folder; choose another --out")
        digests = fingerprint(config)
        stored = cls.file_kind(lopsided=__version__, command=cls.command, config=config, data_sha256=digests)
        schema.write_file(path / "config.json", stored)
        return cls(path, config, digests)

    @classmethod
    def open(cls, path: Path, check_data: bool = True) -> Self:
        """Opens the folder of an earlier run, even where the data files changed or are gone."""
        command = _command_of(path)
        if command != cls.command:
            raise UserError(f"{path}: a run of lopsided {command}, expected one of lopsided {cls.command}")
        stored = schema.read_file(path / "config.json", cls.file_kind, "start a new run")
        if check_data:
            digests, files = fingerprint(stored.config), stored.config.files()
            changed = [str(files[name]) for name in files if stored.data_sha256.get(name) != digests[name]]
            if changed:
                raise UserError(f"{', '.join(changed)}: changed since the run in {path} began; start a new run")
        return cls(path, stored.config, stored.data_sha256)


class RunFolder(ConfigFolder[CompareConfig]):
    """Describes the folder of a comparison."""

    command = "compare"
    config_kind = CompareConfig
    file_kind = ConfigFile[CompareConfig]

    def _stem(self, loss: str, seed: int) -> Path:
        name = re.sub(r"[^a-z0-9]+", "-", loss.lower()).strip("-")[:60]
        return self.path / "runs" / f"{self.config.losses.index(loss)}-{name}-seed{seed}"

    def save(self, run: TrainedRun) -> None:
        """Writes the scores first: a run counts as finished once its .json is there."""
        stem = self._stem(run.loss, run.seed)
        for path, scores in zip(_score_files(stem), (run.valid_scores.numpy(), run.scores.numpy()), strict=True):
            write_atomically(path, lambda file, scores=scores: np.save(file, scores, allow_pickle=False))  # type: ignore[misc]
        schema.write_file(stem.with_suffix(".json"), RunRecord(loss=run.loss, seed=run.seed, history=run.history))

    def load(self, loss: str, seed: int, epochs: int, valid: Rows, test: Rows) -> TrainedRun | None:
        """Returns the finished run or None; checks its number of epochs and the rows of its scores."""
        stem = self._stem(loss, seed)
        try:
            record = schema.from_json(json.loads(stem.with_suffix(".json").read_text()), RunRecord)
            if (record.loss, record.seed, len(record.history)) != (loss, seed, epochs):
                raise ValueError(f"it is not of {loss}, seed {seed}, {epochs} epochs")
            scores = [_load_scores(path, part) for path, part in zip(_score_files(stem), (valid, test), strict=True)]
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError) as error:
            raise schema.damaged(stem, error, "delete its .json to train that run again") from None
        return TrainedRun(loss, seed, record.history, *scores)

    def write_metrics(self, runs: Sequence[TrainedRun]) -> None:
        """Writes metrics.csv: one line per loss, seed and epoch; probabilities and mAP as in `Epoch`."""
        lines = [HistoryLine(run.loss, run.seed, *astuple(epoch)) for run in runs for epoch in run.history]
        schema.write_table(self.path / "metrics.csv", HistoryLine, lines)

    def read_histories(self) -> Histories:
        """Returns the lines of metrics.csv by loss and seed."""
        histories: Histories = {}
        try:
            lines = schema.read_table(self.path / "metrics.csv", HistoryLine, self.repair)
        except FileNotFoundError:
            message = f"{self.path}: no training is finished yet; go on with: lopsided compare {self.path}"
            raise UserError(message) from None
        for line in lines:
            histories.setdefault(line.loss, {}).setdefault(line.seed, []).append(line)
        if not histories or any(len({*map(len, seeds.values())}) > 1 for seeds in histories.values()):
            problem = ValueError("lines are missing: each seed of a loss has a line for each epoch")
            raise schema.damaged(self.path / "metrics.csv", problem, self.repair)
        return histories

    def write_outcome(self, results: Results, details: Details) -> None:
        """Writes results.json last: a comparison that has it is finished."""
        schema.write_file(self.path / "details.json", details)
        schema.write_file(self.path / "results.json", results)

    def read_results(self) -> Results:
        """Reads results.json, so that printing and reporting agree. Raises UserError if there are none yet."""
        path = self.path / "results.json"
        if not path.exists():
            raise UserError(f"{self.path}: not finished; go on with: lopsided compare {self.path}")
        return schema.read_file(path, Results, self.repair)

    def read_details(self) -> Details:
        return schema.read_file(self.path / "details.json", Details, self.repair)

    def as_trained(self, loss: str) -> tuple[str, CompareConfig]:
        """Returns a loss and its learning rate as the run trained it, which `--tune` may have changed."""
        if self.config.tune is None or loss not in self.config.losses:
            return loss, self.config
        entry = self.read_results().losses[loss]
        rate = (entry.tuned_settings or {})["learning_rate"]
        return entry.settings, self.config.changed({"learning_rate": rate})


def _score_files(stem: Path) -> tuple[Path, Path]:
    """Returns the files of the validation and of the test scores."""
    return stem.with_name(stem.name + "-valid.npy"), stem.with_name(stem.name + ".npy")


def _load_scores(path: Path, rows: Rows) -> Tensor:
    scores = torch.from_numpy(np.load(path, allow_pickle=False))
    if scores.shape != rows.targets.shape or scores.dtype != torch.float32:
        raise ValueError(f"the scores of {path.name} are {scores.dtype} {tuple(scores.shape)}")
    return scores


@dataclass(frozen=True)
class Checkpoint:
    """Holds the model after the last finished epoch."""

    model: SparseClassifier
    rows: int  # the number of rows that the model was trained on
    history: list[FitEpoch]
    decision: Decision | None = None  # None before the end of training

    @property
    def labels_per_row(self) -> float:
        return float(self.model.label_counts.sum()) / self.rows


class FitFolder(ConfigFolder[FitConfig]):
    """Describes the folder of one training.

    config.json              what was asked, and the SHA-256 of the data files
    checkpoint.safetensors   weights and optimisers' state after the last finished epoch, the history, and after the
                             last of all the decision rule and the map from scores to probabilities
    metrics.csv              a line per epoch
    results*.json            what `lopsided evaluate` measured
    """

    command = "fit"
    config_kind = FitConfig
    file_kind = ConfigFile[FitConfig]

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    def save(self, state: Checkpoint) -> None:
        """Writes all that the next epoch starts from into one file, so that a kill leaves a complete state."""
        tensors, decision = state.model.state(), None
        if state.decision is not None:
            stored, decision = choose.to_tensors(state.decision)
            tensors |= {_DECISION + name: tensor for name, tensor in stored.items()}
        header = CheckpointHeader(rows=state.rows, history=state.history, decision=decision)
        metadata = {"lopsided": json.dumps(schema.to_json(header))}
        replace_atomically(self.checkpoint, lambda path: save_file(tensors, path, metadata))
        lines = [epoch.columns() for epoch in state.history]
        write_csv(self.path / "metrics.csv", list(lines[-1]), [list(line.values()) for line in lines])

    def load(self) -> Checkpoint | None:
        """Returns the state after the last finished epoch, or after the tuning at the end; None without any."""
        if not self.checkpoint.exists():
            return None
        try:
            with safe_open(self.checkpoint, framework="pt") as file:
                tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
            header = schema.from_json(json.loads(metadata["lopsided"]), CheckpointHeader)
            counts, features = tensors["model.label_counts"], len(tensors["model.embedding.weight"])
            model = self.make_model(features, counts, header.rows)
            model.load_state(tensors)
            stored = {n.removeprefix(_DECISION): t for n, t in tensors.items() if n.startswith(_DECISION)}
            decision = None if header.decision is None else choose.from_tensors(stored, header.decision)
        except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise schema.damaged(self.checkpoint, error, "delete it to train again") from None
        return Checkpoint(model, header.rows, header.history, decision)

    def make_model(self, features: int, label_counts: Tensor, rows: int) -> SparseClassifier:
        c = self.config
        torch.manual_seed(c.seed)
        return SparseClassifier(features, label_counts, rows, c.hidden, c.loss, c.dropout, c.learning_rate)


def is_run_folder(path: Path) -> bool:
    """Tells whether the folder holds the config.json of a run, rather than that of some other program."""
    return _header(path) is not None


def open_folder(path: Path) -> RunFolder | FitFolder:
    """Opens the folder of a run of either kind, even where its data files changed or are gone."""
    kind = FitFolder if _command_of(path) == FitFolder.command else RunFolder
    return kind.open(path, check_data=False)


def _command_of(path: Path) -> str:
    """Returns the command whose run a folder holds. Raises UserError for what this version cannot read."""
    header = _header(path)
    if header is None:
        raise UserError(f"{path}: not a run folder")
    version = header["lopsided"]
    if header.get("schema") != schema.SCHEMA:
        raise UserError(
            f"{path}: written by another version of lopsided (schema {header.get('schema', 'none')}, this reads "
            f"{schema.SCHEMA}): run it again, or use lopsided {version}"
        )
    if version != __version__:
        raise UserError(f"{path}: begun with lopsided {version}, this is {__version__}; start a new run")
    return str(header.get("command"))


def _header(path: Path) -> dict[str, Any] | None:
    try:
        stored = json.loads((path / "config.json").read_text())
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and "lopsided" in stored else None
