"""A run folder: every file of a comparison, each written atomically, so that a killed run can go on.

config.json     what was asked, and the SHA-256 of the data files
runs/           a .json, a .npy (test scores) and a -valid.npy (validation scores) for each finished loss and seed
trials.csv      one line per trial, if the losses were tuned
metrics.csv     one line per loss, seed and epoch
details.json    curves, labels and rows, for the report
results.json    the tables; a comparison that has them is finished
report.html     the tables and plots, self-contained
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, cast

import numpy as np
import torch
from torch import Tensor

from lopsided import __version__
from lopsided.data.storage import UserError, write_atomically, write_csv, write_json
from lopsided.jobs.config import C, CompareConfig, Config, fingerprint
from lopsided.models.task import Rows
from lopsided.training.loop import Epoch

Histories = dict[str, dict[int, dict[str, list[float]]]]  # loss -> seed -> column of metrics.csv -> values

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Run:
    """One trained model: its history, and its scores (rows, L) of validation and test, NaN if training diverged."""

    loss: str
    seed: int
    history: list[Epoch]
    valid_scores: Tensor
    scores: Tensor


class ConfigFolder(Generic[C]):
    """A folder with a config.json: what was asked of which command, and the SHA-256 of the data files."""

    command: ClassVar[str]
    kind: ClassVar[type[Config]]

    def __init__(self, path: Path, config: C) -> None:
        self.path = path
        self.config = config

    @classmethod
    def create(cls, path: Path, config: C) -> Self:
        """A new folder, or the existing one if it holds the same configuration and data."""
        if is_run_folder(path):
            folder = cls.open(path)
            changed = [name for name, value in config if value != getattr(folder.config, name)]
            if changed:
                raise UserError(f"{path}: holds a run with other settings ({', '.join(changed)}); choose another --out")
            return folder
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path}: exists and is not a run folder; choose another --out")
        content = {"lopsided": __version__, "command": cls.command, "config": config.model_dump()}
        write_json(path / "config.json", content | {"data_sha256": fingerprint(config)})
        return cls(path, config)

    @classmethod
    def open(cls, path: Path, check_data: bool = True) -> Self:
        """The folder of an earlier run, to go on with it, or to use what it holds, whatever became of its data."""
        stored = _stored(path)
        if stored is None:
            raise UserError(f"{path}: not a run folder")
        if stored["lopsided"] != __version__:
            raise UserError(f"{path}: begun with lopsided {stored['lopsided']}, this is {__version__}; start a new run")
        command = command_of(path)
        if command != cls.command:
            raise UserError(f"{path}: a run of lopsided {command}, expected one of lopsided {cls.command}")
        try:
            config = cls.kind(**stored["config"])
            known = dict(stored["data_sha256"])
        except (ValueError, KeyError, TypeError) as error:
            problem = " ".join(str(error).split())
            raise UserError(f"{path / 'config.json'}: not readable ({problem})") from None
        if check_data:
            files = config.files()
            changed = [str(files[name]) for name, digest in fingerprint(config).items() if known.get(name) != digest]
            if changed:
                raise UserError(f"{', '.join(changed)}: changed since the run in {path} began; start a new run")
        return cls(path, cast(C, config))

    def write_metrics_lines(self, names: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
        """metrics.csv, with a header."""
        write_csv(self.path / "metrics.csv", names, lines)


class RunFolder(ConfigFolder[CompareConfig]):
    """The folder of a comparison."""

    command = "compare"
    kind = CompareConfig

    def _stem(self, loss: str, seed: int) -> Path:
        name = re.sub(r"[^a-z0-9]+", "-", loss.lower()).strip("-")[:60]
        return self.path / "runs" / f"{self.config.losses.index(loss)}-{name}-seed{seed}"

    def save(self, run: Run) -> None:
        """Scores first: a run counts as finished once its .json is there."""
        stem = self._stem(run.loss, run.seed)
        for path, scores in zip(_score_files(stem), (run.valid_scores.numpy(), run.scores.numpy()), strict=True):
            write_atomically(path, lambda file, scores=scores: np.save(file, scores, allow_pickle=False))  # type: ignore[misc]
        record = {"loss": run.loss, "seed": run.seed, "history": [asdict(epoch) for epoch in run.history]}
        write_json(stem.with_suffix(".json"), record)

    def load(self, loss: str, seed: int, epochs: int, valid: Rows, test: Rows) -> Run | None:
        """The finished run, checked against the number of epochs and the rows that its scores are of; or None."""
        stem = self._stem(loss, seed)
        try:
            record = json.loads(stem.with_suffix(".json").read_text())
            history = [_epoch(row) for row in record["history"]]
            if (record["loss"], record["seed"], len(history)) != (loss, seed, epochs):
                raise ValueError(f"it is not of {loss}, seed {seed}, {epochs} epochs")
            scores = [_load_scores(path, part) for path, part in zip(_score_files(stem), (valid, test), strict=True)]
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{stem}: damaged ({error}); delete its .json to train that run again") from None
        return Run(loss, seed, history, *scores)

    def write_metrics(self, runs: list[Run]) -> None:
        """metrics.csv: one line per loss, seed and epoch; probabilities and mAP as in `Epoch`."""
        names = [field.name for field in fields(Epoch)]
        lines = [[run.loss, run.seed, *astuple(epoch)] for run in runs for epoch in run.history]
        self.write_metrics_lines(["loss", "seed", *names], lines)

    def write_details(self, details: dict[str, Any]) -> None:
        write_json(self.path / "details.json", details)

    def write_results(self, results: dict[str, Any]) -> None:
        write_json(self.path / "results.json", results)

    def read_results(self) -> dict[str, Any]:
        """As written, so that printing and reporting see the same numbers. Raises UserError if there are none yet."""
        path = self.path / "results.json"
        if not path.exists():
            raise UserError(f"{self.path}: not finished; go on with: lopsided compare {self.path}")
        return read_json(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file of a run holds. Raises UserError for a damaged one."""
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"holds a {type(content).__name__}")
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); write it again with: lopsided compare {path.parent}") from None
    return content


