"""From scores to probabilities: the map that the loss implies, and maps fitted to validation rows.

A calibrator is called with scores (n, L), or with (n, k) scores and the (n, k) labels that they are of, and gives
float64 probabilities in that shape, in [0, 1]. Of one label, the higher score never gets the lower probability, but for
rounding. What is fitted to candidates says how often a label with that score is true if it is a candidate.

Rare labels have too few positives for a map of their own: `fit_platt` and `fit_isotonic` shrink each label's map
towards the one of all labels together, by `pseudo` positives.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor
from torch.nn.functional import softplus

from lopsided.decision import stored
from lopsided.decision.temperature import fit_temperature as best_temperature
from lopsided.losses import formula
from lopsided.losses.checks import check_number
from lopsided.losses.closed_form import posterior
from lopsided.metrics.scores import ScoredLabels, at

PSEUDO = 5.0


class Calibrator(Protocol):
    """(n, L) scores, or (n, k) of these labels -> probabilities."""

    def __call__(self, scores: Tensor, labels: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class ClosedForm:
    """The posterior that a loss implies, see `lopsided.losses.closed_form`: no validation rows are needed.

    loss: its name with settings, trained without weights. ValueError at the call if it implies no posterior.

    >>> ClosedForm("asl")(torch.tensor([[0.0, 1.379]]))
    tensor([[0.0359, 0.5000]], dtype=torch.float64)
    """

    loss: str

    def __call__(self, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        return posterior(formula(self.loss), scores)


@dataclass(frozen=True)
class Temperature:
    """sigmoid(score / temperature) for all labels."""

    temperature: float

    def __call__(self, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.sigmoid(scores.double() / self.temperature)


def fit_temperature(scored: ScoredLabels) -> Temperature:
    """The most likely temperature, see `lopsided.fit_temperature`."""
    return Temperature(best_temperature(scored.scores, scored.hits))


@dataclass(frozen=True)
class Platt:
    """sigmoid(slope_l * score + offset_l): both (L,) float64, slope >= 0."""

    slope: Tensor
    offset: Tensor

    def __call__(self, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.sigmoid(at(self.slope, labels) * scores.double() + at(self.offset, labels))


def fit_platt(scored: ScoredLabels, pseudo: float = PSEUDO) -> Platt:
    """The most likely slope and offset of every label, shrunk towards those of all labels together.

    Scores are centred and scaled by the mean and deviation of those of true labels; there slope and offset have a
    normal prior around the pooled fit with precision `pseudo`, so that a label with that many positives goes about
    half its own way. A negative slope becomes 0. Source: Platt, Probabilistic outputs for SVMs, 1999, whose smoothed
    targets the prior replaces; the pooled fit has one of precision 1 around 0, which keeps it finite. Raises
    ValueError without any positive.
    """
    true = _true_scores(scored, pseudo).double()
    centre, scale = true.mean(), true.std(correction=0).clamp_min(1e-3)
    pooled = _newton(scored.together(), centre, scale, torch.zeros(2, dtype=torch.float64), 1.0)[0]
    fits = [_newton(part, centre, scale, pooled, pseudo) for part in scored.parts()]
    offset, slope = torch.cat(fits).unbind(1)
    return Platt(slope / scale, offset - slope * centre / scale)


def _newton(scored: ScoredLabels, centre: Tensor, scale: Tensor, prior: Tensor, precision: float) -> Tensor:
    """(L, 2) offset and slope >= 0 of every label on scaled scores: Newton's method, for all labels at once."""
    x = (scored.scores.double() - centre) / scale
    fit = _minimum(scored, x, prior, precision)
    falling = fit[:, 1] < 0
    if falling.any():
        fit = torch.where(falling[:, None], _minimum(scored, x * at(~falling, scored.labels), prior, precision), fit)
        fit[falling, 1] = 0.0
    return fit


