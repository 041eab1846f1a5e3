"""Turns scores into probabilities: the map that the loss implies, and maps fitted to validation rows.

A calibrator is called with `Scores`, or a tensor or an array of the scores of all labels, and gives float64
probabilities in the shape of their values, in [0, 1]; anything where a row has no further candidate. Of one label, the
higher score never gets the lower probability, but for rounding. What is fitted to candidates says how often a label
with that score is true if it is a candidate.

Rare labels have too few positives for a map of their own: `fit_platt` and `fit_isotonic` shrink each label's map
towards the one of all labels together, by `pseudo` positives; how far it moves to the label's share of true rows, which
negatives tell too, follows from how much the labels differ in that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from lopsided.decision.serialization import Portable
from lopsided.losses import formula
from lopsided.losses.checks import check_number
from lopsided.losses.closed_form import posterior
from lopsided.metrics.scores import Judged, Scores, ScoresLike

PSEUDO = 5.0
_TOGETHER = 2**16  # scores that are worked on at a time


class Calibrator(Protocol):
    """Maps (n, L) scores, or those of candidates, to probabilities."""

    def __call__(self, scores: ScoresLike) -> Tensor: ...


@dataclass(frozen=True)
class ClosedForm(Portable):
    """Computes the posterior that a loss implies, see `lopsided.losses.closed_form`: no validation rows are needed.

    loss: its name with settings, trained without weights. ValueError at the call if it implies no posterior.

    >>> ClosedForm("asl")(torch.tensor([[0.0, 1.379]]))
    tensor([[0.0359, 0.5000]], dtype=torch.float64)
    """

    loss: str

    def __call__(self, scores: ScoresLike) -> Tensor:
        return posterior(formula(self.loss), Scores.of(scores).values)


@dataclass(frozen=True)
class Temperature(Portable):
    """Computes sigmoid(score / temperature) for all labels; `lopsided.fit_temperature` finds the most likely one."""

    temperature: float

    def __call__(self, scores: ScoresLike) -> Tensor:
        return torch.sigmoid(Scores.of(scores).values.double() / self.temperature)


@dataclass(frozen=True)
class Platt(Portable):
    """Computes sigmoid(slope_l * score + offset_l): both (L,) float64, slope >= 0."""

    slope: Tensor
    offset: Tensor

    def __call__(self, scores: ScoresLike) -> Tensor:
        scores = Scores.of(scores)
        return torch.sigmoid(scores.at(self.slope) * scores.values.double() + scores.at(self.offset))


def fit_platt(judged: Judged, pseudo: float = PSEUDO) -> Platt:
    """Fits the most likely slope and offset of every label, shrunk towards those of all labels together.

    Scores are centred and scaled by the mean and deviation of those of true labels; there slope and offset have a
    normal prior around the pooled fit. That of the slope has precision `pseudo`, so that a label with that many
    positives goes about half its own way; that of the offset the same, or 1/10 or 1/100 of it, whichever makes the
    truth of all labels most likely (by Laplace's method): where scores tell how frequent labels are, offsets stay
    together; where they do not, each label goes by its own rows, whose negatives tell its share too. A negative slope
    becomes 0, and the map is then the share of the label. Source: Platt, Probabilistic outputs for SVMs, 1999, whose
    smoothed targets the prior replaces: they would make rare labels too probable. The pooled fit has a prior of
    precision 1 around 0, which keeps it finite. Raises ValueError without any positive, and with pseudo = 0 for labels
    that have no most likely map: never or always true, or separated by their scores without an error.
    """
    true = _true_scores(judged, pseudo).double()
    centre, scale = true.mean(), true.std(correction=0).clamp_min(1e-3)
    if pseudo == 0:
        _check_most_likely(judged)
    nothing = torch.zeros(2, dtype=torch.float64)
    pooled = _newton(judged.together(), centre, scale, nothing, torch.ones_like(nothing), nothing)[0][0]
    fit, most = pooled.expand(judged.num_labels, 2), -math.inf
    for share in (1.0, 0.1, 0.01) if pseudo else (1.0,):
        precision = pseudo * torch.tensor([share, 1.0], dtype=torch.float64)
        begins = fit.split([part.num_labels for part in judged.parts()])  # near where the last share ended
        fits, evidence = zip(
            *(
                _newton(part, centre, scale, pooled, precision, begin)
                for part, begin in zip(judged.parts(), begins, strict=True)
            ),
            strict=True,
        )
        total = float(torch.cat(evidence).sum())
        if total < most:
            break
        fit, most = torch.cat(fits), total
    offset, slope = fit.unbind(1)
    return Platt(slope / scale, offset - slope * centre / scale)


def _check_most_likely(judged: Judged) -> None:
    """Refuses labels whose slope and offset run to infinity without a prior: a step separates true from false."""
    steps = 0
    for scores, hits in judged.by_label():
        one_kind = hits.all() or not hits.any()  # also without any row
        steps += int(one_kind or (scores[hits].min() >= scores[~hits].max() and scores.min() < scores.max()))
    if steps:
        raise ValueError(
            f"pseudo=0 leaves {steps} of {judged.num_labels} labels without a most likely map: they are never or "
            "always true, or a threshold separates them without an error; choose pseudo > 0"
        )


def _newton(
    judged: Judged, centre: Tensor, scale: Tensor, prior: Tensor, precision: Tensor, begin: Tensor
) -> tuple[Tensor, Tensor]:
    """Finds (L, 2), offset and slope >= 0 of every label on scaled scores, by Newton's method for all at once.

    Returns them with the (L,) logarithm of how likely the truth is under the prior, whatever offset and slope.
    """
    x = (judged.scores.values.double() - centre) / scale
    fit, evidence = _minimum(judged, x, prior, precision, begin)
    falling = fit[:, 1] < 0
    if falling.any():
        level = _minimum(judged, x * judged.scores.at(~falling), prior, precision, prior)[0]
        fit = torch.where(falling[:, None], level, fit)
        fit[falling, 1] = 0.0
    return fit, evidence


def _minimum(judged: Judged, x: Tensor, prior: Tensor, precision: Tensor, begin: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (L, 2), the least of  sum softplus(b + a x) - y (b + a x)  +  precision / 2 (b, a - prior)^2.

    And the (L,) logarithm of the integral of exp(- that), by Laplace's method.
    """
    rows = max(1, _TOGETHER // x.shape[1])
    parts = [(part, x, part.hits.double()) for part, x in zip(judged.split(rows), x.split(rows), strict=True)]

    def at(fit: Tensor) -> tuple[Tensor, Tensor]:
        lost, *slopes = _sums(parts, fit)
        return lost + (precision / 2 * (fit - prior).square()).sum(1), torch.stack(slopes)

    fit = begin.expand(judged.num_labels, 2)
    least, slopes = at(fit)
    for _ in range(100):
        offset, slope, a, b, c = slopes
        gradient = torch.stack([offset, slope], 1) + precision * (fit - prior)
        a, c = a + precision[0], c + precision[1]
        if not precision.any():  # equal scores do not determine slope and offset: take the shortest step
            a, c = a + 1e-9 * (a + c), c + 1e-9 * (a + c)
        volume = a * c - b * b
        step = torch.stack([c * gradient[:, 0] - b * gradient[:, 1], a * gradient[:, 1] - b * gradient[:, 0]], 1)
        step /= volume[:, None]
        if not step.abs().max() > 1e-9:
            break
        for _ in range(30):  # the full step may overshoot
            new, slopes = at(fit - step)
            worse = new > least + 1e-9 * least.abs()
            if not worse.any():
                break
            step = torch.where(worse[:, None], step / 2, step)
        fit, least = fit - step, new
    return fit, precision.log().sum() / 2 - least - volume.log() / 2


def _sums(parts: Sequence[tuple[Judged, Tensor, Tensor]], fit: Tensor) -> Tensor:
    """Adds up the `_terms` of each label; of some rows at a time, which stay in the cache."""
    total: Tensor | None = None
    for part, x, y in parts:
        z = part.scores.at(fit[:, 0]) + part.scores.at(fit[:, 1]) * x
        values = torch.stack([part.sum(each) for each in _terms(x, y, z)])
        total = values if total is None else total.add_(values)
    assert total is not None
    return total


def _terms(x: Tensor, y: Tensor, z: Tensor) -> Sequence[Tensor]:
    """Returns the terms of the loss, of its gradient by offset and slope, and of the three second derivatives."""
    p = torch.sigmoid(z)
    error, weight = p - y, p * (1 - p)
    return softplus(z) - y * z, error, error * x, weight, weight * x, weight * x * x


@dataclass(frozen=True)
class Isotonic(Portable):
    """Applies a rising map of every label, mixed with that of all labels: own * label's map + (1 - own) * pooled map.

    The pooled map is moved to the share of the label: its odds are those of all labels times exp(shift).

    x, y: (knots,) float64 of the labels one after the other, then of the pooled map: lines between two knots,
    level outside. ends: (L + 1,) int64, where each one's knots end. own: (L,) float64 in [0, 1]. shift: (L,) float64.
    """

    x: Tensor
    y: Tensor
    ends: Tensor
    own: Tensor
    shift: Tensor

    def __call__(self, scores: ScoresLike) -> Tensor:
        scores = Scores.of(scores)
        values = scores.values.double()
        result = _shifted(self._interpolate(len(self.own), values), scores.at(self.shift))
        columns = scores.columns
        for label in range(values.shape[1]) if columns is None else columns.unique().tolist():
            own = float(self.own[label]) if label < len(self.own) else 0.0
            if own > 0:
                chosen = (slice(None), label) if columns is None else columns == label
                result[chosen] = own * self._interpolate(label, values[chosen]) + (1 - own) * result[chosen]
        return result

    def _interpolate(self, place: int, values: Tensor) -> Tensor:
        knots = slice(int(self.ends[place - 1]) if place else 0, int(self.ends[place]))
        between = np.interp(values.cpu().numpy(), self.x[knots].cpu().numpy(), self.y[knots].cpu().numpy())
        return torch.as_tensor(between, dtype=torch.float64, device=values.device)


def fit_isotonic(judged: Judged, pseudo: float = PSEUDO) -> Isotonic:
    """Fits the rising map of the least squared error for every label, shrunk towards that of all labels together.

    A label with n positives goes n / (n + pseudo) its own way from the map of all labels, moved to the label's share
    (`_shifts`). Source: Zadrozny and Elkan, KDD 2002, by scikit-learn's `IsotonicRegression`; shift and mixture are
    ours. Labels are fitted one after the other: for up to some ten thousand. Raises ValueError without any positive.
    """
    _true_scores(judged, pseudo)
    positives = judged.listed_positives.double()
    pooled = next(_rising(scores, hits) for scores, hits in judged.together().by_label())
    shift = _shifts(judged, lambda scores: torch.from_numpy(np.interp(scores.double().numpy(), *pooled)))
    fits = [_rising(scores, hits) if hits.any() else (np.empty(0), np.empty(0)) for scores, hits in judged.by_label()]
    fits += [pooled]
    x, y = (torch.from_numpy(np.concatenate(each).astype(np.float64)) for each in zip(*fits, strict=True))
    own = torch.where(positives > 0, positives / (positives + pseudo), 0.0)
    return Isotonic(x, y, torch.tensor([len(knots) for knots, _ in fits]).cumsum(0), own, shift)


def _shifted(p: Tensor, shift: Tensor) -> Tensor:
    """Returns probabilities whose odds are exp(shift) times as high; 0 and 1 stay."""
    odds = shift.exp()
    moved: Tensor = odds * p / (1 - p + odds * p)
    return moved


def _shifts(judged: Judged, pooled: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns (L,) float64: by how much the log odds of the map of all labels move, for each label, to its share.

    The share of a label has a beta prior whose mean is that of the pooled map over the label's scores. Its strength is
    the most likely one for the counts of all labels: where scores tell how frequent labels are, shares stay near what
    they say; where they do not, each label goes by its own rows.
    """
    rows = judged.sum(torch.ones_like(judged.scores.values, dtype=torch.float64))  # in which it is listed and known
    means = torch.cat([part.sum(pooled(part.scores.values)) for part in judged.parts()]) / rows.clamp_min(1)
    shares = _shrunk_shares(judged.listed_positives.double(), rows, means)
    sizes = [part.num_labels for part in judged.parts()]
    parts = zip(judged.parts(), rows.split(sizes), shares.split(sizes), strict=True)
    return torch.cat([_solve_shift(part, pooled(part.scores.values), *each) for part, *each in parts])


def _shrunk_shares(positives: Tensor, rows: Tensor, means: Tensor) -> Tensor:
    """Returns (L,) shares of true rows with the beta prior of these means that makes the counts most likely."""
    means = means.clamp(1e-6, 1 - 1e-6)

    def log_likelihood(a: Tensor) -> float:  # of a beta-binomial distribution; a: pseudo positives
        b = a * (1 - means) / means
        of_counts = torch.lgamma(positives + a) + torch.lgamma(rows - positives + b) - torch.lgamma(rows + a + b)
        return float((of_counts - torch.lgamma(a) - torch.lgamma(b) + torch.lgamma(a + b)).sum())

    best: Tensor = max(torch.logspace(-2, 4, 61, dtype=torch.float64), key=log_likelihood)
    shares: Tensor = (positives + best) / (rows + best / means)
    return shares


def _solve_shift(judged: Judged, p: Tensor, rows: Tensor, shares: Tensor) -> Tensor:
    """Returns (L,) shifts, within -40 and 40, after which p has these means: Newton's method between two bounds."""
    shift, low = torch.zeros_like(shares), torch.full_like(shares, -40.0)
    high = -low
    for _ in range(60):
        moved = _shifted(p, judged.scores.at(shift))
        excess, slope = judged.sum(moved) - rows * shares, judged.sum(moved * (1 - moved))
        low, high = torch.where(excess < 0, shift, low), torch.where(excess > 0, shift, high)
        before, new = shift, shift - excess / slope
        shift = torch.where((new > low) & (new < high), new, (low + high) / 2)
        if not (shift - before).abs().max() > 1e-9:
            break
    return torch.where(rows > 0, shift, 0.0)


def _rising(scores: Tensor, hits: Tensor) -> tuple[Any, Any]:
    from sklearn.isotonic import IsotonicRegression  # imported late: only isotonic fits need it

    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores.double().numpy(), hits.numpy())
    return fitted.X_thresholds_, fitted.y_thresholds_


def _true_scores(judged: Judged, pseudo: float) -> Tensor:
    check_number("pseudo", pseudo, low=0)
    true = judged.scores.values[judged.hits]
    if not len(true):
        raise ValueError(f"no label is true in any of the {len(judged)} rows (among the scores given): nothing to fit")
    return true


KINDS: tuple[type, ...] = (ClosedForm, Temperature, Platt, Isotonic)
