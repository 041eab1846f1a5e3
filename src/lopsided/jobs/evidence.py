"""Defines what a verdict rests on: scored models, the truth, and what is known of how they were trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from lopsided.data.dataset import Dataset
from lopsided.jobs.schema import DataSummary
from lopsided.jobs.score import Scored, evaluate
from lopsided.models.methods import Method
from lopsided.models.recipe import Recipe

Scores = dict[str, list[Scored]]  # loss -> one per seed
SHARES, LINEAR = "shares", "linear"  # names of baselines


@dataclass(frozen=True)
class Training:
    """Says how the models of a loss were trained, as far as that is known."""

    method: Method | None = None  # None where it is not known
    tuned_settings: dict[str, float] | None = None
    seconds: float = math.nan  # of one training
    best_epochs: tuple[int, ...] = ()  # by seed
    l2: float = math.nan  # the penalty that was chosen for a model that is solved
    refitted: bool = False  # solved once more with that penalty, on validation rows as well
    rising: bool = False
    overfitting: bool = False


@dataclass(frozen=True)
class Baseline:
    """Holds a model that no loss of this library trained; one for each split, where rows are split anew.

    settings: what it is, for people.
    """

    settings: str
    scored: tuple[Scored, ...]
    seconds: float

    def mean(self, metric: str) -> float:
        return sum(evaluate(metric, one) for one in self.scored) / len(self.scored)


@dataclass(frozen=True)
class Evidence:
    """Holds what a verdict rests on, whoever trained the models: tables, report and verdict are made of it alone.

    scored: for each loss a model of every seed, all of the same rows unless they are split anew for each seed. test:
    the test rows, with their names of labels. positives: (L,) int64, the rows that have each label, of every part that
    is known ("train", "valid", "test"). baselines: what needs no loss, by name, of the same rows. bins: the training
    positives at which middling and frequent labels begin; None for thirds. resplit: the test rows per training row, if
    each seed split the rows anew; then `test`, `positives` and `data` are those of the first one. recipe: None where
    the models were trained elsewhere. sets: (rows,) int64, the number of the set of copies, or of one group, that a
    test row is in; None where all are independent. budget: what was asked for. tuned_on: the rows that have tuned the
    thresholds. seen: the test rows that say little of new ones, see `Splits`. notes: what a reader must know besides.
    """

    data: DataSummary
    test: Dataset
    positives: Mapping[str, Tensor]
    metric: str
    reference: str
    scored: Scores
    trained: Mapping[str, Training]
    recipe: Recipe | None = None
    sets: Tensor | None = None
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    bins: tuple[int, int] | None = None
    resampling_seed: int = 0
    resplit: float | None = None
    budget: str | None = None
    tuned_on: str = "the validation rows"
    seen: int = 0
    notes: tuple[str, ...] = ()

    @property
    def seeds(self) -> int:
        return len(self.scored[self.reference])

    def of_first_split(self) -> Evidence:
        """Returns what has the test rows `test`: all of it, unless each seed split them off anew."""
        if self.resplit is None:
            return self
        return replace(self, scored={loss: group[:1] for loss, group in self.scored.items()})

    @property
    def epochs(self) -> int | None:
        """Returns how many each model was trained for, at most; None where that is not known."""
        return self.recipe.epochs if self.recipe else None

    @property
    def is_solved(self) -> bool:
        """Tells whether the models are known to be solved, and not trained in steps."""
        return self.recipe is not None and self.recipe.solved
