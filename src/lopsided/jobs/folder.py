"""Defines the folders of a run and of a comparison: files are written atomically, so that a killed run can go on."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from lopsided import __version__
from lopsided.data.storage import (
    UserError,
    damaged,
    intact,
    is_temporary,
    read_tensors,
    remove_leftovers,
    write_tensors,
)
from lopsided.decision import choose
from lopsided.decision.choose import Decision
from lopsided.jobs import schema
from lopsided.jobs.compare_config import CompareConfig
from lopsided.jobs.config import C, Config, FitConfig, fingerprint
from lopsided.jobs.run_header import command_of, is_run_folder
from lopsided.jobs.schema import ConfigFile, Details, HistoryLine, ModelFile, Results, TrainingRecord, Trial
from lopsided.jobs.stored_scores import scores_in, tensors_of
from lopsided.metrics.scores import Scores
from lopsided.models.model import Model
from lopsided.training.history import Epoch

RUNS = Path("runs")  # where folders are made that get no other place
Histories = dict[str, dict[int, list[HistoryLine]]]  # loss -> seed -> epochs

if TYPE_CHECKING:
    from typing_extensions import Self


class ConfigFolder(Generic[C]):
    """Describes a folder with a config.json: what was asked of which command, and the SHA-256 of the data files."""

    command: ClassVar[str]
    config_kind: ClassVar[type[Config]]
    file_kind: ClassVar[type[ConfigFile[Any]]]
    last_file: ClassVar[str]  # is there when all is done

    def __init__(
        self, path: Path, config: C, data_sha256: Mapping[str, str] | None = None, begun_with: str = __version__
    ) -> None:
        self.path, self.begun_with = path, begun_with
        self.config = config
        self.data_sha256 = data_sha256 or {}

    @property
    def continued(self) -> str:
        """Returns the command that goes on with an unfinished run."""
        return f"lopsided {self.command} {shlex.quote(str(self.path))}"

    @property
    def repair(self) -> str:
        """Says what to do about a damaged file."""
        return f"delete it, then write it again with: {self.continued}"

    @classmethod
    def create(cls, path: Path, config: C, data_sha256: Mapping[str, str] | None = None) -> Self:
        """Makes a new folder, or returns the existing one if it holds the same configuration and data.

        data_sha256: of the data files, where it is known.
        """
        digests = dict(fingerprint(config) if data_sha256 is None else data_sha256)
        if is_run_folder(path):
            folder = cls.open(path)
            changed = [name for name, value in config if value != getattr(folder.config, name)]
            if changed:
                raise UserError(f"{path}: holds a run with other settings ({', '.join(changed)}); choose another --out")
            folder.refuse_other(digests)
            return folder
        if path.exists() and not (path.is_dir() and all(is_temporary(each) for each in path.iterdir())):
            raise UserError(f"{path}: exists and is not a run folder; choose another --out")
        stored = cls.file_kind(lopsided=__version__, command=cls.command, config=config, data_sha256=digests)
        schema.write_file(path / "config.json", stored)
        return cls(path, config, digests)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens the folder of an earlier run, even where the data files changed or are gone."""
        command = command_of(path)
        if command != cls.command:
            raise UserError(
                f"{path}: a run of lopsided {command}, expected one of lopsided {cls.command}; {cls._instead(path)}"
            )
        stored = schema.read_file(path / "config.json", cls.file_kind, "start a new run")
        return cls(path, stored.config, stored.data_sha256, stored.lopsided)

    @classmethod
    def _instead(cls, path: Path) -> str:
        """Says which folder to name instead of one of the other command."""
        raise NotImplementedError

    def refuse_other(self, digests: Mapping[str, str]) -> None:
        """Raises UserError for files that are no longer those of the run, and for what another version has begun."""
        if self.begun_with != __version__ and not (self.path / self.last_file).exists():
            began = f"{self.path}: begun with lopsided {self.begun_with}"
            raise UserError(f"{began}, this is {__version__}, which may train otherwise; start a new run")
        files = self.config.sources()
        changed = [str(files[name]) for name in digests if self.data_sha256.get(name) != digests[name]]
        if changed:
            raise UserError(f"{', '.join(changed)}: changed since the run in {self.path} began; start a new run")

    def result_of(self, kind: str, data: Path, ending: str) -> Path:
        """Returns the file of what another data file gives: KIND-NAME, with a mark where that lies elsewhere.

        Two files may have one name. Those beside the file of training with its ending cannot.
        """
        data, trained = data.absolute(), Path(self.config.data)
        beside = (data.parent, data.suffix) == (trained.parent, trained.suffix)
        mark = "" if beside else "-" + hashlib.sha256(os.fsencode(data)).hexdigest()[:8]
        return self.path / f"{kind}-{data.stem}{mark}{ending}"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes out, until this one ends, however it does. Raises UserError where another is in."""
        lock = FileLock(self.path / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{self.path}: another process trains this run; wait for it, or stop it") from None
        try:
            yield
        finally:
            with suppress(OSError):  # on Windows, while it is locked
                (self.path / "lock").unlink()
            lock.release()


class RunFolder(ConfigFolder[FitConfig]):
    """Describes the folder of one training.

    config.json              what was asked, and the SHA-256 of the data files
    history.csv              a line per epoch
    state.safetensors        what an unfinished training goes on from
    model.json, model.safetensors
    decision.safetensors     the rule, and the map from scores to probabilities
    seen-rows.safetensors    hashes of the rows that it was trained or tuned on
    scores-tuning.safetensors, scores-test.safetensors
    README.md                the model card
    training.json            how training ended; a run that has it is trained
    results*.json            what `lopsided evaluate` measured
    labels*.csv              the same of each label
    lock                     held while a process trains
    """

    command = "fit"
    config_kind = FitConfig
    last_file = "training.json"
    file_kind = ConfigFile[FitConfig]

    @classmethod
    def _instead(cls, path: Path) -> str:
        return f"name one of its models, a folder in {path / 'runs'}"

    @property
    def repair(self) -> str:
        return f"delete {self.path / 'training.json'}, then train it again with: {self.continued}"

    def _lacks(self, name: str, what: str) -> UserError:
        """Returns an error about a file that a finished run has."""
        if self.is_trained:
            return damaged(self.path / name, FileNotFoundError("it is not there"), self.repair)
        return UserError(f"{self.path}: no {what} yet; go on with: {self.continued}")

    @property
    def state_file(self) -> Path:
        return self.path / "state.safetensors"

    @property
    def is_trained(self) -> bool:
        return (self.path / self.last_file).exists()

    def write_history(self, history: Sequence[Epoch]) -> None:
        """Writes history.csv, or nothing while there is no epoch."""
        schema.write_table(self.path / "history.csv", Epoch, history)

    def read_history(self) -> list[Epoch]:
        """Returns the epochs so far. Raises UserError where there is none yet."""
        path = self.path / "history.csv"
        try:
            history = schema.read_table(path, Epoch, self.repair)
        except FileNotFoundError:
            raise self._lacks(path.name, "finished epoch") from None
        _check_numbers(path, [history], self.repair)
        return history

    def write_training(self, ended: TrainingRecord) -> None:
        """Writes training.json, after which neither the state to go on from nor what kills left is needed any more."""
        schema.write_file(self.path / "training.json", ended)
        self.state_file.unlink(missing_ok=True)
        remove_leftovers(self.path)

    def read_training(self) -> TrainingRecord:
        """Returns how training ended. Raises UserError where it did not."""
        if not self.is_trained:
            raise UserError(f"{self.path}: not finished; go on with: {self.continued}")
        return schema.read_file(self.path / "training.json", TrainingRecord, self.repair)

    def chosen_penalty(self) -> float:
        """Returns the penalty that validation rows chose for a model that is solved; NaN for one trained in steps."""
        return self.read_history()[self.read_training().best_epoch - 1].l2

    def write_model(self, model: Model) -> None:
        """Writes the tensors first: a model without model.json is not there."""
        header, tensors = model.stored()
        unshared = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        write_tensors(self.path / "model.safetensors", unshared)
        schema.write_file(self.path / "model.json", ModelFile(**header))

    def read_model(self) -> Model:
        """Returns the trained model. Raises UserError where there is none, or a damaged one."""
        path = self.path / "model.safetensors"
        if not (self.path / "model.json").exists():
            if self.is_trained and self.read_training().diverged:
                raise UserError(
                    f"{self.path}: training diverged, so there is no model; train anew with a lower --learning-rate"
                )
            raise self._lacks("model.json", "model")
        header = schema.read_file(self.path / "model.json", ModelFile, self.repair)
        with intact(path, self.repair):
            return Model.from_stored(header.model_dump(), read_tensors(path)[0])

    def write_decision(self, decision: Decision) -> None:
        tensors, header = choose.to_tensors(decision)
        write_tensors(self.path / "decision.safetensors", tensors, {"rule": header})

    def read_decision(self) -> Decision:
        path = self.path / "decision.safetensors"
        try:
            with intact(path, self.repair):
                tensors, metadata = read_tensors(path)
                decision: Decision = choose.from_tensors(tensors, metadata["rule"])
        except FileNotFoundError:
            raise self._lacks(path.name, "rule") from None
        return decision

    def write_seen_hashes(self, hashes: Tensor) -> None:
        """Writes the (n,) int64 `Dataset.hashes` of the rows that the run was trained or tuned on."""
        write_tensors(self.path / "seen-rows.safetensors", {"hashes": hashes})

    def read_seen_hashes(self) -> Tensor:
        path = self.path / "seen-rows.safetensors"
        try:
            with intact(path, self.repair):
                hashes = read_tensors(path)[0]["hashes"]
                if hashes.ndim != 1 or hashes.dtype != torch.int64:
                    raise ValueError(f"hashes are {hashes.dtype} {tuple(hashes.shape)}")
                return hashes
        except FileNotFoundError:
            raise self._lacks(path.name, "list of training rows") from None

    def write_scores(self, part: str, scores: Scores) -> None:
        write_tensors(self._scores(part), tensors_of(scores), {"num_labels": str(scores.num_labels)})

    def read_scores(self, part: str, rows: int) -> Scores:
        """Returns the scores of the rows of tuning, or of test. Raises UserError where they are damaged."""
        path = self._scores(part)
        with intact(path, self.repair):
            tensors, metadata = read_tensors(path)
            return scores_in(tensors, rows, int(metadata["num_labels"]))

    def _scores(self, part: str) -> Path:
        return self.path / f"scores-{part}.safetensors"


class ComparisonFolder(ConfigFolder[CompareConfig]):
    """Describes the folder of a comparison.

    config.json     what was asked, and the SHA-256 of the data files
    budget.json     how long an epoch of each loss takes, by which `--budget` chose the epochs
    trials.csv      one line per trial of a rate or of settings; trials.db holds the same for optuna
    baselines.safetensors  scores of the linear baseline, of the rows of tuning and test
    runs/           the folder of a run for each loss and seed: predict, evaluate, inspect and export take it
    history.csv     one line per loss, seed and epoch
    details.json    curves, labels and rows, for the report
    results.json    the tables; a comparison that has them is finished
    report.html     the tables and plots, self-contained
    """

    command = "compare"
    config_kind = CompareConfig
    last_file = "results.json"
    file_kind = ConfigFile[CompareConfig]

    @classmethod
    def _instead(cls, path: Path) -> str:
        whole = path.absolute().parent.parent
        if path.absolute().parent.name == "runs" and is_run_folder(whole):
            return f"name the comparison that it is a part of, {whole}"
        return "name the folder that lopsided compare printed, or compare losses first: lopsided compare FILE"

    def discard(self) -> None:
        """Deletes what a comparison wrote whose budget is too short for any training; what is not its own stays."""
        for name in ("trials", "locks"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in ("budget.json", "config.json"):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()
            if self.path.parent == RUNS:
                RUNS.rmdir()

    def run(self, loss: str, seed: int, changes: dict[str, Any]) -> RunFolder:
        """Makes or opens the folder of one training; changes: settings that differ from those of the comparison."""
        return RunFolder.create(self.run_path(loss, seed), self.config.of_run(loss, seed, changes), self.data_sha256)

    def open_run(self, loss: str, seed: int) -> RunFolder:
        return RunFolder.open(self.run_path(loss, seed))

    def run_path(self, loss: str, seed: int) -> Path:
        name = re.sub(r"[^a-z0-9]+", "-", loss.lower()).strip("-")[:60]
        return self.path / "runs" / f"{self.config.losses.index(loss)}-{name}-seed{seed}"

    def write_histories(self, histories: Mapping[tuple[str, int], Sequence[Epoch]]) -> None:
        """Writes history.csv: one line per loss, seed and epoch."""
        lines = [
            HistoryLine(loss, seed, *astuple(epoch)) for (loss, seed), epochs in histories.items() for epoch in epochs
        ]
        schema.write_table(self.path / "history.csv", HistoryLine, lines)

    def read_histories(self) -> Histories:
        """Returns the lines of history.csv by loss and seed."""
        path = self.path / "history.csv"
        try:
            lines = schema.read_table(path, HistoryLine, self.repair)
        except FileNotFoundError:
            raise UserError(f"{self.path}: no training is finished yet; go on with: {self.continued}") from None
        histories: Histories = {}
        for line in lines:
            histories.setdefault(line.loss, {}).setdefault(line.seed, []).append(line)
        _check_numbers(path, [epochs for seeds in histories.values() for epochs in seeds.values()], self.repair)
        return histories

    def read_trials(self) -> list[Trial]:
        """Returns the lines of trials.csv; none where nothing was tried."""
        try:
            return schema.read_table(self.path / "trials.csv", Trial, self.repair)
        except FileNotFoundError:
            return []

    def write_outcome(self, results: Results, details: Details) -> None:
        """Writes results.json last: a comparison that has it is finished."""
        schema.write_file(self.path / "details.json", details)
        schema.write_file(self.path / "results.json", results)

    def read_results(self) -> Results:
        """Reads results.json, so that printing and reporting agree. Raises UserError if there are none yet."""
        path = self.path / "results.json"
        if not path.exists():
            raise UserError(f"{self.path}: not finished; go on with: {self.continued}")
        return schema.read_file(path, Results, self.repair)

    def read_details(self) -> Details:
        return schema.read_file(self.path / "details.json", Details, self.repair)

    def as_trained(self, loss: str) -> dict[str, Any]:
        """Returns the settings of a loss that trials chose: the loss itself with its settings, and its rate."""
        if not self.config.searches or loss not in self.config.losses:
            return {"loss": loss}
        entry = self.read_results().losses[loss]
        rate = (entry.tuned_settings or {}).get("learning_rate")
        return {"loss": entry.settings} | ({} if rate is None else {"learning_rate": rate})


def _check_numbers(path: Path, histories: Sequence[Sequence[Epoch]], repair: str) -> None:
    """Raises UserError unless the epochs of every history are numbered from 1 on."""
    numbers = [[epoch.epoch for epoch in history] for history in histories]
    if not numbers or any(each != list(range(1, len(each) + 1)) or not each for each in numbers):
        raise damaged(path, ValueError("it must have a line for each epoch, from 1 on"), repair)


def open_folder(path: Path) -> RunFolder | ComparisonFolder:
    """Opens the folder of a run or a comparison, even where its data files changed or are gone."""
    kind = RunFolder if command_of(path) == RunFolder.command else ComparisonFolder
    return kind.open(path)


def folder_of(kind: type[Config]) -> type[ConfigFolder[Any]]:
    """Returns what describes a folder with such settings."""
    return RunFolder if issubclass(kind, FitConfig) else ComparisonFolder
