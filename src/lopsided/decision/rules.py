"""Rules that turn scores into decisions, and how they are tuned on validation rows.

A rule's `decide` takes scores (n, L), or (n, k) scores and the (n, k) labels that they are of, and gives bool in that
shape; a label that is no candidate is not predicted. Scores are compared in float32.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from lopsided.compute.topk import ranked_labels
from lopsided.decision import calibrators, stored
from lopsided.decision.calibrators import Calibrator
from lopsided.decision.sweep import FBeta, Objective, best_thresholds
from lopsided.losses.checks import check_number
from lopsided.metrics.scores import ScoredLabels, at

PSEUDO = 50.0


class Rule(Protocol):
    """(n, L) scores, or (n, k) of these labels -> bool: is the label predicted?"""

    def decide(self, scores: Tensor, labels: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Threshold:
    """One for all labels: fixed, tuned, or the `decision_threshold()` of a loss.

    >>> Threshold(0.5).decide(torch.tensor([[0.5, 0.6]]))
    tensor([[False,  True]])
    """

    threshold: float

    def decide(self, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        return scores.float() > self.threshold


@dataclass(frozen=True)
class LabelThresholds:
    """(L,) float32, one for each label."""

    thresholds: Tensor

    def decide(self, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        return scores.float() > at(self.thresholds, labels)


@dataclass(frozen=True)
class TopK:
    """The k highest scores of each row, all if there are fewer; of equal ones the first."""

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")

    def decide(self, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        top = ranked_labels(scores, min(self.k, scores.shape[1]))
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, top, True)


@dataclass(frozen=True)
class AtLeastOne:
    """Another rule, and the highest score of a row for which it predicts nothing."""

    rule: Rule

    def decide(self, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        decided = self.rule.decide(scores, labels)
        return decided | (TopK(1).decide(scores) & ~decided.any(1, keepdim=True))


@dataclass(frozen=True)
class OnProbabilities:
    """A rule that decides on calibrated probabilities."""

    calibrator: Calibrator
    rule: Rule

    def decide(self, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.rule.decide(self.calibrator(scores, labels), labels)


@dataclass(frozen=True)
class ExpectedF1:
    """The labels of each row whose F1 is expected to be highest, given probabilities of independent labels.

    Use it as OnProbabilities(calibrator, ExpectedF1()). The best set has the k most probable labels for some k (Lewis,
    SIGIR 1995); `expected_f1` finds it. Exact; time grows with the square of the labels of a row.
    """

    def decide(self, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        p, order = scores.double().sort(dim=1, descending=True, stable=True)
        block = max(1, 2**22 // (p.shape[1] + 1) ** 2)
        best = torch.cat([expected_f1(part).argmax(1) for part in p.split(block)])
        chosen = torch.arange(p.shape[1]) < best[:, None]
        return torch.zeros_like(chosen).scatter_(1, order, chosen)


def expected_f1(p: Tensor) -> Tensor:
    """(n, m) probabilities of independent labels -> (n, m + 1) float64, the expected F1 of predicting the first k.

    F1 is 1 where nothing is true and nothing predicted. Source: Ye, Chai, Lee and Chieu, Optimizing F-measure, ICML
    2012, algorithm 1, for beta = 1: O(m^2) a row. With s(k, a) = E[1 / (a + the true ones after the first k)],

        expected F1 of the first k = sum over j of P(j of the first k are true) 2 j s(k, k + j)
        s(k - 1, a) = p_k s(k, a + 1) + (1 - p_k) s(k, a)

    >>> expected_f1(torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    tensor([[0.2500, 0.4167, 0.5833]], dtype=torch.float64)
    """
    rows, labels = p.shape
    true = [p.new_ones(rows, 1)]  # P(j of the first k are true)
    for k in range(labels):
        miss, hit = pad(true[-1], (0, 1)), pad(true[-1], (1, 0))
        true.append(miss + p[:, k : k + 1] * (hit - miss))
    s = (1 / torch.arange(1, 2 * labels + 1, dtype=p.dtype)).expand(rows, -1)  # a = 1, 2, ...
    values = [(1 - p).prod(1)]
    for k in range(labels, 0, -1):
        values.insert(1, (true[k] * 2 * torch.arange(k + 1) * s[:, k - 1 : 2 * k]).sum(1))
        s = s[:, :-1] + p[:, k - 1 : k] * (s[:, 1:] - s[:, :-1])
    return torch.stack(values, 1)


def tune_threshold(scored: ScoredLabels, objective: Objective | None = None) -> Threshold:
    """The one threshold that is best for all decisions taken together, by default in micro-F1."""
    return Threshold(float(best_thresholds(_some(scored).together(), objective or FBeta()).labels))


def tune_label_thresholds(
    scored: ScoredLabels, objective: Objective | None = None, pseudo: float = PSEUDO
) -> LabelThresholds:
    """The best threshold of every label, F1 unless told, shrunk towards the one that all labels would share.

    A label with n positives goes n / (n + pseudo) of the way from the shared threshold, the best in the mean over the
    labels (macro-F1), to its own. A label without positives has the shared one. Shrunk thresholds meet a precision
    floor less exactly than those of pseudo = 0. The default is measured, see docs/decisions.md.

    >>> scored = ScoredLabels.of(torch.tensor([[4.0, 1.0], [0.0, 0.0]]), torch.tensor([[1, 0], [0, 0]]))
    >>> tune_label_thresholds(scored).thresholds
    tensor([2.4902, 2.5000])
    """
    check_number("pseudo", pseudo, low=0)
    best, found = best_thresholds(_some(scored), objective or FBeta()), scored.found.double()
    step = found / (found + pseudo) * (best.labels.double() - best.shared)
    return LabelThresholds((best.shared + torch.where(found > 0, step, 0.0)).float())


def tune_macro_f1(scored: ScoredLabels, calibrator: Calibrator) -> OnProbabilities:
    """Thresholds on probabilities for macro-F1: half the F1 that the label can be expected to reach with them.

    F*/2 is the best threshold of a label with the probabilities p (Koyejo et al., NIPS 2014; Lipton et al., ECML 2014).
    Here F is that of the validation rows if p is right, 2 sum of p predicted / (sum of p + predicted), and positives
    that are no candidates count as missed; t = F(t) / 2 is iterated to its fixed point, as in Dinkelbach's method.
    """
    p = calibrator(_some(scored).scores, scored.labels)
    true = scored.sum(p) + (scored.positives - scored.found)
    threshold = torch.full((scored.num_labels,), 0.5, dtype=torch.float64)
    for _ in range(100):
        decided = (p > at(threshold, scored.labels)).double()
        before, threshold = threshold, scored.sum(p * decided) / (true + scored.sum(decided)).clamp_min(1e-300)
        if torch.equal(before, threshold):
            break
    return OnProbabilities(calibrator, LabelThresholds(threshold.float()))


def _some(scored: ScoredLabels) -> ScoredLabels:
    if not scored.hits.any():
        raise ValueError(
            f"no label is true in any of the {len(scored)} validation rows (among the scores given): nothing to tune on"
        )
    return scored


KINDS = (Threshold, LabelThresholds, TopK, AtLeastOne, OnProbabilities, ExpectedF1, *calibrators.KINDS)
to_tensors = stored.to_tensors
from_tensors = functools.partial(stored.from_tensors, kinds=KINDS)
