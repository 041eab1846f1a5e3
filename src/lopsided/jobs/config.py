"""What was asked: the settings of a comparison, checked, and stored with its results."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lopsided.data.storage import UserError
from lopsided.decision.choose import TUNED, untuned
from lopsided.decision.choose import check_name as check_rule
from lopsided.jobs.score import METRICS
from lopsided.losses import formula
from lopsided.losses.names import split_specs
from lopsided.training.objective import parse_method

BUILT_IN = "digits-grid"
_FILE_OPTIONS = ("valid", "test", "text_column", "label_column", "separator")
_BUILT_IN_OPTIONS = ("images",)


class Config(BaseModel):
    """What a run was asked to do; stored in its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str

    @property
    def name(self) -> str:
        """That of the data file, with ? for bytes that are no text."""
        return Path(self.data).name.encode("utf-8", "replace").decode()

    def files(self) -> dict[str, Path]:
        """The data files that were named, by option."""
        raise NotImplementedError


C = TypeVar("C", bound=Config)


class CompareConfig(Config):
    """The settings of `lopsided compare`; None stands for the default of the data that are named."""

    data: str = BUILT_IN
    valid: str | None = None
    test: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    separator: str | None = Field(None, min_length=1)
    images: int | None = Field(None, ge=10, le=1_000_000)
    missing: float = Field(0.0, ge=0, lt=1)
    data_seed: int = Field(0, ge=0, lt=2**32)
    losses: tuple[str, ...] = ("bce", "focal", "asl", "apl", "zlpr")
    baseline: str | None = None
    metric: str = "map"
    seeds: int = Field(3, ge=1, le=1000)
    epochs: int | None = Field(None, ge=1, le=1_000_000)
    batch_size: int | None = Field(None, ge=1, le=1_000_000)
    learning_rate: float | None = Field(None, gt=0, le=1e6)
    tune: int | None = Field(None, ge=1, le=10_000)  # trials of each loss

    @field_validator("losses", mode="before")
    @classmethod
    def _from_one_string(cls, losses: Any) -> Any:
        return split_specs(losses) if isinstance(losses, str) else losses

    @field_validator("losses")
    @classmethod
    def _known_losses(cls, losses: tuple[str, ...]) -> tuple[str, ...]:
        for spec in losses:
            parse_method(spec)
        if len(losses) < 2:
            raise ValueError(f"a comparison needs at least two losses, got {', '.join(losses) or 'none'}")
        if len(set(losses)) < len(losses):
            raise ValueError(f"the same loss twice in {', '.join(losses)}")
        return losses

    @field_validator("data", "valid", "test")
    @classmethod
    def _from_anywhere(cls, path: str | None) -> str | None:
        """Absolute, so that the run can go on from another folder."""
        return path if path is None or path == BUILT_IN else str(Path(path).absolute())

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str) -> str:
        if metric not in METRICS:
            near = difflib.get_close_matches(metric, METRICS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown metric {metric!r}: {hint}known are {', '.join(METRICS)}")
        return metric

    @model_validator(mode="after")
    def _baseline_is_compared(self) -> CompareConfig:
        if self.reference not in self.losses:
            raise ValueError(f"the baseline {self.baseline!r} is not among the losses {', '.join(self.losses)}")
        return self

    @model_validator(mode="after")
    def _options_suit_the_data(self) -> CompareConfig:
        built_in = self.data == BUILT_IN
        for name in _FILE_OPTIONS if built_in else _BUILT_IN_OPTIONS:
            if getattr(self, name) is not None:
                kind = "files of texts" if built_in else BUILT_IN
                raise ValueError(f"--{name.replace('_', '-')} is for {kind}, but the data are {self.name}")
        return self

    @property
    def reference(self) -> str:
        """The loss that the others are compared with."""
        return self.baseline or ("bce" if "bce" in self.losses else self.losses[0])

    def files(self) -> dict[str, Path]:
        named = {"data": None if self.data == BUILT_IN else self.data, "valid": self.valid, "test": self.test}
        return {option: Path(path) for option, path in named.items() if path is not None}


class FitConfig(Config):
    """The settings of `lopsided fit`; None stands for the default of the number of rows."""

    valid: str | None = None  # a file, or a share of the training rows
    test: str | None = None
    loss: str = "asl"
    hidden: int = Field(256, ge=1, le=65_536)
    dropout: float = Field(0.3, ge=0, lt=1)
    epochs: int | None = Field(None, ge=1, le=1_000_000)
    batch_size: int | None = Field(None, ge=1, le=1_000_000)
    learning_rate: float = Field(0.03, gt=0, le=1e6)
    normalize: bool = True  # rows to unit length
    seed: int = Field(0, ge=0, lt=2**32)
    decide: str | None = None  # None: per-label with validation rows, else what needs none
    at_least_one: bool = False

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, loss: str) -> str:
        formula(loss)
        return loss

    @field_validator("data", "valid", "test")
    @classmethod
    def _from_anywhere(cls, path: str | None) -> str | None:
        """Absolute, so that the run can go on from another folder."""
        return path if path is None or _share(path) is not None else str(Path(path).absolute())

    @field_validator("valid")
    @classmethod
    def _some_of_the_rows(cls, valid: str | None) -> str | None:
        share = _share(valid)
        if share is not None and not 0 < share < 1:
            raise ValueError(f"a share of the training rows must lie between 0 and 1, got {valid}")
        return valid

    @model_validator(mode="after")
    def _rule_can_be_made(self) -> FitConfig:
        if self.decide is not None:
            check_rule(self.decide)
            if self.decide in TUNED and self.valid is None:
                raise ValueError(f"--decide {self.decide} is tuned on validation rows: add --valid FILE, or a share")
            if self.decide == "own":
                untuned("own", self.loss, 0)
        return self

    @property
    def valid_share(self) -> float | None:
        """The share of the training rows to hold out, if validation is not a file."""
        return _share(self.valid)

    def files(self) -> dict[str, Path]:
        named = {"data": self.data, "valid": self.valid if self.valid_share is None else None, "test": self.test}
        return {option: Path(path) for option, path in named.items() if path is not None}


def _share(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def make_config(settings: dict[str, Any]) -> CompareConfig:
    """A CompareConfig, or a UserError that names the first bad setting in one line."""
    return checked(CompareConfig, settings)


def checked(kind: type[C], settings: dict[str, Any]) -> C:
    """A configuration of that kind, or a UserError that names the first bad setting in one line."""
    try:
        return kind(**settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = str(first["msg"]).removeprefix("Value error, ")
        option = "--" + str(first["loc"][0]).replace("_", "-") + ": " if first["loc"] else ""
        raise UserError(f"{option}{message}") from None


def fingerprint(config: Config) -> dict[str, str]:
    """SHA-256 of every data file, so that a run is not continued on other data."""
    try:
        return {name: _sha256(path) for name, path in config.files().items()}
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**24):
            digest.update(block)
    return digest.hexdigest()
