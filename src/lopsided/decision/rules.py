"""Turns scores into decisions by rules, and tunes rules on validation rows.

A rule's `decide` takes `Scores`, or a tensor or an array of the scores of all labels, and gives bool in the shape of
their values, on their device; a label that is no candidate is not predicted. Scores are compared in float32. Rules are
frozen: `rule.to(device)`, `rule.save(path)` and `load_rule(path)` move and store them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from lopsided.compute.topk import top_of
from lopsided.decision import calibrators, serialization
from lopsided.decision.calibrators import Calibrator
from lopsided.decision.serialization import Portable
from lopsided.decision.sweep import FBeta, ThresholdObjective, best_thresholds
from lopsided.losses.checks import check_number
from lopsided.metrics.scores import Judged, Scores, ScoresLike

PSEUDO = 10.0


class Rule(Protocol):
    """Maps (n, L) scores, or those of candidates, to bool: is the label predicted?"""

    def decide(self, scores: ScoresLike) -> Tensor: ...


@dataclass(frozen=True)
class Threshold(Portable):
    """Applies one threshold to all labels: fixed, tuned, or the `decision_threshold()` of a loss.

    >>> Threshold(0.5).decide(torch.tensor([[0.5, 0.6]]))
    tensor([[False,  True]])
    """

    threshold: float

    def decide(self, scores: ScoresLike) -> Tensor:
        scores = Scores.of(scores)
        return scores.where_listed(scores.values.float() > self.threshold, False)


@dataclass(frozen=True)
class LabelThresholds(Portable):
    """Applies (L,) float32 thresholds, one for each label."""

    thresholds: Tensor

    def decide(self, scores: ScoresLike) -> Tensor:
        scores = Scores.of(scores)
        return scores.where_listed(scores.values.float() > scores.at(self.thresholds), False)


@dataclass(frozen=True)
class TopK(Portable):
    """Predicts the k highest scores of each row, all if there are fewer; of equal ones the first."""

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")

    def decide(self, scores: ScoresLike) -> Tensor:
        scores = Scores.of(scores)
        top = top_of(scores.values, min(self.k, scores.values.shape[1]))[1]
        return scores.where_listed(torch.zeros_like(scores.values, dtype=torch.bool).scatter_(1, top, True), False)


@dataclass(frozen=True)
class AtLeastOne(Portable):
    """Applies another rule, and predicts the highest score of a row for which it predicts nothing."""

    rule: Rule

    def decide(self, scores: ScoresLike) -> Tensor:
        decided = self.rule.decide(scores)
        return decided | (TopK(1).decide(scores) & ~decided.any(1, keepdim=True))


@dataclass(frozen=True)
class OnProbabilities(Portable):
    """Decides by a rule on calibrated probabilities."""

    calibrator: Calibrator
    rule: Rule

    def decide(self, scores: ScoresLike) -> Tensor:
        scores = Scores.of(scores)
        probabilities = scores.where_listed(self.calibrator(scores), -torch.inf)
        return self.rule.decide(replace(scores, values=probabilities))


@dataclass(frozen=True)
class ExpectedF1(Portable):
    """Predicts the labels of each row whose F1 is expected to be highest, given probabilities of independent labels.

    Use it as OnProbabilities(calibrator, ExpectedF1()). The best set has the k most probable labels for some k (Lewis,
    SIGIR 1995); `expected_f1` finds it. Exact; time grows with the square of the labels of a row.

    of_empty: the F1 of a row with nothing true and nothing predicted. 0 is that of all metrics here, for which it never
    pays to leave a row empty; with 1 rows stay empty where that is probably right.
    """

    of_empty: float = 0.0

    def decide(self, scores: ScoresLike) -> Tensor:
        p, order = Scores.of(scores).values.double().clamp_min(0).sort(dim=1, descending=True, stable=True)
        block = max(1, 2**22 // (p.shape[1] + 1) ** 2)
        best = torch.cat([expected_f1(part, self.of_empty).argmax(1) for part in p.split(block)])
        chosen = torch.arange(p.shape[1], device=p.device) < best[:, None]
        return torch.zeros_like(chosen).scatter_(1, order, chosen)


def expected_f1(p: Tensor, of_empty: float = 0.0) -> Tensor:
    """Maps (n, m) probabilities of independent labels to (n, m + 1) float64, the expected F1 of the first k.

    of_empty: F1 where nothing is true and nothing predicted. Raises ValueError for what is no probability. Source: Ye,
    Chai, Lee and Chieu, Optimizing F-measure, ICML 2012, algorithm 1, for beta = 1: O(m^2) a row. With
    s(k, a) = E[1 / (a + the true ones after the first k)],

    expected F1 of the first k = sum over j of P(j of the first k are true) 2 j s(k, k + j)
        s(k - 1, a) = p_k s(k, a + 1) + (1 - p_k) s(k, a)

    >>> expected_f1(torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    tensor([[0.0000, 0.4167, 0.5833]], dtype=torch.float64)
    """
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("expected F1 is made of probabilities in [0, 1]: calibrate the scores first")
    rows, labels = p.shape
    true = [p.new_ones(rows, 1)]  # P(j of the first k are true)
    for k in range(labels):
        miss, hit = pad(true[-1], (0, 1)), pad(true[-1], (1, 0))
        true.append(miss + p[:, k : k + 1] * (hit - miss))
    s = (1 / torch.arange(1, 2 * labels + 1, dtype=p.dtype, device=p.device)).expand(rows, -1)  # a = 1, 2, ...
    values = [of_empty * (1 - p).prod(1)]
    for k in range(labels, 0, -1):
        values.insert(1, (true[k] * 2 * torch.arange(k + 1, device=p.device) * s[:, k - 1 : 2 * k]).sum(1))
        s = s[:, :-1] + p[:, k - 1 : k] * (s[:, 1:] - s[:, :-1])
    return torch.stack(values, 1)


def tune_threshold(judged: Judged, objective: ThresholdObjective | None = None) -> Threshold:
    """Returns the one threshold that is best for all decisions taken together, by default in micro-F1."""
    return Threshold(float(best_thresholds(_some(judged).together(), objective or FBeta()).labels))


def tune_label_thresholds(
    judged: Judged, objective: ThresholdObjective | None = None, pseudo: float = PSEUDO
) -> LabelThresholds:
    """Returns the best threshold of every label, for F1 by default, shrunk towards the one that all labels would share.

    A label with n positives goes n / (n + pseudo) of the way from the shared threshold, the best in the mean over the
    labels (macro-F1), to its own. A label without positives has the shared one. Shrunk thresholds meet a precision
    floor less exactly than those of pseudo = 0. The default is measured, see docs/decisions.md.

    >>> judged = Judged.of(torch.tensor([[4.0, 1.0], [0.0, 0.0]]), torch.tensor([[1, 0], [0, 0]]))
    >>> tune_label_thresholds(judged).thresholds
    tensor([2.4545, 2.5000])
    """
    check_number("pseudo", pseudo, low=0)
    best, positives = best_thresholds(_some(judged), objective or FBeta()), judged.listed_positives.double()
    own = positives / (positives + pseudo)
    mixed = torch.where(positives > 0, own * best.labels.double() + (1 - own) * best.shared, best.shared)
    return LabelThresholds(mixed.float())


def best_threshold(judged: Judged) -> float:
    """Returns the one threshold with the highest micro-F1, infinite without a positive: see `tune_threshold`."""
    return tune_threshold(judged).threshold if judged.hits.any() else float("inf")


def tune_macro_f1(judged: Judged, calibrator: Calibrator) -> OnProbabilities:
    """Returns thresholds on probabilities for macro-F1: half the F1 that the label can be expected to reach with them.

    F*/2 is the best threshold of a label with the probabilities p (Koyejo et al., NIPS 2014; Lipton et al., ECML 2014).
    Here F is that of the validation rows if p is right, 2 sum of p predicted / (sum of p + predicted), and positives
    that are no candidates count as missed; t = F(t) / 2 is iterated to its fixed point, as in Dinkelbach's method.
    """
    p = calibrator(_some(judged).scores)
    true = judged.sum(p) + (judged.positives - judged.listed_positives)
    threshold = torch.full((judged.num_labels,), 0.5, dtype=torch.float64)
    for _ in range(100):
        decided = (p > judged.scores.at(threshold)).double()
        before, threshold = threshold, judged.sum(p * decided) / (true + judged.sum(decided)).clamp_min(1e-300)
        if torch.equal(before, threshold):
            break
    return OnProbabilities(calibrator, LabelThresholds(threshold.float()))


def _some(judged: Judged) -> Judged:
    if not judged.hits.any():
        raise ValueError(
            f"no label is true in any of the {len(judged)} validation rows (among the scores given): nothing to tune on"
        )
    return judged


KINDS = (Threshold, LabelThresholds, TopK, AtLeastOne, OnProbabilities, ExpectedF1, *calibrators.KINDS)
to_tensors = serialization.to_tensors
from_tensors = functools.partial(serialization.from_tensors, kinds=KINDS)
torch.serialization.add_safe_globals(list(KINDS))  # torch.load(weights_only=True) takes them, once this is imported


def load_rule(path: str | Path) -> Any:
    """Reads the rule or calibrator that its `save(path)` wrote. Raises ValueError for any other file."""
    return serialization.load(path, KINDS)
