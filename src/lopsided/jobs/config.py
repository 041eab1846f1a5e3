"""Defines the settings of a run, which are checked, and stored with its results.

What checks a setting is imported where it is called: to list the options, a command needs no torch.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from stat import S_ISFIFO
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import ValidationError, ValidationInfo, field_validator, model_validator

from lopsided.data import BUILT_IN
from lopsided.data.options import ReadOptions, option
from lopsided.data.storage import UserError, first_problem
from lopsided.models.recipe import Recipe
from lopsided.training.history import JUDGES

if TYPE_CHECKING:
    from typing_extensions import Self

IMAGES, IMBALANCE = 1500, 10.0  # of the built-in training set
_BUILT_IN_OPTIONS = ("images", "imbalance")
_OF_STEPS = (
    *("batch_size", "learning_rate", "schedule", "accumulate", "clip_norm", "average", "weight_decay", "body_rate"),
    *("sampling", "mixup", "r_drop", "precision"),
)

_training = partial(option, panel="Training")
_decision = partial(option, panel="Decision")
_rows = partial(option, panel="Rows")


class Config(ReadOptions):
    """Holds the settings of a run, stored in its folder. The options of the command are made from the fields.

    None stands for the default of the data or of the model. Paths are absolute, so that a run can go on from anywhere.
    """

    data: str
    model: str | None = _training(None, "A model such as ngrams or 'bag(hidden=512)'.", unset="depends on the data")
    epochs: int | None = _training(
        None,
        "Epochs of a training; penalties of a model that is solved.",
        unset="depends on the data",
        ge=1,
        le=1_000_000,
    )
    batch_size: int | None = _training(None, "Rows per batch.", unset="depends on the data", ge=1, le=1_000_000)
    learning_rate: float | None = _training(
        None, "Step size.", unset="depends on the data; the best of a ladder in compare", gt=0, le=1e6
    )
    schedule: Literal["constant", "cosine", "one_cycle"] | None = _training(
        None, "Of the step size: constant, cosine or one_cycle.", unset="depends on the model"
    )
    accumulate: int | None = _training(None, "Batches per step.", unset="1", ge=1, le=1_000_000)
    clip_norm: float | None = _training(None, "Largest norm of the gradient.", unset="any", gt=0)
    average: float | None = _training(
        None, "Decay, per step, of a moving average of the weights.", unset="depends on the model", gt=0, lt=1
    )
    weight_decay: float | None = _training(None, "Of matrices.", unset="depends on the model", ge=0)
    body_rate: float | None = _training(
        None, "Times the step size, below the head.", unset="depends on the model", ge=0
    )
    sampling: Literal["uniform", "class_aware"] | None = _training(
        None, "Of rows: uniform, or class_aware for every label equally often.", unset="uniform"
    )
    mixup: float | None = _training(None, "Alpha of mixup between body and head.", unset="0, for none", ge=0)
    r_drop: float | None = _training(None, "Weight of R-Drop, two passes through dropout.", unset="0, for none", ge=0)
    precision: Literal["fp32", "bf16"] | None = _training(None, "Of products: fp32 or bf16.", unset="fp32")
    l2: float | None = _training(
        None, "Penalty of a model that is solved.", unset="the best on validation rows", gt=0, le=1e12
    )
    no_refit: bool = _training(False, "Keep validation rows out of the last solution of a model that is solved.")
    patience: int | None = _training(
        None,
        "Epochs, or penalties, without a better validation score to stop after.",
        unset="depends on the model",
        ge=1,
    )
    valid: str | None = _rows(
        None, "File of validation rows, or a share of the training rows; 0 for none.", unset="0.1, or 0.2 in compare"
    )
    test: str | None = _rows(
        None, "File of test rows, or a share of the training rows; 0 for none.", unset="0, or 0.2 in compare"
    )
    keep_overlap: bool | None = _rows(
        None, "Keep test rows that also stand among those of training.", unset="yes, or no in compare"
    )
    images: int | None = _rows(None, f"Training images of {BUILT_IN}.", unset=str(IMAGES), ge=10, le=1_000_000)
    imbalance: float | None = _rows(None, "Its frequent labels per rare one.", unset=f"{IMBALANCE:g}", ge=1, le=1000)
    missing: float = _rows(0.0, "Share of the training positives to hide.", ge=0, lt=1)
    data_seed: int = _rows(0, "Seed of splits and of made data.", ge=0, lt=2**32)

    @property
    def name(self) -> str:
        """Returns the name of the data file, with ? for bytes that are not text."""
        return Path(self.data).name.encode("utf-8", "replace").decode()

    @field_validator("labels_file", "targets_file", "filter_file", "image_folder")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.absolute()

    @field_validator("data", "valid", "test")
    @classmethod
    def _from_anywhere(cls, value: str | None, info: ValidationInfo) -> str | None:
        share = None if info.field_name == "data" else as_share(value)
        if share is not None and not 0 <= share < 1:
            raise ValueError(f"a share of the training rows must lie between 0 and 1, got {value}")
        is_file = value is not None and share is None and (info.field_name != "data" or value != BUILT_IN)
        return str(Path(str(value)).absolute()) if is_file else value

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str | None) -> str | None:
        from lopsided.models.registry import check_model

        if model is not None:
            check_model(model)
        return model

    @model_validator(mode="after")
    def _options_suit_the_data(self) -> Self:
        if self.data != BUILT_IN:
            unsuited = [name for name in _BUILT_IN_OPTIONS if getattr(self, name) is not None]
        else:
            names = ("valid", "test", *ReadOptions.model_fields)
            fields = type(self).model_fields
            unsuited = [name for name in names if getattr(self, name) != fields[name].default]
        if unsuited:
            kind = "files" if self.data == BUILT_IN else BUILT_IN
            raise ValueError(f"--{unsuited[0].replace('_', '-')} is for {kind}, but the data are {self.name}")
        return self

    def files(self) -> dict[str, Path]:
        """Returns the data files that were named, by option."""
        named = {name: getattr(self, name) for name in ("data", "valid", "test")}
        return {
            name: Path(value)
            for name, value in named.items()
            if value is not None and as_share(value) is None and value != BUILT_IN
        }

    def sources(self) -> dict[str, Path]:
        """Returns all files that are read: those that were named, by option, and those of labels beside them."""
        from lopsided.data.readers import labels_beside

        others = {name: getattr(self, name) for name in ("labels_file", "targets_file", "filter_file")}
        if self.targets_file is None:
            files = {name: path for name, path in self.files().items() if path.is_file()}
            others |= {f"labels of {name}": labels_beside(path, self) for name, path in files.items()}
        return self.files() | {name: path for name, path in others.items() if path is not None}

    def share(self, part: Literal["valid", "test"]) -> float:
        """Returns the share of the training rows that is split off for validation or test."""
        value = getattr(self, part)
        return self.default_shares[part] if value is None else as_share(value) or 0.0

    @property
    def default_shares(self) -> dict[str, float]:
        raise NotImplementedError

    @property
    def has_test(self) -> bool:
        """Tells whether there are test rows: of a file, split off, or made."""
        return self.data == BUILT_IN or "test" in self.files() or self.share("test") > 0

    @property
    def methods(self) -> tuple[str, ...]:
        """Returns the losses that are trained, or "powerset", as they were asked for."""
        raise NotImplementedError

    @property
    def validation_metric(self) -> str | None:
        """Returns the name, in the registry, of the metric that training is judged by; None for the default."""
        raise NotImplementedError

    def read_options(self) -> ReadOptions:
        """Returns how the files are read."""
        return ReadOptions(**{name: getattr(self, name) for name in ReadOptions.model_fields})

    def recipe(self, model: str, default: Recipe) -> Recipe:
        """Returns the recipe of a model, by name, with what these settings say otherwise. Raises as `check` does."""
        self.check(model, default)
        names = {field.name for field in fields(Recipe)} & type(self).model_fields.keys()
        return replace(default, **{name: value for name in names if (value := getattr(self, name)) is not None})

    def check(self, model: str, default: Recipe) -> None:
        """Raises UserError for settings of steps where the model, by name, is solved, and the other way round."""
        from lopsided.models.methods import only_in_steps, parse_method

        unsuited = [name for name in (_OF_STEPS if default.solved else ("l2",)) if getattr(self, name) is not None]
        unsuited = [f"--{name.replace('_', '-')}" for name in unsuited]
        if unsuited and not default.solved:
            raise UserError(f"{unsuited[0]} is for models that are solved, and {model} is trained in steps")
        if default.solved:
            unsuited += filter(None, (only_in_steps(parse_method(spec)) for spec in self.methods))
        if unsuited:
            raise UserError(for_steps(unsuited[0], model))

    def changed(self, settings: dict[str, Any]) -> Self:
        """Returns a copy with other settings; settings that this kind does not have are ignored."""
        known = {name: value for name, value in settings.items() if name in type(self).model_fields}
        return checked(type(self), self.model_dump() | known)


C = TypeVar("C", bound=Config)
S = TypeVar("S", bound=ReadOptions)


class FitConfig(Config):
    """Holds the settings of `lopsided fit`."""

    loss: str = _training("asl", "A loss such as zlpr or 'asl(gamma_neg=2)', or powerset.")
    metric: str | None = _training(
        None, "The validation metric whose best epoch is kept.", unset="map, or p@1 of very many labels"
    )
    seed: int = _training(0, "Of initial weights, order and dropout.", ge=0, lt=2**32)
    decide: str | None = _decision(
        None,
        "Rule: per-label, global, macro-f1, expected-f1, fB such as f2 for more recall, own, top-K, or the run whose "
        "rule is taken.",
        unset="per-label with validation rows, else own",
    )
    at_least_one: bool = _decision(False, "Predict a label for every row.")
    dtype: Literal["fp32", "bf16"] | None = _training(
        None, "Of the weights in the file: fp32 or bf16.", unset="bf16 for a model that is solved, else fp32"
    )

    @property
    def default_shares(self) -> dict[str, float]:
        return {"valid": 0.1, "test": 0.0}

    @property
    def methods(self) -> tuple[str, ...]:
        return (self.loss,)

    @property
    def validation_metric(self) -> str | None:
        return self.metric

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, loss: str) -> str:
        from lopsided.models.methods import parse_method

        parse_method(loss)
        return loss

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str | None) -> str | None:
        return None if metric is None else known_metric(metric, JUDGES)

    @field_validator("decide")
    @classmethod
    def _folder_from_anywhere(cls, decide: str | None) -> str | None:
        is_folder = decide is not None and (Path(decide) / "config.json").is_file()
        return str(Path(str(decide)).absolute()) if is_folder else decide

    @property
    def rule_from(self) -> Path | None:
        """Returns the folder of the run whose rule is taken; None where the rule is one of its own."""
        return Path(self.decide) if self.decide and Path(self.decide).is_absolute() else None

    @model_validator(mode="after")
    def _rule_can_be_made(self) -> FitConfig:
        if self.decide is not None and self.rule_from is None:
            from lopsided.decision.names import check_name, is_tuned

            check_name(self.decide)
            if is_tuned(self.decide) and "valid" not in self.files() and not self.share("valid"):
                raise ValueError(f"--decide {self.decide} is tuned on validation rows: add --valid FILE, or a share")
            if self.decide == "own":
                from lopsided.losses import Balanced
                from lopsided.losses.checks import check_thresholded
                from lopsided.models.methods import loss_of_scores, parse_method

                loss = loss_of_scores(parse_method(self.loss))
                if isinstance(loss, Balanced):
                    raise ValueError(f"--decide own: {loss} is made from label counts and has no threshold of its own")
                check_thresholded(loss)  # which needs no torch, as what follows does
                from lopsided.decision.choose import untuned

                untuned("own", str(loss), 0)
        return self


def for_steps(setting: str, model: str) -> str:
    """Says that a setting, as a user wrote it, does not suit a model, which is solved."""
    in_steps = "bag" if model in ("linear_bag", "tree") else f"{model}(solve=False)"
    return (
        f"{setting} is for models that are trained in steps, and {model} is solved: leave it out, or "
        f'choose --model "{in_steps}"'
    )


def known_metric(metric: str, metrics: Collection[str]) -> str:
    """Returns the name of a metric. Raises ValueError, with the nearest known name, for any other."""
    if metric not in metrics:
        near = difflib.get_close_matches(metric, metrics, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown metric {metric!r}: {hint}known are {', '.join(metrics)}")
    return metric


def as_share(text: str | None) -> float | None:
    """Returns the share of rows that a setting says, None where it names a file."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def checked(kind: type[S], settings: dict[str, Any]) -> S:
    """Returns settings of that kind. Raises UserError, which names the first bad setting in one line."""
    try:
        return kind(**settings)
    except ValidationError as error:
        field, message = first_problem(error)
        option = "--" + field[0].replace("_", "-") + ": " if field else ""
        raise UserError(f"{option}{message}") from None


