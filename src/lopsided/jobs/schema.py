"""Defines the files of a run folder, one class a file; only this module reads and writes them.

Every JSON file begins with {"schema": 3, "kind": ...}. A number that is undefined, NaN or infinite in the code, is null
in JSON and None here. A number of a history stays NaN, since histories are computed with.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter

from lopsided.data.storage import intact, write_csv, write_json
from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.config import C
from lopsided.jobs.run_header import SCHEMA
from lopsided.models.recipe import Recipe
from lopsided.training.history import Epoch


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_defined)]
_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
StoredRecipe = Annotated[
    Recipe, BeforeValidator(lambda value: _RECIPE.validate_python(value) if isinstance(value, dict) else value)
]


class Record(BaseModel):
    """Describes a part of a file; a field that has another type, is missing or is unknown is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StoredFile(Record):
    """Holds the content of a JSON file; its kind tells it from those of other files."""

    kind: ClassVar[str]


class ConfigFile(StoredFile, Generic[C]):
    """Describes config.json: what was asked of which command, and the SHA-256 of the data files."""

    kind = "configuration"
    lopsided: str
    command: str
    config: C
    data_sha256: dict[str, str]


class TrainingRecord(StoredFile):
    """Describes training.json: how a training ended."""

    kind = "training"
    method: str
    seed: int
    rows: int  # that were trained on
    epochs: int  # that were trained, the last of them lost if training diverged
    best_epoch: int  # whose weights were kept
    seconds: float
    diverged: bool
    refitted: bool = False  # solved once more, on validation rows as well


class Speed(StoredFile):
    """Describes budget.json of a comparison: how fast losses trained, by which `--budget` chose the epochs of all."""

    kind = "speed"
    jobs: int  # that ran side by side
    seconds: dict[str, float]  # of an epoch, by loss


class ModelFile(StoredFile):
    """Describes model.json: what the model is, beside the tensors of model.safetensors."""

    kind = "model"
    encoder: str  # its name
    encoder_values: dict[str, Any]
    method: str
    rows: int
    label_names: list[str] | int  # a number L stands for the names "0" to "L - 1"
    dtype: Literal["fp32", "bf16"] = "fp32"  # of the matrices; float32 in the files of versions that did not say it


class Interval(Record):
    """Holds a mean over seeds with its 95 % interval, whose ends are None for one seed."""

    mean: Number
    low: Number
    high: Number


class LossResult(Record):
    """Describes one loss on the test rows."""

    settings: str  # as trained; the name where that is not known
    tuned_settings: dict[str, float] | None  # None with --learning-rate and without --tune
    own_threshold: Number  # None where the loss has none, or saturates
    tuned_thresholds: list[Number]  # by seed
    seconds: Number  # of a training
    l2: Number = None  # the penalty that was chosen for a model that is solved
    refitted: bool = False  # solved once more with that penalty, on validation rows as well
    best_epochs: list[int]  # by seed: the epoch whose weights are scored; empty where it is not known
    metrics: dict[str, Interval]
    rising: bool  # training ended while validation still gained
    overfitting: bool  # training ended when validation had fallen well below its best


class BaselineResult(Record):
    """Describes a model that no loss of this library trained, on the same test rows."""

    settings: str
    seconds: float
    metrics: dict[str, Number]


class Comparison(Interval):
    """Holds the paired difference of a loss to the reference: see `lopsided.metrics.significance.Difference`."""

    p_value: Number
    standard_error: Number
    freedom: Number
    effect_size: Number
    detectable: Number
    p_holm: Number
    p_alone: Number  # had no other loss been compared
    verdict: str


class Gap(Interval):
    """Holds the difference of a loss to the linear baseline."""

    p_holm: Number


class LabelGroup(Record):
    """Describes the labels with so many training positives; metrics by loss or baseline, then by name."""

    name: str
    low: int  # fewest training positives
    high: int  # most
    labels: int
    tested: int  # that have test positives, of which macro means are made
    metrics: dict[str, dict[str, Number]]


class LabelTests(Record):
    """Counts the labels that test rows can say something about."""

    with_positives: int
    few: int  # of those, with fewer positives than say much


class SplitSizes(Record):
    """Counts the rows of each part; None for parts that are not known."""

    train: int | None = None
    valid: int | None = None
    test: int


class DataSummary(Record):
    """Describes the data set of a comparison."""

    name: str
    rows: SplitSizes
    labels: int
    positives_per_row: float
    missing: float


class Results(StoredFile):
    """Describes results.json of a comparison."""

    kind = "comparison"
    lopsided: str
    torch: str
    threads: int
    data: DataSummary
    recipe: StoredRecipe | None  # None where the models were trained elsewhere
    seeds: int
    budget: str | None = None  # of wall time, that chose the epochs
    resplit: bool = False  # whether each seed had test rows of its own; labels and rows are those of the first
    metric: str
    reference: str  # the loss that the others are compared with
    losses: dict[str, LossResult]
    baselines: dict[str, BaselineResult]
    comparisons: dict[str, Comparison]  # of every loss but the reference
    other_comparisons: dict[str, dict[str, Comparison]]  # the same in other metrics, by their names
    to_linear: dict[str, Gap]  # of every loss, in the verdict's metric; empty without a linear baseline
    groups: list[LabelGroup]  # from rare to frequent; none where labels are alike
    tested: LabelTests
    tuned_on: str  # which rows have tuned the thresholds
    seen: int = 0  # test rows of a text, or of a group, that also stands among those of training or validation
    notes: list[str]

    def known_metrics(self) -> list[str]:
        """Returns that of the verdict, and those that any loss has: without validation rows, nothing is tuned."""
        defined = {name for entry in self.losses.values() for name in METRICS if entry.metrics[name].mean is not None}
        return [name for name in METRICS if name in defined or name == self.metric]

    @property
    def is_solved(self) -> bool:
        """Tells whether the models are minima that were solved for, with a penalty and without a rate."""
        return self.recipe is not None and self.recipe.solved

    @property
    def repeated(self) -> str:
        """Says what differs between the models of a loss: a seed, or with it the split of the rows."""
        return "split" if self.resplit else "seed"

    def best_loss(self, metric: str) -> str | None:
        """Returns the loss with the best mean of a metric; None where no loss has one."""
        sign, entries = METRICS[metric].sign, self.losses.items()
        known = {loss: sign * mean for loss, each in entries if (mean := each.metrics[metric].mean) is not None}
        return max(known, key=lambda loss: known[loss]) if known else None

    def marked_loss(self, metric: str) -> str | None:
        """Returns the loss that a table marks as the best; None where several losses all have the same mean."""
        means = {entry.metrics[metric].mean for entry in self.losses.values()}
        return None if len(means) < min(2, len(self.losses)) else self.best_loss(metric)


