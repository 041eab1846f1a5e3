"""Names what may be trained on a body: a loss on label scores, with a learnt threshold or without, or powerset."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lopsided.losses import Balanced, Formula, any_loss, between, curves, formula
from lopsided.losses.names import Span, ends, read, split_threshold, with_settings

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


@dataclass(frozen=True)
class Schedule:
    """Names a loss whose settings move evenly with the epochs, from one in the first to another in the last."""

    start: Formula | LearntThreshold
    end: Formula | LearntThreshold

    def __str__(self) -> str:
        (name, first), (_, last) = read(str(self.start)), read(str(self.end))
        moving = {key: value if value == last[key] else f"{value!r}..{last[key]!r}" for key, value in first.items()}
        return f"{name}({', '.join(f'{key}={value}' for key, value in moving.items())})"

    def at(self, share: float) -> Formula:
        """Returns the loss of label scores at a share of the way."""
        start, end = (str(loss_of_scores(each)) for each in (self.start, self.end))
        return between(start, end, share)


Method = Formula | Balanced | LearntThreshold | Powerset | Schedule


def parse_method(spec: str) -> Method:
    """Reads a loss by name, such as "asl", "db" or "asl(threshold_logit=0)", or "powerset" or "powerset(max_sets=200)".

    A setting such as `weight=0.05..1` moves with the epochs.

    Raises ValueError for anything else.

    >>> print(parse_method("powerset"))
    powerset(max_sets=1000)
    >>> print(parse_method("zlpr(threshold_logit=0)"))
    zlpr(threshold=0, scale=1, margin=0, threshold_logit=0)
    """
    if not spec.strip().startswith("powerset"):
        if any(isinstance(value, Span) for value in read(spec)[1].values()):
            return _schedule(*map(parse_method, ends(spec)))
        without, place = split_threshold(spec)
        if place is None:
            return any_loss(spec)
        if place != 0 or place is False:
            raise ValueError(
                f"a model that is trained by name has its threshold class first: write {_THRESHOLD}=0, got {place!r}"
            )
        loss = any_loss(without)
        if isinstance(loss, Formula) and not loss.pool.thresholded:
            raise ValueError(f"{loss} compares labels with each other alone: leave out {_THRESHOLD}=0")
        return LearntThreshold(loss)
    match = _POWERSET.fullmatch(spec)
    if match is None or match[3] == "0":
        raise ValueError(f"cannot read {spec[:60]!r}: write powerset or powerset(max_sets=N) with N > 0")
    return Powerset(int(match[3] or _MAX_SETS))


def _schedule(start: Method, end: Method) -> Method:
    if isinstance(start, Balanced | Powerset | Schedule) or isinstance(end, Balanced | Powerset | Schedule):
        raise ValueError(f"{start} is made from label counts: its settings stay as they are, write one number for each")
    return start if start == end else Schedule(start, end)


def only_in_steps(method: Method) -> str | None:
    """Returns what keeps a method from a model that is solved: what ties all labels together, or has no curvature."""
    if isinstance(method, Schedule):
        return f"{method}, which moves with the epochs,"
    if isinstance(method, LearntThreshold):
        return f"a learnt threshold, {_THRESHOLD}=0,"
    if isinstance(method, Formula) and curves.hinge in (method.positive.function, method.negative.function):
        return f"{method}, whose slope jumps,"
    return None


def loss_of_scores(method: Method) -> Formula | Balanced:
    """Returns the loss that tells what label scores mean: that of a learnt threshold, bce of powerset's log odds.

    Of a schedule it is the loss of the last epoch.
    """
    if isinstance(method, Schedule):
        return loss_of_scores(method.end)
    if isinstance(method, LearntThreshold):
        return method.loss
    return formula("bce") if isinstance(method, Powerset) else method
