"""Says what the files of results show: differences of losses to bce, on each set and over sets, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy import stats
from study import FAMILIES, Row

from lopsided.jobs.numbers import signed
from lopsided.metrics.friedman import Ranks, rank_losses
from lopsided.metrics.significance import Difference, holm, resplit_differences

BASE = "bce"
LEVEL = 0.05
_LOWER = ("hamming_loss", "coverage", "one_error", "ranking_loss")


def is_lower_better(metric: str) -> bool:
    return metric.removesuffix("_own") in _LOWER


def family_of(loss: str) -> str:
    """Returns the losses that one is compared with; "" for a baseline."""
    return next((name for name, losses in FAMILIES.items() if loss in losses), "")


@dataclass(frozen=True)
class Gain:
    """Holds how far a loss is ahead of bce over sets, with its 95 % interval: see `over_sets`.

    p: by Holm where losses are looked at together. better, worse: sets on which a difference over splits is
    shown, by Holm over the losses of the set.
    """

    mean: float
    low: float
    high: float
    p: float
    sets: int
    better: int = 0
    worse: int = 0

    @property
    def is_shown(self) -> bool:
        return self.p < LEVEL


def marked(difference: Difference, p_value: float) -> str:
    """Writes a difference on one set, bold where it is shown."""
    mark = "**" * (p_value < LEVEL)
    return f"{mark}{signed(difference.mean)}{mark}"


def over_sets(differences: Sequence[Difference]) -> Gain:
    """Returns the mean of one difference a set with its interval; p is not corrected.

    The variance of the mean is that over sets, but at least what the errors of the single sets make it: a few sets may
    agree by luck. Student's t has the degrees of freedom of the sets in any case.

    >>> sets = [Difference(mean, 0, 0, 0, 0.001, 4, 0) for mean in (0.01, 0.02, 0.03)]
    >>> gain = over_sets(sets)  # as a t-test of the three means
    >>> round(gain.mean, 3), round(gain.low, 3), round(gain.high, 3), round(gain.p, 3)
    (0.02, -0.005, 0.045, 0.074)
    """
    means, count = [one.mean for one in differences], len(differences)
    between, within = np.var(means, ddof=1) / count, np.sum([one.standard_error**2 for one in differences]) / count**2
    mean, error = float(np.mean(means)), math.sqrt(max(between, within))
    half = float(stats.t.ppf(1 - LEVEL / 2, count - 1)) * error
    p_value = 2 * float(stats.t.sf(abs(mean) / error, count - 1)) if error else math.nan
    return Gain(mean, mean - half, mean + half, p_value, count)


@dataclass(frozen=True)
class Measured:
    """Holds the lines of both files."""

    results: Sequence[Row]
    pieces: Sequence[Row]

    @cached_property
    def _values(self) -> dict[tuple[str, ...], dict[int, Row]]:
        """Returns lines by split, by set, hidden share, loss and group of labels."""
        found: dict[tuple[str, ...], dict[int, Row]] = {}
        for row in self.results:
            key = row["set"], row["hidden"], row["loss"], row["labels"]
            found.setdefault(key, {})[int(row["split"])] = row
        return found

    def sets(self, hidden: str = "0", family: str = "losses") -> list[str]:
        """Returns those that are measured."""
        return [row["set"] for row in self.pieces if (row["hidden"], row["family"]) == (hidden, family)]

    def about(self, name: str) -> Row:
        return next(row for row in self.pieces if row["set"] == name)

    def losses(self, hidden: str = "0") -> list[str]:
        """Returns the losses with results, in the order of the files."""
        return list(dict.fromkeys(row["loss"] for row in self.results if row["hidden"] == hidden))

    def values(self, name: str, loss: str, metric: str, labels: str = "all", hidden: str = "0") -> list[float]:
        """Returns a value for each split; none where one is missing."""
        rows = self._values.get((name, hidden, loss, labels), {})
        cells = [rows[split][metric] for split in sorted(rows)]
        return [float(cell) for cell in cells] if all(cells) else []

    def mean(self, name: str, loss: str, metric: str, labels: str = "all", hidden: str = "0") -> float:
        values = self.values(name, loss, metric, labels, hidden)
        return float(np.mean(values)) if values else math.nan

    def differences(
        self, name: str, losses: Sequence[str], metric: str, labels: str = "all", hidden: str = "0"
    ) -> dict[str, tuple[Difference, float]]:
        """Returns the differences to bce on one set over its splits, of the losses that have values, with p by Holm.

        A difference has the spread of its own; p, that is pooled over the losses that are compared together.
        """
        key = name, *losses, metric, labels, hidden
        if key not in self._known:
            self._known[key] = self._differences(name, losses, metric, labels, hidden)
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[str, ...], dict[str, tuple[Difference, float]]]:
        return {}

    def _differences(
        self, name: str, losses: Sequence[str], metric: str, labels: str, hidden: str
    ) -> dict[str, tuple[Difference, float]]:
        base = self.values(name, BASE, metric, labels, hidden)
        found = {loss: self.values(name, loss, metric, labels, hidden) for loss in losses if loss != BASE}
        found = {loss: values for loss, values in found.items() if len(values) == len(base) > 1}
        if not found:
            return {}
        sign = -1.0 if is_lower_better(metric) else 1.0
        made: dict[str, Difference] = {}
        for family in dict.fromkeys(map(family_of, found)):  # a wild one widens the intervals of its own family alone
            some = {loss: values for loss, values in found.items() if family_of(loss) == family}
            made |= dict(zip(some, self._paired(name, [base, *some.values()], sign), strict=True))
        p_values = holm([made[loss].p_value for loss in found])
        alone = {loss: self._paired(name, [base, values], sign)[0] for loss, values in found.items()}
        return {loss: (alone[loss], p_value) for loss, p_value in zip(found, p_values, strict=True)}

    def _paired(self, name: str, values: Sequence[Sequence[float]], sign: float = 1.0) -> list[Difference]:
        ratio = float(self.about(name)["test rows per training row"])
        return resplit_differences(sign * torch.tensor(values, dtype=torch.float64), ratio)

    def gain_of_thresholds(self, loss: str, metric: str, other: str) -> Gain:
        """Returns how much higher the second metric of a loss is, over sets: the same F1 at other thresholds."""
        each = [(name, [self.values(name, loss, one) for one in (metric, other)]) for name in self.sets()]
        return over_sets([self._paired(name, values)[0] for name, values in each])

    def gains(
        self,
        losses: Sequence[str],
        metric: str,
        labels: str = "all",
        hidden: str = "0",
        sets: Sequence[str] | None = None,
    ) -> dict[str, Gain]:
        """Returns how far each loss is ahead of bce over sets; of losses with values on two sets or more."""
        names = self.sets(hidden) if sets is None else sets
        on_set = {name: self.differences(name, losses, metric, labels, hidden) for name in names}
        found = {loss: [each[loss][0] for each in on_set.values() if loss in each] for loss in losses}
        made = {loss: over_sets(values) for loss, values in found.items() if len(values) > 1}
        p_values = holm([gain.p for gain in made.values()])
        gains = {}
        for (loss, gain), p_value in zip(made.items(), p_values, strict=True):
            firm = [each[loss][0].mean for each in on_set.values() if loss in each and each[loss][1] < LEVEL]
            counts = {"better": sum(value > 0 for value in firm), "worse": sum(value < 0 for value in firm)}
            gains[loss] = replace(gain, p=p_value, **counts)
        return gains

    def ranks(self, losses: Sequence[str], metric: str, hidden: str = "0") -> Ranks | None:
        """Ranks losses by their means over splits, on the sets that have all of them; None with fewer than two."""
        table = [[self.mean(name, loss, metric, hidden=hidden) for loss in losses] for name in self.sets(hidden)]
        table = [row for row in table if not any(map(math.isnan, row))]
        if len(table) < 2 or len(losses) < 2:
            return None
        return rank_losses(table, losses, higher_is_better=not is_lower_better(metric))
