"""Defines the settings of a run, which are checked, and stored with its results."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from lopsided.data.storage import UserError
from lopsided.data.text_files import Columns
from lopsided.decision.choose import TUNED, untuned
from lopsided.decision.choose import check_name as check_rule
from lopsided.jobs.score import METRICS
from lopsided.losses import formula
from lopsided.losses.names import split_specs
from lopsided.training.objective import parse_method

if TYPE_CHECKING:
    from typing_extensions import Self

BUILT_IN = "digits-grid"
IMAGES = 6000  # of the built-in training set
_FILE_OPTIONS = ("valid", "test", "text_column", "label_column", "separator")
_BUILT_IN_OPTIONS = ("images",)


def _option(default: Any, text: str, *, unset: str = "none", **limits: Any) -> Any:
    """Returns a field with its default, its limits and its help text; `unset` says what None stands for."""
    return Field(default, description=text, json_schema_extra={"unset": unset}, **limits)


class Config(BaseModel):
    """Holds the settings of a run, stored in its folder. The options of the command are made from the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str

    @property
    def name(self) -> str:
        """Returns the name of the data file, with ? for bytes that are not text."""
        return Path(self.data).name.encode("utf-8", "replace").decode()

    @classmethod
    def _names_a_file(cls, option: str, value: str) -> bool:
        raise NotImplementedError

    @field_validator("data", "valid", "test", check_fields=False)
    @classmethod
    def _from_anywhere(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Makes paths absolute, so that the run can go on from another folder."""
        is_file = value is not None and cls._names_a_file(str(info.field_name), value)
        return str(Path(str(value)).absolute()) if is_file else value

    def files(self) -> dict[str, Path]:
        """Returns the data files that were named, by option."""
        named = {option: getattr(self, option) for option in ("data", "valid", "test")}
        return {
            option: Path(value)
            for option, value in named.items()
            if value is not None and self._names_a_file(option, value)
        }

    def changed(self, settings: dict[str, Any]) -> Self:
        """Returns a copy with other settings; settings that this kind does not have are ignored."""
        known = {name: value for name, value in settings.items() if name in type(self).model_fields}
        return checked(type(self), self.model_dump() | known)


C = TypeVar("C", bound=Config)


class CompareConfig(Config):
    """Holds the settings of `lopsided compare`; None stands for the default of the data that are named."""

    data: str = BUILT_IN
    losses: tuple[str, ...] = _option(("bce", "focal", "asl", "apl", "zlpr"), "Losses, separated by commas.")
    baseline: str | None = _option(None, "The loss compared against.", unset="bce")
    metric: str = _option("map", "The metric of the verdict.")
    seeds: int = _option(3, "Trainings of each loss.", ge=1, le=1000)
    epochs: int | None = _option(None, "Epochs of each training.", unset="depends on the data", ge=1, le=1_000_000)
    batch_size: int | None = _option(None, "Rows per step.", unset="depends on the data", ge=1, le=1_000_000)
    learning_rate: float | None = _option(None, "Step size.", unset="depends on the data", gt=0, le=1e6)
    tune: int | None = _option(None, "Trials of each loss's own settings, on validation rows.", ge=1, le=10_000)
    valid: str | None = _option(None, "File of validation rows.", unset="split off")
    test: str | None = _option(None, "File of test rows.", unset="split off")
    text_column: str | None = _option(None, "Name of the text field.", unset=Columns.text)
    label_column: str | None = _option(None, "Name of the label field.", unset=Columns.labels)
    separator: str | None = _option(None, "Between the labels of a CSV cell.", unset=Columns.separator, min_length=1)
    images: int | None = _option(None, f"Training images of {BUILT_IN}.", unset=str(IMAGES), ge=10, le=1_000_000)
    missing: float = _option(0.0, "Share of the training positives to hide.", ge=0, lt=1)
    data_seed: int = _option(0, "Seed of splits and of made data.", ge=0, lt=2**32)

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

    @classmethod
    def _names_a_file(cls, option: str, value: str) -> bool:
        return option != "data" or value != BUILT_IN

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
        """Returns the loss that the others are compared with."""
        return self.baseline or ("bce" if "bce" in self.losses else self.losses[0])


class FitConfig(Config):
    """Holds the settings of `lopsided fit`; None stands for the default of the number of rows."""

    loss: str = _option("asl", "A loss such as zlpr or 'asl(gamma_neg=2)'.")
    hidden: int = _option(256, "Numbers between features and labels.", ge=1, le=65_536)
    dropout: float = _option(0.3, "Share of them left out at random.", ge=0, lt=1)
    epochs: int | None = _option(None, "Times that every row is seen.", unset="depends on the data", ge=1, le=1_000_000)
    batch_size: int | None = _option(None, "Rows per step.", unset="depends on the data", ge=1, le=1_000_000)
    learning_rate: float = _option(0.03, "Step size.", gt=0, le=1e6)
    valid: str | None = _option(None, "File of validation rows, or a share of the training rows.")
    test: str | None = _option(None, "File of rows to evaluate on.")
    seed: int = _option(0, "Of initial weights, order and dropout.", ge=0, lt=2**32)
    normalize: bool = _option(True, "Scale rows to unit length.")
    decide: str | None = _option(
        None,
        "Rule: per-label, global, macro-f1, expected-f1, own, or top-K.",
        unset="per-label with --valid, else own",
    )
    at_least_one: bool = _option(False, "Predict a label for every row.")

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, loss: str) -> str:
        formula(loss)
        return loss

    @classmethod
    def _names_a_file(cls, option: str, value: str) -> bool:
        return option != "valid" or _as_share(value) is None

    @field_validator("valid")
    @classmethod
    def _some_of_the_rows(cls, valid: str | None) -> str | None:
        share = _as_share(valid)
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
    def losses(self) -> tuple[str, ...]:
        """Returns the one loss that is trained, in a tuple, as a comparison has it."""
        return (self.loss,)

    @property
    def reference(self) -> str:
        return self.loss

    @property
    def valid_share(self) -> float | None:
        """Returns the share of the training rows to hold out, if validation is not a file."""
        return _as_share(self.valid)


def _as_share(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def make_config(settings: dict[str, Any]) -> CompareConfig:
    """Returns a CompareConfig. Raises UserError, which names the first bad setting in one line."""
    return checked(CompareConfig, settings)


def checked(kind: type[C], settings: dict[str, Any]) -> C:
    """Returns a configuration of that kind. Raises UserError, which names the first bad setting in one line."""
    try:
        return kind(**settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = str(first["msg"]).removeprefix("Value error, ")
        option = "--" + str(first["loc"][0]).replace("_", "-") + ": " if first["loc"] else ""
        raise UserError(f"{option}{message}") from None


def fingerprint(config: Config) -> dict[str, str]:
    """Returns the SHA-256 of every data file, so that a run is not continued on other data."""
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
