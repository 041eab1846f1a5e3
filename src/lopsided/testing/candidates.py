"""The losses that a callable is compared with: those of the catalog, and the known ways to write them wrongly.

A candidate is a published loss and a change. A change has words, which the user reads, and makes the gradients of the
changed loss from the formula of the published one.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from lopsided.losses import Curve, Formula, Sum, formula
from lopsided.losses.curves import Values
from lopsided.losses.vocabulary import logistic
from lopsided.nn.functional import multilabel_loss
from lopsided.testing.probe import ask, batch

_KEPT = 10_000  # gradients, 1 KiB each

Gradients: TypeAlias = "tuple[Tensor, Tensor]"  # of the positives and of the negatives of `probe.batch`, (n,) float64


@dataclass(frozen=True)
class Change:
    """Holds what is different from a published loss, in words, and the gradients that follow.

    wrong: whether it is a mistake. needs: the settings of the negative curve without which it changes nothing. option:
    the keyword of `lopsided.loss` that makes the same change, if there is one.
    """

    words: str
    wrong: bool
    gradients: Callable[[Formula], Gradients]
    needs: tuple[str, ...] = ()
    option: str = ""


@dataclass(frozen=True)
class Candidate:
    """Names a loss: a published one, with a change."""

    loss: Formula
    change: Change

    @property
    def gradients(self) -> Gradients:
        return self.change.gradients(self.loss)


@functools.cache
def candidates() -> tuple[Candidate, ...]:
    """Returns all of them, published ones first, and simple ones before those that have more settings."""
    changed = itertools.product(_asymmetric(), _CHANGES)
    return (
        *(Candidate(loss, AS_PUBLISHED) for loss in _published()),
        *(Candidate(loss, change) for loss, change in changed if all(map(loss.negative.setting, change.needs))),
    )


def _published() -> tuple[Formula, ...]:
    """Returns the losses of the catalog with usual settings; others are found from the nearest of these."""
    return (
        *_asymmetric(),
        formula("squared_hinge"),
        formula("aml"),
        *_grid("apl", gamma_neg=(0, 2, 4), gamma_pos=(0, 1), clip=(0, 0.05), detach_focus=(True, False)),
        *_grid("hill", gamma=(2, 1, 0), margin=(1, 0)),
        *_grid("ral", gamma_neg=(4, 2, 0), detach_focus=(False, True)),
        *OUTSIDE,
        *_grid("zlpr", scale=(1, 0.5, 2)),
        *(formula(name) for name in ("lsep", "two_way", "bp_mll", "softmax", "atl", "mean_sat", "decoupled")),
        *_grid("hinge_abl", margin=(5, 1)),
        *_grid("ncrl", clip=(0, 0.01, 0.05)),
    )


@functools.cache
def _asymmetric() -> tuple[Formula, ...]:
    """Returns binary cross-entropy, focal losses and ASL: those which people write by hand."""
    return (
        formula("bce"),
        *_grid("focal", gamma=(1, 2, 3, 4), detach_focus=(False, True)),
        *_grid(
            "asl",
            gamma_neg=(4, 0, 1, 2, 3, 6),
            gamma_pos=(0, 1, 2, 4),
            clip=(0.05, 0, 0.1, 0.2),
            detach_focus=(True, False),
        ),
    )


def _grid(name: str, **values: tuple[object, ...]) -> Iterator[Formula]:
    for chosen in itertools.product(*values.values()):
        yield formula(name, **dict(zip(values, chosen, strict=True)))


@functools.lru_cache(_KEPT)
def _published_gradients(loss: Formula) -> Gradients:
    if loss.pool.per_label:
        return _slopes(loss.positive, 1), _slopes(loss.negative, 0)
    z, y = batch()
    reduction = "mean" if loss.pool.transposed else "sum"
    gradient = ask(lambda z, y: multilabel_loss(z, y, loss, reduction=reduction), z.double(), y.double()).gradient
    return gradient[y == 1], gradient[y == 0]


def _error(z: Tensor, *, power: int, sign: int) -> Values:
    """Computes w^power, w the probability of the wrong answer: of negatives with sign 1, of positives with -1."""
    w, right = logistic(sign * z)
    return w**power, sign * power * w**power * right


def _outside(name: str, power: int) -> Formula:
    up, down = (Curve(_error, (("power", power), ("sign", sign))) for sign in (-1, 1))
    return Formula(up, down, Sum(), named=name)


# They are not in the catalog. Dice has the gradient of the first, times factors that depend on the batch.
OUTSIDE = (_outside("absolute_error", 1), _outside("squared_error", 2))


def _swapped(loss: Formula) -> Gradients:
    return _slopes(loss.negative, 1), _slopes(loss.positive, 0)


def _of_sigmoid(loss: Formula) -> Gradients:
    return _slopes(_OfSigmoid(loss.positive), 1), _slopes(_OfSigmoid(loss.negative), 0)


def _smoothed(loss: Formula, smoothing: float) -> Gradients:
    own = _published_gradients(loss)
    other = _slopes(loss.negative, 1), _slopes(loss.positive, 0)
    positives, negatives = ((1 - smoothing / 2) * a + smoothing / 2 * b for a, b in zip(own, other, strict=True))
    return positives, negatives


@functools.lru_cache(_KEPT)
def _slopes(curve: Callable[[Tensor], Values], target: int) -> Tensor:
    """Returns the slopes of a curve at the logits of the labels with this target."""
    z, y = batch()
    at = z[y == target].double()
    return torch.as_tensor(curve(at)[1]).expand_as(at)


@dataclass(frozen=True)
class _OfSigmoid:
    """Gives a curve the probability of a label where it expects the logit."""

    curve: Curve

    def __call__(self, z: Tensor) -> Values:
        p, q = logistic(z)
        value, slope = self.curve(p)
        return value, slope * p * q


# What hand-written copies of ASL do to w, the probability of the wrong answer, with the margin m: w of a negative is p
_Margin: TypeAlias = "Callable[[Tensor, float], Tensor]"
_BOTH_SIDES = "p clamped on both sides"
_MARGINS: dict[str, _Margin] = {
    "": lambda w, m: (w - m).clamp_min(0),
    "the margin shifted the other way": lambda w, m: (w + m).clamp_max(1),
    "p cut off at the margin instead of shifted": lambda w, m: w.clamp_min(m),
    _BOTH_SIDES: lambda w, m: w.clamp(m, 1 - m),
}
# and what they raise to the power gamma, if r is w after that
_Focus: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
_UNSHIFTED, _INVERTED = "the focus of p before the margin", "the focus inverted"
_RIGHT: _Focus = lambda w, r: r  # noqa: E731
_FOCUSES: tuple[tuple[str, _Focus], ...] = (
    ("", _RIGHT),
    (_UNSHIFTED, lambda w, r: w),
    (_INVERTED, lambda w, r: 1 - r),
    (_INVERTED, lambda w, r: 1 - w),
)


def _as_written(
    loss: Formula, margin: str = "", focus: _Focus = _RIGHT, focus_pos: _Focus = _RIGHT, eps: float = 0.0
) -> Gradients:
    m = loss.negative.setting("margin")
    return (
        _written(loss.positive, 1, margin, m if margin == _BOTH_SIDES else 0, focus_pos, eps),
        _written(loss.negative, 0, margin, m, focus, eps),
    )


@functools.lru_cache(_KEPT)
def _written(curve: Curve, target: int, margin: str, m: float, focus: _Focus, eps: float) -> Tensor:
    """Returns the slopes of focus^gamma -log(1 - r + eps), with the settings of a curve of ASL, by autograd."""
    z, y = batch()
    z = z[y == target].double().requires_grad_()
    w = (-z if target else z).sigmoid()
    r = _MARGINS[margin](w, m) if m else w
    weight = focus(w, r) ** curve.setting("gamma")
    value = -(weight.detach() if curve.setting("detach") else weight) * (1 - r + eps).clamp_min(1e-8).log()
    return torch.autograd.grad(value.sum(), z)[0].nan_to_num()


def _changes() -> Iterator[Change]:
    yield Change("with positives and negatives swapped", True, _swapped)
    yield Change("with the sigmoid taken twice", True, _of_sigmoid)
    for smoothing in (0.05, 0.1, 0.2):
        smoothed, option = functools.partial(_smoothed, smoothing=smoothing), f"label_smoothing={smoothing:g}"
        yield Change(f"with {option}", False, smoothed, option=option)
    for eps in (1e-5, 1e-4, 1e-3, 1e-2):
        yield Change(f"with an eps of {eps:g} inside the logarithms", True, functools.partial(_as_written, eps=eps))
    for margin, (words, focus) in itertools.product(_MARGINS, _FOCUSES):
        changes = [change for change in (words, margin) if change]
        needs = ("gamma",) * (words != "") + ("margin",) * (margin != "" or words == _UNSHIFTED)
        for focus_pos in (_RIGHT, focus) if words == _INVERTED else (_RIGHT,):
            gradients = functools.partial(_as_written, margin=margin, focus=focus, focus_pos=focus_pos)
            if changes:
                yield Change(f"with {' and '.join(changes)}", changes != [_UNSHIFTED], gradients, needs)


AS_PUBLISHED = Change("", False, _published_gradients)
_CHANGES = tuple(_changes())
