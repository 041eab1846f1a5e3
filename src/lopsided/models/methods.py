"""Names what may be trained on a body: a loss on label scores, with a learnt threshold or without, or powerset."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lopsided.losses import Balanced, Formula, any_loss, curves, formula
from lopsided.losses.names import read, with_settings

_POWERSET = re.compile(r"\s*powerset\s*(\(\s*(max_sets\s*=\s*(\d{1,9})\s*)?\))?\s*")
_MAX_SETS = 1000
_THRESHOLD = "threshold_logit"


@dataclass(frozen=True)
class Powerset:
    """Names label powerset as one of the things to compare: the most frequent label sets are classes of a softmax."""

    max_sets: int = _MAX_SETS

    def __str__(self) -> str:
        return f"powerset(max_sets={self.max_sets})"


@dataclass(frozen=True)
class LearntThreshold:
    """Names a loss of how far labels lie above a threshold class: one more output, which the model learns for each row.

    It is the loss that `lopsided.MultiLabelLoss(loss, threshold_logit=0)` computes of the L + 1 outputs.
    """

    loss: Formula | Balanced

    def __str__(self) -> str:
        return with_settings(str(self.loss), {_THRESHOLD: 0})


Method = Formula | Balanced | LearntThreshold | Powerset


def parse_method(spec: str) -> Method:
    """Reads a loss by name, such as "asl", "db" or "asl(threshold_logit=0)", or "powerset" or "powerset(max_sets=200)".

    Raises ValueError for anything else.

    >>> print(parse_method("powerset"))
    powerset(max_sets=1000)
    >>> print(parse_method("zlpr(threshold_logit=0)"))
    zlpr(threshold=0, scale=1, margin=0, threshold_logit=0)
    """
    if not spec.strip().startswith("powerset"):
        name, settings = read(spec)
        place = settings.pop(_THRESHOLD, None)
        if place is None:
            return any_loss(spec)
        if place != 0 or place is False:
            raise ValueError(
                f"a model that is trained by name has its threshold class first: write {_THRESHOLD}=0, got {place!r}"
            )
        loss = any_loss(with_settings(name, settings))
        if isinstance(loss, Formula) and not loss.pool.thresholded:
            raise ValueError(f"{loss} compares labels with each other alone: leave out {_THRESHOLD}=0")
        return LearntThreshold(loss)
    match = _POWERSET.fullmatch(spec)
    if match is None or match[3] == "0":
        raise ValueError(f"cannot read {spec[:60]!r}: write powerset or powerset(max_sets=N) with N > 0")
    return Powerset(int(match[3] or _MAX_SETS))


def only_in_steps(method: Method) -> str | None:
    """Returns what keeps a method from a model that is solved: what ties all labels together, or has no curvature."""
    if isinstance(method, LearntThreshold):
        return f"a learnt threshold, {_THRESHOLD}=0,"
    if isinstance(method, Formula) and curves.hinge in (method.positive.function, method.negative.function):
        return f"{method}, whose slope jumps,"
    return None


def loss_of_scores(method: Method) -> Formula | Balanced:
    """Returns the loss that tells what label scores mean: that of a learnt threshold, bce of powerset's log odds."""
    if isinstance(method, LearntThreshold):
        return method.loss
    return formula("bce") if isinstance(method, Powerset) else method
