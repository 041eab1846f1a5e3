"""Makes what a model is trained for: a loss on label scores, or label powerset."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lopsided.losses import Formula, formula
from lopsided.losses.closed_form import settled_logit
from lopsided.nn.modules import MultiLabelLoss
from lopsided.nn.powerset import LabelPowerset

_POWERSET = re.compile(r"\s*powerset\s*(\(\s*(max_sets\s*=\s*(\d{1,9})\s*)?\))?\s*")
_MAX_SETS = 1000


@dataclass(frozen=True)
class Powerset:
    """Names label powerset as one of the things to compare: the most frequent label sets are classes of a softmax."""

    max_sets: int = _MAX_SETS

    def __str__(self) -> str:
        return f"powerset(max_sets={self.max_sets})"


Method = Formula | Powerset


@dataclass(frozen=True)
class TrainingObjective:
    """Holds a method, made for given training targets."""

    outputs: int  # what the model gives per row
    criterion: Callable[[Tensor, Tensor], Tensor]  # outputs and targets of a batch -> mean over its rows
    scores: Callable[[Tensor], Tensor]  # outputs -> (rows, L) label logits
    scores_are_outputs: bool  # whether the outputs are the label logits, so that they carry its gradient


def parse_method(spec: str) -> Method:
    """Reads a loss by name, or "powerset" or "powerset(max_sets=200)".

    >>> print(parse_method("powerset"))
    powerset(max_sets=1000)
    """
    if not spec.strip().startswith("powerset"):
        return formula(spec)
    match = _POWERSET.fullmatch(spec)
    if match is None or match[3] == "0":
        raise ValueError(f"cannot read {spec[:60]!r}: write powerset or powerset(max_sets=N) with N > 0")
    return Powerset(int(match[3] or _MAX_SETS))


def make_objective(method: Method, targets: Tensor) -> TrainingObjective:
    """Makes the objective of a method for (rows, L) bool training targets."""
    if isinstance(method, Powerset):
        powerset = LabelPowerset(targets, method.max_sets)
        return TrainingObjective(powerset.num_sets, powerset.loss, powerset.log_odds, scores_are_outputs=False)
    criterion = MultiLabelLoss(method, reduction="batchmean")
    return TrainingObjective(targets.shape[1], criterion, lambda outputs: outputs, scores_are_outputs=True)


def own_threshold(method: Method) -> float | None:
    """Returns the label logit above which a method itself predicts a label, None if it has no such point."""
    if isinstance(method, Powerset):
        return 0.0  # more likely than not
    try:
        return float(settled_logit(method, 1.0))
    except ValueError:
        return None