def read_histories(path: Path) -> Histories:
    """metrics.csv by loss, seed and column. Raises UserError if a column of `Epoch` is not there, or no number."""
    histories: Histories = {}
    names = [field.name for field in fields(Epoch)]
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                history = histories.setdefault(row["loss"], {}).setdefault(int(row["seed"]), {})
                for name in names:
                    history.setdefault(name, []).append(float(row[name]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); write it again with: lopsided compare {path.parent}") from None
    return histories


def _score_files(stem: Path) -> tuple[Path, Path]:
    """Of the validation and of the test scores."""
    return stem.with_name(stem.name + "-valid.npy"), stem.with_name(stem.name + ".npy")


def _load_scores(path: Path, rows: Rows) -> Tensor:
    scores = torch.from_numpy(np.load(path, allow_pickle=False))
    if scores.shape != rows.targets.shape or scores.dtype != torch.float32:
        raise ValueError(f"the scores of {path.name} are {scores.dtype} {tuple(scores.shape)}")
    return scores


def is_run_folder(path: Path) -> bool:
    """Does it hold the config.json of a run, rather than that of some other program?"""
    return _stored(path) is not None


def command_of(path: Path) -> str | None:
    """The command whose run a folder holds, None if it holds none."""
    stored = _stored(path)
    return None if stored is None else str(stored.get("command", RunFolder.command))


def _stored(path: Path) -> dict[str, Any] | None:
    try:
        stored = json.loads((path / "config.json").read_text())
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and "lopsided" in stored else None


def _epoch(row: dict[str, Any]) -> Epoch:
    return Epoch(**{name: _number(value, math.nan) for name, value in row.items()})


def _number(value: Any, otherwise: float) -> Any:
    """JSON has no infinity and no NaN: null stands for the one that makes sense."""
    return otherwise if value is None else value
