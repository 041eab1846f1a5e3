"""Finds the labels that gain and lose by another loss."""

from __future__ import annotations

from dataclasses import dataclass

from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.results import FEW
from lopsided.jobs.schema import Details, Results
from lopsided.jobs.verdict import recommended

_SHOWN = 5  # labels of each kind
_LEAST = 0.0005  # change that is shown as one


@dataclass(frozen=True)
class LabelChange:
    """Describes a label under the reference and under another loss, by average precision."""

    name: str
    train_positives: int
    test_positives: int
    before: float
    after: float

    @property
    def change(self) -> float:
        return self.after - self.before


@dataclass(frozen=True)
class Changes:
    """Holds the labels that gain most and lose most by a loss beside the reference."""

    loss: str
    gains: list[LabelChange]
    losses: list[LabelChange]


def label_changes(results: Results, details: Details) -> Changes | None:
    """Returns the changes of the labels that say something, for the loss to use or the best rival of the reference.

    None where no label changes.
    """
    table, loss = details.labels, recommended(results)
    if loss == results.reference:
        loss = _rival(results) or loss
    before, after = (table.average_precision.get(each) for each in (results.reference, loss))
    if before is None or after is None or loss == results.reference:
        return None
    found = [
        LabelChange(name, train, test, one, other)
        for name, train, test, one, other in zip(
            table.names, table.train_positives, table.test_positives, before, after, strict=True
        )
        if test >= FEW and one is not None and other is not None
    ]
    rising = sorted(found, key=lambda label: label.change)
    gains = [label for label in reversed(rising) if label.change > _LEAST][:_SHOWN]
    losing = [label for label in rising if label.change < -_LEAST][:_SHOWN]
    return Changes(loss, gains, losing) if gains or losing else None


def _rival(results: Results) -> str | None:
    sign = METRICS[results.metric].sign
    known = {loss: sign * c.mean for loss, c in results.comparisons.items() if c.mean is not None}
    return max(known, key=lambda loss: known[loss]) if known else None