class FrequencyGroups(Record):
    """Holds groups of equally many labels, from rare to frequent: means of training rows and of average precision."""

    train_positives: list[float]
    average_precision: dict[str, list[Number]]  # None where only the best labels of a row are scored


class LabelTable(Record):
    """Holds the labels that are shown, of `total`; values by loss."""

    total: int
    names: list[str]
    train_positives: list[int]
    test_positives: list[int]
    average_precision: dict[str, list[Number]]
    f1: dict[str, list[Number]]
    by_frequency: FrequencyGroups


class RowExample(Record):
    """Describes a test row, by number from 1: a text or a picture, its labels, and the F1 of the row by loss."""

    row: int
    text: str | None = None
    png: str | None = None  # base 64
    right: list[str]
    missed: list[str]
    wrong: list[str]
    f1: dict[str, float]


class RowExamples(Record):
    """Holds the rows that a loss decides best and worst."""

    loss: str
    best: list[RowExample]
    worst: list[RowExample]


class DecisionCurves(Record):
    """Shows what the model of one seed decides at falling recall: a point for each threshold."""

    seed: int
    threshold: list[float]
    precision: list[float]
    recall: list[float]
    micro_f1: list[float]
    macro_f1: list[Number]


class ReliabilityCurve(Record):
    """Holds predicted probability and observed share of bins, with the interval of the share."""

    calibration_error: Number
    predicted: list[float]
    observed: list[float]
    low: list[float]
    high: list[float]


class GradientCurves(Record):
    """Holds the size of the gradient on a positive and on a negative label of probability p."""

    p: list[float]
    coupled: bool  # does it depend on the other labels of the row?
    positive: list[Number]
    negative: list[Number]


class Details(StoredFile):
    """Describes details.json of a comparison: what the report shows beside the tables; curves by loss."""

    kind = "details"
    labels: LabelTable
    rows: RowExamples | None  # None where every training diverged
    curves: dict[str, DecisionCurves]
    reliability: dict[str, dict[str, ReliabilityCurve]]  # loss -> reading of its scores
    gradients: dict[str, GradientCurves | None]
    environment: dict[str, str]


Stage = Literal["short", "long", "tuned"]


@dataclass(frozen=True)
class Trial:
    """Describes a line of trials.csv."""

    loss: str  # as it was asked for
    trial: int  # from 1
    stage: Stage  # the first and the second round of the ladder of rates, or a trial of --tune
    spec: str  # as it was trained
    learning_rate: float
    epochs: int  # that it was trained for, at most
    best_epoch: int  # 0 if training diverged
    metric: str
    value: float  # of the best epoch on the validation rows; NaN if training diverged or the metric is undefined


@dataclass(frozen=True)
class _OfTraining:
    loss: str
    seed: int


@dataclass(frozen=True)
class HistoryLine(Epoch, _OfTraining):
    """Describes a line of history.csv of a comparison: loss, seed, then the columns of `Epoch`."""


F = TypeVar("F", bound=StoredFile)
L = TypeVar("L", Trial, HistoryLine, Epoch)


def to_json(content: StoredFile) -> dict[str, Any]:
    return {"schema": SCHEMA, "kind": content.kind} | content.model_dump(mode="json")


def from_json(stored: Any, kind: type[F]) -> F:
    """Returns the content of a file. Raises ValueError, which names the first field that is wrong."""
    if not isinstance(stored, dict):
        raise ValueError(f"holds a {type(stored).__name__}")
    for name, expected in (("schema", SCHEMA), ("kind", kind.kind)):
        if stored.get(name) != expected:
            raise ValueError(f"field {name}: expected {expected!r}, got {stored.get(name)!r}")
    return kind.model_validate({name: value for name, value in stored.items() if name not in ("schema", "kind")})


def write_file(path: Path, content: StoredFile) -> None:
    write_json(path, to_json(content))


def read_file(path: Path, kind: type[F], repair: str) -> F:
    """Returns the content of a file. Raises UserError for a damaged one; `repair` tells what to do then."""
    with intact(path, repair):
        return from_json(json.loads(path.read_text()), kind)


def write_table(path: Path, kind: type[L], lines: Iterable[L]) -> None:
    write_csv(path, [field.name for field in fields(kind)], map(astuple, lines))


def read_table(path: Path, kind: type[L], repair: str) -> list[L]:
    """Reads the lines of a CSV file. Raises UserError for a damaged one, and FileNotFoundError."""
    with intact(path, repair), path.open(newline="") as file:
        return TypeAdapter(list[kind]).validate_python(list(csv.DictReader(file)))  # type: ignore[valid-type]
