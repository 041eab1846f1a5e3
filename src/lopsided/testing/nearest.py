"""Finds the loss whose gradient is most like that of a callable, whatever the two are multiplied with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor

from lopsided.losses import Formula, formula
from lopsided.losses.names import ranges, read
from lopsided.testing.candidates import AS_PUBLISHED, Candidate, candidates
from lopsided.testing.probe import Answer, Side, batch

SAME = 0.02  # a distance that neither float32 nor an eps of 1e-8 in the logarithm makes
_EXACT = 0.002  # one that float32 may make, and no setting that matters
_HOPELESS = 0.5  # apart: no other settings bring it near
_GROUPS = 4  # so many beside the nearest, of other names or changes, are followed to other settings


@dataclass(frozen=True)
class Match:
    """Holds the nearest candidate.

    distances: on positives and on negatives, the sine of the angle between the two gradients: 0 where they are the same
        up to a factor, 1 where they have nothing in common.
    scales: the factors, of positives and of negatives, by which the gradient is larger than the candidate's, as a sum.
    """

    candidate: Candidate
    distances: tuple[float, float]
    scales: tuple[float, float]

    @property
    def published(self) -> tuple[Side, Side]:
        """Returns what the published loss does to positives and negatives, times the factors."""
        z, y = batch()
        known = zip((1, 0), AS_PUBLISHED.gradients(self.candidate.loss), self.scales, strict=True)
        positives, negatives = (Side.of(target, z[y == target], abs(scale) * each) for target, each, scale in known)
        return positives, negatives

    @property
    def distance(self) -> float:
        """Returns the larger of the two distances."""
        return max(self.distances)

    @property
    def apart(self) -> float:
        """Returns the sum of the two distances, rounded to what float32 can tell."""
        return round(sum(self.distances), 4)

    @property
    def same(self) -> bool:
        return self.distance < SAME

    def __str__(self) -> str:
        return f"{self.candidate.loss} {self.change}".strip()

    @property
    def change(self) -> str:
        """Says what is different from the published loss; nothing where it is that loss."""
        words = self.candidate.change.words
        up, down = (scale < 0 for scale in self.scales)
        if not (up or down):
            return words
        which = "sign" if up and down else f"sign of its {'positives' if up else 'negatives'}"
        return f"{words} and the {which} turned" if words else f"with the {which} turned"

    @property
    def wrong(self) -> bool:
        """Tells whether that is a mistake."""
        return self.candidate.change.wrong or min(self.scales) < 0


@functools.lru_cache(1)
def nearest(answer: Answer) -> Match:
    """Compares the answer to `probe.batch` with all candidates; of those that are alike, the first and simplest.

    The settings of the nearest ones are then changed in ever smaller steps, since they need not be among those listed.
    """
    (_, y), gradient = batch(), answer.gradient.double().nan_to_num(0, 0, 0)
    fits = [functools.lru_cache(4000)(functools.partial(_fit, gradient[y == target])) for target in (1, 0)]

    def match(candidate: Candidate) -> Match:
        (one, up), (other, down) = (fit(known) for fit, known in zip(fits, candidate.gradients, strict=True))
        return Match(candidate, (one, other), (up, down))

    groups: dict[tuple[str, bool, str], Match] = {}
    for found in map(match, candidates()):
        loss = found.candidate.loss
        group = loss.name.partition("(")[0], "detach_focus=True" in loss.name, found.candidate.change.words
        if group not in groups or found.apart < groups[group].apart:
            groups[group] = found
    best, *others = sorted(groups.values(), key=_in_doubt_right)
    for found in (best, *others[:_GROUPS]):
        if best.distance > _EXACT and found.apart < _HOPELESS:
            best = min(best, _followed(found, match), key=_in_doubt_right)
    return best


def _fit(gradient: Tensor, known: Tensor) -> tuple[float, float]:
    """Returns the sine of the angle between two gradients, and the factor that takes the second to the first."""
    scale = float((gradient @ known) / (known @ known))
    size = float(gradient.norm())
    return (float((gradient - scale * known).norm()) / size if size else 1.0), scale


def _in_doubt_right(match: Match) -> float:
    """Orders matches by distance; a mistake must be nearer by `SAME` than what is none, or nobody is accused of it."""
    return match.apart + SAME * match.candidate.change.wrong


def _followed(start: Match, match: Callable[[Candidate], Match]) -> Match:
    """Changes one setting at a time as long as that brings the loss nearer; then rounds them, if that is as near."""
    best, change = start, start.candidate.change
    for share in (0.1, 0.03, 0.01, 0.003):  # of the range of a setting
        better = True
        while better:
            beside = (match(Candidate(loss, change)) for loss in _beside(best.candidate.loss, share))
            found = min(beside, key=lambda found: found.apart, default=best)
            better = found.apart < best.apart
            best = found if better else best
    with suppress(ValueError, StopIteration):
        rounded = (match(Candidate(_rounded(best.candidate.loss, digits), change)) for digits in (1, 2))
        return next(found for found in rounded if found.apart < best.apart + _EXACT)
    return best


def _beside(loss: Formula, share: float) -> Iterator[Formula]:
    """Yields the same loss with one setting a little lower or higher, by a share of its range."""
    name, settings = read(loss.name)
    for setting, within in ranges(name).items():
        for step in (-share, share):
            value = round(float(str(settings[setting])) + step * (within.high - within.low), 3)
            with suppress(ValueError):  # out of range, or a label would be pushed the wrong way
                yield formula(name, **(settings | {setting: value}))


def _rounded(loss: Formula, digits: int) -> Formula:
    name, settings = read(loss.name)
    rounded = {each: float(f"{settings[each]:.{digits}g}") for each in ranges(name)}
    return formula(name, **(settings | rounded))