def read_otherwise(options: ReadOptions, asked: dict[str, Any]) -> ReadOptions:
    """Returns how a file is read that is not like that of training: with some options of its own.

    Raises UserError, which names the first bad one in one line.
    """
    return checked(ReadOptions, options.model_dump() | asked)


def fingerprint(config: Config) -> dict[str, str]:
    """Returns the SHA-256 of every data file or folder, so that a run is not continued on other data."""
    return {name: data_digest(path) for name, path in config.sources().items()}


@contextmanager
def fingerprinted(config: Config) -> Iterator[dict[str, str]]:
    """Gives the same of files that are read meanwhile. Raises UserError, after it, for one that has changed since."""
    before = {path: _state(path) for path in config.sources().values()}
    yield fingerprint(config)
    for path, state in before.items():
        if _state(path) != state:
            raise UserError(f"{path}: changed while it was read; run the same command again")


def _state(path: Path) -> list[tuple[Any, ...]]:
    """Returns what changes whenever a file is written, of a folder's files too."""
    try:
        found = [file.stat() for file in (_files_in(path) if path.is_dir() else [path])]
    except OSError:
        return []
    return [(each.st_ino, each.st_size, each.st_mtime_ns) for each in found if not S_ISFIFO(each.st_mode)]


def data_digest(path: Path) -> str:
    """Returns the SHA-256 of a file, or of the files and names in a folder; "" for a pipe, which can be read but once.

    Raises UserError for what cannot be read.
    """
    try:
        return "" if path.exists() and not path.is_file() and not path.is_dir() else _digest(path)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None


def _digest(path: Path) -> str:
    from lopsided.data.image_files import ENDINGS

    digest = hashlib.sha256()
    if path.is_dir():
        for inside in _files_in(path):
            digest.update(os.fsencode(inside.relative_to(path)) + b"\0")
            if inside.suffix.lower() not in ENDINGS:  # of images, as of those that a list names, the names alone
                digest.update(_digest(inside).encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        while block := file.read(2**24):
            digest.update(block)
    return digest.hexdigest()


def _files_in(path: Path) -> Iterator[Path]:
    """Yields the files in a folder, at any depth and in order, but for those of runs that were written there."""
    for file in sorted(path.iterdir()):
        if not file.is_dir():
            yield file
        elif not (file / "config.json").exists():
            yield from _files_in(file)