def _minimum(scored: ScoredLabels, x: Tensor, prior: Tensor, precision: float) -> Tensor:
    """(L, 2), the least of  sum softplus(b + a x) - y (b + a x)  +  precision / 2 |(b, a) - prior|^2."""
    y = scored.hits.double()

    def logits(fit: Tensor) -> Tensor:
        return at(fit[:, 0], scored.labels) + at(fit[:, 1], scored.labels) * x

    def cost(fit: Tensor) -> Tensor:
        z = logits(fit)
        return scored.sum(softplus(z) - y * z) + precision / 2 * (fit - prior).square().sum(1)

    fit = prior.expand(scored.num_labels, 2).clone()
    least = cost(fit)
    for _ in range(100):
        p = torch.sigmoid(logits(fit))
        error, weight = p - y, p * (1 - p)
        gradient = torch.stack([scored.sum(error), scored.sum(error * x)], 1) + precision * (fit - prior)
        a, b, c = scored.sum(weight) + precision, scored.sum(weight * x), scored.sum(weight * x * x) + precision
        step = torch.stack([c * gradient[:, 0] - b * gradient[:, 1], a * gradient[:, 1] - b * gradient[:, 0]], 1)
        step /= (a * c - b * b)[:, None]
        if not step.abs().max() > 1e-9:
            break
        for _ in range(30):  # the full step may overshoot
            new = cost(fit - step)
            worse = new > least + 1e-9 * least.abs()
            if not worse.any():
                break
            step = torch.where(worse[:, None], step / 2, step)
        fit, least = fit - step, new
    return fit


@dataclass(frozen=True)
class Isotonic:
    """A rising map of every label, mixed with the map of all labels: own * label's map + (1 - own) * pooled map.

    x, y: (knots,) float64 of the labels one after the other, then of the pooled map: lines between two knots,
    level outside. ends: (L + 1,) int64, where each one's knots end. own: (L,) float64 in [0, 1].
    """

    x: Tensor
    y: Tensor
    ends: Tensor
    own: Tensor

    def __call__(self, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        values = scores.double().numpy()
        pooled = self._interpolate(len(self.own), values)
        result = pooled.copy()
        for label in range(scores.shape[1]) if labels is None else labels.unique().tolist():
            chosen = (slice(None), label) if labels is None else (labels == label).numpy()
            own = float(self.own[label])
            if own > 0:
                result[chosen] = own * self._interpolate(label, values[chosen]) + (1 - own) * pooled[chosen]
        return torch.from_numpy(result)

    def _interpolate(self, place: int, values: Any) -> Any:
        knots = slice(int(self.ends[place - 1]) if place else 0, int(self.ends[place]))
        return np.interp(values, self.x[knots].numpy(), self.y[knots].numpy())


def fit_isotonic(scored: ScoredLabels, pseudo: float = PSEUDO) -> Isotonic:
    """The rising map of the least squared error for every label, shrunk towards that of all labels together.

    A label with n positives goes n / (n + pseudo) its own way. Source: Zadrozny and Elkan, KDD 2002, by scikit-learn's
    `IsotonicRegression`; the mixture is ours. Labels are fitted one after the other: for up to some ten thousand.
    Raises ValueError without any positive.
    """
    _true_scores(scored, pseudo)
    fits = []
    for label, scores, hits in scored.by_label():
        fits += [_rising(scores, hits) if scored.found[label] else (np.empty(0), np.empty(0))]
    fits += [_rising(scored.scores.flatten(), scored.hits.flatten())]
    x, y = (torch.from_numpy(np.concatenate(each).astype(np.float64)) for each in zip(*fits, strict=True))
    found = scored.found.double()
    own = torch.where(found > 0, found / (found + pseudo), 0.0)
    return Isotonic(x, y, torch.tensor([len(knots) for knots, _ in fits]).cumsum(0), own)


def _rising(scores: Tensor, hits: Tensor) -> tuple[Any, Any]:
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores.double().numpy(), hits.numpy())
    return fitted.X_thresholds_, fitted.y_thresholds_


def _true_scores(scored: ScoredLabels, pseudo: float) -> Tensor:
    check_number("pseudo", pseudo, low=0)
    true = scored.scores[scored.hits]
    if not len(true):
        raise ValueError(f"no label is true in any of the {len(scored)} rows (among the scores given): nothing to fit")
    return true


KINDS: tuple[type, ...] = (ClosedForm, Temperature, Platt, Isotonic)
to_tensors = stored.to_tensors
from_tensors = functools.partial(stored.from_tensors, kinds=KINDS)
