"""Chooses the rule and the calibrator of a trained model, by name; both are stored with the model."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

from lopsided.decision import rules as decisions
from lopsided.decision import serialization
from lopsided.decision.calibrators import Calibrator, ClosedForm, fit_platt
from lopsided.decision.names import F_BETA, TOP
from lopsided.decision.rules import (
    AtLeastOne,
    ExpectedF1,
    OnProbabilities,
    Rule,
    Threshold,
    TopK,
    tune_label_thresholds,
    tune_macro_f1,
    tune_threshold,
)
from lopsided.decision.sweep import FBeta
from lopsided.losses import formula
from lopsided.losses.closed_form import posterior_limits, settled_logit
from lopsided.metrics.scores import Judged


@dataclass(frozen=True)
class Decision:
    """Holds a rule and its name; and the map from scores to probabilities, None where a loss implies none."""

    name: str
    rule: Rule
    calibrator: Calibrator | None

    def at_least_one(self) -> Decision:
        """Returns the same, but every row gets its best label at least."""
        return replace(self, name=f"{self.name}, at least one", rule=AtLeastOne(self.rule))


def untuned(name: str | None, loss: str, labels_per_row: float) -> Decision:
    """Returns a rule without validation rows: own, top-K, or None for own; where the loss has none or saturates, top-K.

    K is then the mean number of labels of a training row. Raises ValueError where the loss implies no threshold.
    """
    calibrator = ClosedForm(loss) if implies_probabilities(loss) else None
    top = TOP.fullmatch(name or "")
    if top:
        return Decision(top[0], TopK(int(top[1])), calibrator)
    try:
        threshold = float(settled_logit(formula(loss), 1.0))
        if math.isfinite(threshold):
            return Decision("own", Threshold(threshold), calibrator)
    except ValueError:
        if name is not None:
            raise
    k = max(1, round(labels_per_row))
    return Decision(f"top-{k}", TopK(k), calibrator)


def tuned(name: str, judged: Judged, loss: str, labels_per_row: float) -> Decision:
    """Fits the rule of that name and Platt's map to validation rows. Raises ValueError without any positive.

    For a loss that saturates, own is replaced by per-label.
    """
    calibrator = fit_platt(judged)
    if name == "own" and saturates(loss):
        name = "per-label"
    rule: Rule
    if name == "per-label":
        rule = tune_label_thresholds(judged)
    elif of_recall := F_BETA.fullmatch(name):
        rule = tune_label_thresholds(judged, FBeta(float(of_recall[1])))
    elif name == "global":
        rule = tune_threshold(judged)
    elif name == "macro-f1":
        rule = tune_macro_f1(judged, calibrator)
    elif name == "expected-f1":
        rule = OnProbabilities(calibrator, ExpectedF1())
    else:
        rule = untuned(name, loss, labels_per_row).rule
    return Decision(name, rule, calibrator)


def saturates(loss: str) -> bool:
    """Tells whether the loss's own threshold is infinite, so that it would predict nothing."""
    try:
        return bool(settled_logit(formula(loss), 1.0).isinf())
    except ValueError:
        return False


def implies_probabilities(loss: str) -> bool:
    """Tells whether scores of a model trained with the loss stand for probabilities, see `ClosedForm`."""
    try:
        posterior_limits(formula(loss))
    except ValueError:
        return False
    return True


to_tensors = serialization.to_tensors
from_tensors = functools.partial(serialization.from_tensors, kinds=(Decision, *decisions.KINDS))
