"""Examines any callable that maps logits and targets to a loss, whoever wrote it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lopsided.testing.behaviour import cost, far_logits, half_precision, odd_batches, odd_targets, side_effects
from lopsided.testing.candidates import OUTSIDE
from lopsided.testing.findings import Finding, Subject
from lopsided.testing.gradients import (
    NEAREST,
    coupling,
    dead_zones,
    derivative,
    direction,
    focus,
    likeness,
    reduction,
    reduction_of,
)
from lopsided.testing.nearest import Match, nearest
from lopsided.testing.probe import Loss, Side, ask, batch

_CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    likeness,
    focus,
    direction,
    dead_zones,
    derivative,
    coupling,
    reduction,
    far_logits,
    half_precision,
    side_effects,
    odd_targets,
    odd_batches,
    cost,
)
_READINGS: dict[str, Callable[[Loss], Loss]] = {  # how a callable may be meant that is called otherwise
    "expects probabilities where logits are given: it lacks a sigmoid": lambda loss: lambda z, y: loss(z.sigmoid(), y),
    "takes its arguments in the order (targets, logits)": lambda loss: lambda z, y: loss(y, z),
}


@dataclass(frozen=True)
class Examination:
    """Holds what was found about a callable; `print` shows it.

    name: of the callable. verdict: one sentence. instead: the loss of this library that was meant, as Python, or "".
    findings: one for each subject, see `Finding`. match: the nearest known loss. sides: the gradients, for a plot.
    """

    name: str
    verdict: str
    instead: str
    findings: tuple[Finding, ...]
    match: Match
    sides: tuple[Side, Side]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Returns the findings that are faults: none, if the callable trains what it should."""
        return tuple(finding for finding in self.findings if finding.status == "fault")

    def as_dict(self) -> dict[str, Any]:
        """Returns what JSON can hold: null stands where the gradient is not finite."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "instead": self.instead,
            "nearest": {
                "loss": str(self.match.candidate.loss),
                "change": self.match.change,
                "distance": self.match.distance,
            },
            "findings": [asdict(finding) for finding in self.findings],
            "gradients": {
                side.name: {
                    "logits": side.logits.tolist(),
                    "gradient": [number if math.isfinite(number) else None for number in side.gradient.tolist()],
                }
                for side in self.sides
            },
        }

    def __str__(self) -> str:
        lines = [f"{finding.status:6}{finding.subject}: {finding.text}" for finding in self.findings]
        return "\n".join([self.verdict, *lines, *([f"instead: {self.instead}"] if self.instead else [])])


def check_callable(loss: Callable[[Tensor, Tensor], Tensor], name: str = "") -> Examination:
    """Examines any callable `loss(logits, targets)` that returns a tensor: a function, a module, an object.

    It is called about a hundred times, on the CPU, with batches made here: logits (n, L) float32, which are raw
    scores, and targets of the same shape, 0.0 or 1.0; L is mostly 8. Gradients are compared with those of known losses
    on 160 positives and 160 negatives with logits from -8 to 8, up to a factor for positives and one for negatives.

    Examined are the direction of the gradient, and where it ends; the nearest published loss, with the known mistakes
    in writing it; what the value is divided by; 16-bit and far logits; what a call changes; targets of -1, 255 and NaN,
    between 0 and 1, bool and integer; empty batches, and rows of one kind; memory and time.

    Args:
        loss: what to examine. It is run, and not changed.
        name: what the verdict calls it; its own name if left out.

    Returns an `Examination`; `assert not check_callable(loss).faults` is a test. Raises ValueError where the callable
    can be called in no known way, with what it raised.

    >>> def my_loss(logits, targets):  # meant as ASL; but the power is of 1 - p_m, so hard negatives weigh least
    ...     p = logits.sigmoid()
    ...     q = (1 - p + 0.05).clamp(max=1)
    ...     return -(targets * p.log() + (1 - targets) * q**4 * q.log()).sum()
    >>> examination = check_callable(my_loss)
    >>> examination.match.change
    'with the focus inverted'
    >>> print(examination.faults[1].text)
    pushes negatives up between -1.0 and 5.6, by up to 94 % of the largest gradient
    """
    name = name or str(getattr(loss, "__name__", type(loss).__name__))
    with torch.random.fork_rng(devices=[]):
        subject, problem = _read(loss)
        findings = [Finding("call", "fault", problem)] if problem else []
        findings += [finding for check in _CHECKS for finding in check(subject)]
        instead = _instead(subject)
    verdict = f"{name} {_verdict(subject.match, findings)}"
    return Examination(name, verdict, instead, tuple(findings), subject.match, subject.sides)


def _read(loss: Loss) -> tuple[Subject, str]:
    """Finds out how the callable is meant to be called; and says what is the matter if that is another way."""
    z, y = batch()
    plain = ask(loss, z, y)
    if plain.finite and nearest(plain).same:
        return Subject(loss, z, y, plain, nearest(plain)), ""
    for misread, reading in _READINGS.items():
        answer = ask(reading(loss), z, y)
        if not answer.finite or not (other := nearest(answer)).same:
            continue
        # Where it works with logits as well, only a loss of the catalog without a mistake counts: any hinge loss, if it
        # is given probabilities, is their absolute error.
        if not plain.finite or not (other.wrong or other.candidate.loss in OUTSIDE):
            return Subject(reading(loss), z, y, answer, other), misread
    if plain.error:
        raise ValueError(f"it cannot be called with logits (40, 8) float32 and targets of that shape: {plain.error}")
    problem = "" if plain.finite else "value or gradient is NaN or infinite for logits from -8 to 8"
    return Subject(loss, z, y, plain, nearest(plain)), problem


def _verdict(match: Match, findings: list[Finding]) -> str:
    known = f"is {match}" if match.same else "is like no loss known here"
    faults = [finding for finding in findings if finding.status == "fault"]
    effects = [finding.text for finding in faults if finding.subject != NEAREST]
    if not faults:
        return f"{known}; no fault was found"
    more = f", and {len(effects) - 1} more" if len(effects) > 1 else ""
    return f"{known}: {effects[0]}{more}" if effects else f"{known}: that is a mistake"


def _instead(subject: Subject) -> str:
    """Returns the Python of what was meant, reduced alike where this library has a name for that."""
    loss, found = subject.match.candidate.loss, reduction_of(subject)
    if not subject.match.same or loss in OUTSIDE:
        return ""
    dimensions = subject.answer.value.ndim
    keyword = found.keyword if found and dimensions == 0 else "none" if dimensions == 1 else ""
    reduction = f'reduction="{keyword}"' if keyword else ""
    arguments = filter(None, (f'"{loss}"', subject.match.candidate.change.option, reduction))
    return f"lopsided.loss({', '.join(arguments)})"
