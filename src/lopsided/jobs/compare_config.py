"""Defines the settings of a comparison."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from pydantic import field_validator, model_validator

from lopsided.data import BUILT_IN
from lopsided.data.options import option
from lopsided.data.storage import UserError
from lopsided.jobs.config import Config, FitConfig, checked, for_steps, known_metric
from lopsided.models.recipe import Recipe

SEEDS, SPLITS = 3, 5  # trainings of each loss, where they differ

_comparison = partial(option, panel="Comparison")


class CompareConfig(Config):
    """Holds the settings of `lopsided compare`."""

    data: str = BUILT_IN
    losses: tuple[str, ...] = _comparison(("bce", "focal", "asl", "apl", "zlpr"), "Losses, separated by commas.")
    reference: str | None = _comparison(None, "The loss compared against.", unset="bce")
    metric: str = _comparison("map", "The metric of the verdict; of very many labels p@1 by default.")
    seeds: int | None = _comparison(
        None, "Trainings of each loss.", unset="3; 5 with --resplit; 1 of solved models", ge=1, le=1000
    )
    budget: str | None = _comparison(
        None, "Wall time for all trainings and trials, such as 90s, 2m or 1h.", unset="as long as the epochs take"
    )
    resplit: bool = _comparison(False, "Split off other test rows for each seed.")
    tune: int | None = _comparison(
        None, "Trials of each loss's own settings, on validation rows.", unset="none", ge=1, le=10_000
    )
    bins: str | None = _comparison(
        None, "Training positives from which labels are middling and frequent, as in 10,100.", unset="thirds"
    )
    jobs: int | None = _comparison(None, "Trainings side by side.", unset="by the size of the model", ge=1, le=1000)
    storage: str | None = _comparison(None, "Optuna database for the trials.", unset="SQLite in the run folder")

    @property
    def default_shares(self) -> dict[str, float]:
        return {"valid": 0.2, "test": 0.2}

    @property
    def edges(self) -> tuple[int, int] | None:
        """Returns the training positives from which labels are middling, and frequent; None for thirds."""
        if self.bins is None:
            return None
        middling, frequent = map(int, self.bins.split(","))
        return middling, frequent

    @field_validator("bins")
    @classmethod
    def _two_rising_numbers(cls, bins: str | None) -> str | None:
        edges = [int(edge) if edge.strip().isdecimal() else -1 for edge in (bins or "1,2").split(",")]
        if len(edges) != 2 or not 0 < edges[0] < edges[1]:
            raise ValueError(f"two rising numbers of training positives, such as 10,100; got {bins}")
        return bins

    @field_validator("budget")
    @classmethod
    def _a_time(cls, budget: str | None) -> str | None:
        if budget is not None and in_seconds(budget) <= 0:
            raise ValueError(f"a time such as 90s, 2m or 1h, above 0; got {budget}")
        return budget

    @field_validator("losses", mode="before")
    @classmethod
    def _losses_from_one_string(cls, losses: Any) -> Any:
        from lopsided.losses.names import split_specs

        return split_specs(losses) if isinstance(losses, str) else losses

    @field_validator("losses")
    @classmethod
    def _known_losses(cls, losses: tuple[str, ...]) -> tuple[str, ...]:
        from lopsided.models.methods import parse_method

        wrong = []
        for spec in losses:
            try:
                parse_method(spec)
            except ValueError as error:
                wrong.append(str(error))
        if wrong:
            raise ValueError("; ".join(wrong))
        if len(losses) < 2:
            alone = f", got {losses[0]}: lopsided fit trains it" if losses else ""
            raise ValueError(f"a comparison needs at least two losses{alone}")
        if len(set(losses)) < len(losses):
            raise ValueError(f"the same loss twice in {', '.join(losses)}")
        return losses

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str) -> str:
        from lopsided.jobs.compared_metrics import METRICS

        return known_metric(metric, METRICS)

    @model_validator(mode="after")
    def _can_be_compared(self) -> CompareConfig:
        if self.compared_with not in self.losses:
            raise ValueError(f"the reference {self.reference!r} is not among the losses {', '.join(self.losses)}")
        for part in ("valid", "test"):
            if part not in self.files() and not self.share(part):
                raise ValueError(f"--{part}: a comparison needs {part} rows: name a file, or a share above 0")
        if self.resplit and "test" in self.files():
            told = "splits off test rows of its own for each seed, and --test names a file"
            raise ValueError(f"--resplit {told}: leave one of both out")
        if self.resplit and self.seeds == 1:
            raise ValueError("--resplit: one split tells nothing of how splits differ; ask for two --seeds or more")
        return self

    @property
    def searches(self) -> bool:
        """Tells whether trials choose a rate, or settings, for each loss."""
        return self.learning_rate is None or self.tune is not None

    @property
    def compared_with(self) -> str:
        """Returns the loss that the others are compared with."""
        return self.reference or ("bce" if "bce" in self.losses else self.losses[0])

    @property
    def methods(self) -> tuple[str, ...]:
        return self.losses

    @property
    def validation_metric(self) -> str:
        from lopsided.jobs.compared_metrics import METRICS

        return METRICS[self.metric].name

    def check(self, model: str, default: Recipe) -> None:
        """Raises UserError for settings that do not suit the model, such as seeds of one that is solved."""
        super().check(model, default)
        if self.budget is not None and default.solved:
            raise UserError(for_steps("--budget", model))
        if self.trainings(default) < (self.seeds or 1):
            raise UserError(f"{for_steps('--seeds', model)}, or add --resplit: then each seed splits the rows anew")

    def trainings(self, recipe: Recipe) -> int:
        """Returns how often each loss is trained, each time with another seed: once where a seed changes nothing."""
        if self.resplit:
            return self.seeds or SPLITS
        return 1 if recipe.solved else self.seeds or SEEDS

    def of_run(self, loss: str, seed: int, changes: dict[str, Any]) -> FitConfig:
        """Returns the settings of one training: of a loss, and of a seed."""
        shared = {name: getattr(self, name) for name in Config.model_fields}
        if self.data != BUILT_IN:  # a run has other default shares
            shared |= {part: str(share) for part, share in self.default_shares.items() if shared[part] is None}
        run = {"loss": loss, "seed": seed, "metric": self.validation_metric, "keep_overlap": bool(self.keep_overlap)}
        if self.resplit:
            run["data_seed"] = (self.data_seed + seed) % 2**32
        return checked(FitConfig, shared | run | changes)


def in_seconds(budget: str) -> float:
    """Returns how long a time such as 2m or 1.5h is. Raises ValueError for what is none.

    >>> in_seconds("90s"), in_seconds("1.5h")
    (90.0, 5400.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([smh])", budget.strip())
    if match is None:
        raise ValueError(f"a time such as 90s, 2m or 1h; got {budget}")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def make_config(settings: dict[str, Any]) -> CompareConfig:
    """Returns a CompareConfig. Raises UserError, which names the first bad setting in one line."""
    return checked(CompareConfig, settings)
