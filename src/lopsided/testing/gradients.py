"""Findings about the gradient of a loss: where it leads, where it ends, whose it is, and how large."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lopsided.losses.names import read
from lopsided.testing.findings import Finding, Status, Subject, percent
from lopsided.testing.probe import Side, ask

NEAREST = "nearest loss"

_SMALL = 1e-4  # of the largest gradient: less is rounding
_NOTHING = 1e-9


def direction(subject: Subject) -> Iterator[Finding]:
    """Tells whether positives are pulled up and negatives down, everywhere."""
    for side in subject.sides:
        right, wrong = ("up", "down") if side.sign < 0 else ("down", "up")
        against = side.pull < -_SMALL
        if against.any():
            strength = percent(float(-side.pull.min()))
            text = f"pushes {side.name} {wrong} {_where(side, against)}, by up to {strength} of the largest gradient"
            yield Finding(f"direction of {side.name}", subject.own_fault, text)
        else:
            most = float(side.logits[side.pull.argmax()])
            yield Finding(f"direction of {side.name}", "ok", f"pulled {right}, most at {most:.1f}")


def dead_zones(subject: Subject) -> Iterator[Finding]:
    """Tells which labels get no gradient: easy ones may be left alone, hard ones must not."""
    for side in subject.sides:
        dead, hard = side.pull.abs() <= _NOTHING, side.sign * side.logits > 0
        if (dead & hard).any():
            text = f"no gradient {_where(side, dead & hard)}: {side.name} that are badly missed are not learned"
            yield Finding(f"dead zone of {side.name}", subject.own_fault, text)
        elif dead.any():
            text = f"no gradient {_where(side, dead)}: easy {side.name} are left alone"
            yield Finding(f"dead zone of {side.name}", "ok", text)
        elif side.sign < 0 and (weakest := float(side.pull[0])) < 0.5 * float(side.pull.max()):
            text = (
                f"positives at {side.logits[0]:g}, the most badly missed, are pulled by {percent(weakest)} of the most"
            )
            yield Finding(f"dead zone of {side.name}", "note", text)
        else:
            yield Finding(f"dead zone of {side.name}", "ok", "none")


def _where(side: Side, chosen: Tensor) -> str:
    """Says between which logits the chosen labels lie."""
    if chosen.all():
        return "everywhere"
    low, high = float(side.logits[chosen].min()), float(side.logits[chosen].max())
    if chosen[0]:
        return f"below {high:.1f}"
    return f"above {low:.1f}" if chosen[-1] else f"between {low:.1f} and {high:.1f}"


def likeness(subject: Subject) -> Iterator[Finding]:
    """Names the nearest known loss."""
    match = subject.match
    if match.same:
        status: Status = "fault" if match.wrong else "note" if match.change else "ok"
        yield Finding(NEAREST, status, f"{match} (distance {match.distance:.3f})")
    else:
        yield Finding(NEAREST, "note", f"none is like it; the nearest, at {match.distance:.2f}, is {match}")


def focus(subject: Subject) -> Iterator[Finding]:
    """Remarks on the settings of ASL and APL that its paper does not have, and that may not be meant."""
    name, settings = read(subject.match.candidate.loss.name)
    if not subject.match.same or name not in ("asl", "apl"):
        return
    gamma_neg, gamma_pos = settings["gamma_neg"], settings["gamma_pos"]
    if float(str(gamma_pos)) > float(str(gamma_neg)):
        yield Finding("focus", "note", "positives are focused more than negatives: perhaps the gammas are swapped")
    elif gamma_neg and not settings["detach_focus"]:
        yield Finding("focus", "note", "the gradient goes through the focus; in the training of the paper it does not")


def derivative(subject: Subject) -> Iterator[Finding]:
    """Tells whether the gradient is the derivative of the value, along one direction, in float64."""
    z, y = subject.logits.double(), subject.targets.double()
    along = 1e-5 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=z.dtype)
    before, at, after = (ask(subject.loss, z + step * along, y) for step in (-1, 0, 1))
    if not (before.finite and at.finite and after.finite) or at.value.dtype != torch.float64:
        return
    rise, expected = float(after.value.sum() - before.value.sum()) / 2, float((at.gradient * along).sum())
    if abs(rise - expected) <= 1e-3 * float((at.gradient * along).abs().max()):
        yield Finding("gradient and value", "ok", "the gradient is the derivative of the value")
    else:
        text = "the gradient is not the derivative of the value, as where a focus is detached"
        published = subject.match.same and not subject.match.wrong
        yield Finding("gradient and value", "ok" if published else "note", text)


def coupling(subject: Subject) -> Iterator[Finding]:
    """Tells whether the gradient of a label depends on other labels of its row, or on other rows."""
    rows, labels = (size // 2 for size in subject.logits.shape)
    if _changes(subject, (slice(rows), slice(None)), (slice(rows, None), slice(None))):
        text = "the gradient of a label depends on the other rows of the batch, as where a focus is taken of their mean"
        yield Finding("coupling", "note", text)
    elif _changes(subject, (slice(None), slice(labels)), (slice(None), slice(labels, None))):
        yield Finding("coupling", "ok", "the labels of a row are compared with each other")
    else:
        yield Finding("coupling", "ok", "each label is judged alone")


def _changes(subject: Subject, seen: tuple[slice, slice], moved: tuple[slice, slice]) -> bool:
    """Tells whether the gradient of some labels changes when the logits of others do."""
    z, before = subject.logits.clone(), subject.answer.gradient
    z[moved] = 0
    change = (ask(subject.loss, z, subject.targets).gradient - before)[seen].abs()
    return bool((change > 1e-3 * before.abs().max()).any())


@dataclass(frozen=True)
class Reduction:
    """Holds a way to reduce a loss, its keyword in this library if it has one, and what it divides by.

    divisor: of the numbers of rows, labels and positives of a batch.
    """

    words: str
    keyword: str
    divisor: Callable[[int, int, int], int]

    def of(self, y: Tensor) -> int:
        rows, labels = y.shape
        return self.divisor(rows, labels, int(y.sum()))


_REDUCTIONS = (
    Reduction("a sum", "sum", lambda rows, labels, positives: 1),
    Reduction("a mean over rows and labels", "mean", lambda rows, labels, positives: rows * labels),
    Reduction("a mean over rows, of sums over labels", "batchmean", lambda rows, labels, positives: rows),
    Reduction("a sum over rows, of means over labels", "", lambda rows, labels, positives: labels),
    Reduction("a sum divided by the number of positives", "", lambda rows, labels, positives: positives),
)


def reduction_of(subject: Subject) -> Reduction | None:
    """Finds out what the value, or its sum if it is not a scalar, is divided by; None if by something else."""
    return next((known for known in _REDUCTIONS if _explains(known, subject)), None)


def _explains(known: Reduction, subject: Subject) -> bool:
    """Tells whether gradients change by its divisor when rows, negatives or positives are added that cost nothing."""
    z, y = subject.logits[:4, :4] / 4, torch.tensor([[1.0, 0, 1, 0]]).expand(4, 4)
    easy = torch.full_like(z, 20.0)
    larger = (
        (torch.cat([z, z]), torch.cat([y, y])),
        (torch.cat([z, -easy], 1), torch.cat([y, torch.zeros_like(y)], 1)),
        (torch.cat([z, easy], 1), torch.cat([y, torch.ones_like(y)], 1)),
    )
    base = ask(subject.loss, z, y)
    size = float(base.gradient.abs().max()) * known.of(y)
    gradients = (ask(subject.loss, *each).gradient[:4, :4] * known.of(each[1]) for each in larger)
    return base.finite and all(
        torch.allclose(each, base.gradient * known.of(y), rtol=1e-2, atol=1e-3 * size) for each in gradients
    )


def reduction(subject: Subject) -> Iterator[Finding]:
    """Tells what the value is divided by, and how large the gradient is beside that of the nearest loss."""
    known, rows, labels = reduction_of(subject), *subject.logits.shape
    shapes = {(): known.words if known else "of its own kind", (rows,): "a value for each row"}
    shape = tuple(subject.answer.value.shape)
    text = shapes.get(shape, "a value for each label" if shape == (rows, labels) else f"values of shape {shape}")
    if known is not None and subject.match.same:
        up, down = (abs(scale) * known.of(subject.targets) for scale in subject.match.scales)
        if abs(up / down - 1) > 0.02:
            text += f"; positives weigh {up:.3g} times, negatives {down:.3g} times what they do in the nearest loss"
        elif abs(up - 1) > 0.02:
            text += f"; {up:.3g} times the nearest loss"
    yield Finding("reduction", "ok", text)
