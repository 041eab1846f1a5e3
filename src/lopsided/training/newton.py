"""Minimises the loss of a linear model over all rows at once: Newton's method with conjugate gradients, in pulls.

The weights of such a minimum are W = X^T A, whatever the loss: every row pulls at the labels, and A, (rows, labels),
says how hard. So all is computed in numbers of that shape, with Z = X X^T A beside A, even where there are far more
features than rows; only the product with X X^T sees the features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_NEAR = 2.0**-7  # logits; how far away a slope is taken of which the difference tells the curvature
_FORCING = 0.1  # the residual of the linear system of a Newton step, as a share of the gradient
_NEWTON_STEPS, _CONJUGATE_STEPS, _LINE_STEPS = 50, 60, 12
_FLAT = 0.5  # a step ends where the slope along it has fallen to this share


@dataclass(frozen=True)
class Problem:
    """Says what is minimised: sum over rows of a loss of Z = X X^T A, plus l2/2 times the square of X^T A.

    product: maps (rows, k) pulls to X X^T of them. slope: the derivative of the loss by (rows, k) scores Z of the given
    labels, (k,) int64. apart: whether the loss is a sum over labels, so that each is a problem of its own, with its own
    steps, which is left alone once it is solved.

    No value of the loss is asked for. A slope that is not the derivative of the value, as where focusing weights are
    detached, is that of another function of each logit, its integral; that one is minimised.
    """

    product: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    apart: bool


def pull(problem: Problem, pulls: Tensor) -> Tensor:
    """Computes, (k,), the square of the gradient by the weights where these are 0: how far labels are from solved."""
    slope = problem.slope(torch.zeros_like(pulls), torch.arange(pulls.shape[1], device=pulls.device))
    return _dot(problem, slope, problem.product(slope))


def minimise(problem: Problem, pulls: Tensor, l2: float, tolerance: float) -> Tensor:
    """Returns the (rows, k) pulls of the minimum, from others near it.

    tolerance: a label is solved when its gradient has fallen to this share of the one without weights.

    >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [3.0]])
    >>> squares = Problem(lambda pulls: x @ (x.T @ pulls), lambda scores, labels: 2 * (scores - y), apart=True)
    >>> x.T @ minimise(squares, torch.zeros(2, 1), l2=2.0, tolerance=1e-6)  # x'y / (x'x + l2 / 2) = 7 / 6
    tensor([[1.1667]])
    """
    solved, labels = pulls.clone(), torch.arange(pulls.shape[1], device=pulls.device)
    far = pull(problem, pulls) * tolerance**2
    scores = problem.product(pulls)
    for _ in range(_NEWTON_STEPS):
        slope = problem.slope(scores, labels)
        gradient = slope + l2 * pulls
        along = problem.product(gradient)
        unsolved = _dot(problem, gradient, along) > far
        if not unsolved.all():
            solved[:, labels] = pulls
            if not unsolved.any():
                return solved
            labels, far = labels[unsolved], far[unsolved]
            pulls, scores, slope, gradient, along = (
                each[:, unsolved] for each in (pulls, scores, slope, gradient, along)
            )
        bend = _curvature(problem, scores, labels, slope)
        step, moved = _newton_step(problem, gradient, along, bend, l2)
        length = _length(problem, labels, (pulls, scores), (step, moved), gradient, l2)
        pulls, scores = pulls + length * step, scores + length * moved
    solved[:, labels] = pulls
    return solved


def _dot(problem: Problem, one: Tensor, other: Tensor) -> Tensor:
    """Returns (k,) inner products of labels; where these are not apart, all have that of all together."""
    sums = (one * other).sum(0)
    return sums if problem.apart else sums.sum().expand(len(sums))


Bend = Callable[[Tensor, Tensor], Tensor]


def _curvature(problem: Problem, scores: Tensor, labels: Tensor, slope: Tensor) -> Bend:
    """Returns the second derivative by scores, times a direction of some labels, those `kept` of (k,).

    Where the loss curves down, it counts as straight if labels are apart, so that a step always leads down.
    """
    if problem.apart:
        bend = ((problem.slope(scores + _NEAR, labels) - slope) / _NEAR).clamp_(min=0)
        return lambda direction, kept: bend[:, kept] * direction

    def along(direction: Tensor, kept: Tensor) -> Tensor:
        small = _NEAR / direction.abs().max().clamp(min=torch.finfo(direction.dtype).tiny)
        return (problem.slope(scores + small * direction, labels) - slope) / small

    return along


def _newton_step(problem: Problem, gradient: Tensor, along: Tensor, bend: Bend, l2: float) -> tuple[Tensor, Tensor]:
    """Returns a step and what it does to the scores, by conjugate gradients in the space of the weights."""
    step, moved = torch.zeros_like(gradient), torch.zeros_like(gradient)
    live = torch.arange(gradient.shape[1], device=gradient.device)
    residual, way, moving = -gradient, -gradient, -along
    left = _dot(problem, gradient, along)
    enough = left * _FORCING**2
    for number in range(_CONJUGATE_STEPS):
        change = bend(moving, live) + l2 * way
        curved = _dot(problem, change, moving)
        size = torch.where(curved > 0, left / curved, float(not number))  # no bottom that way: only the first counts
        step[:, live] += size * way
        moved[:, live] += size * moving
        residual = residual - size * change
        along = problem.product(residual)
        new = _dot(problem, residual, along)
        going = (new > enough) & (curved > 0)
        if not going.any():
            break
        turn = new / left
        if not going.all():
            live, enough, new, turn = live[going], enough[going], new[going], turn[going]
            residual, way, moving, along = (each[:, going] for each in (residual, way, moving, along))
        way, moving, left = residual + turn * way, along + turn * moving, new
    return step, moved


def _length(
    problem: Problem,
    labels: Tensor,
    at: tuple[Tensor, Tensor],
    towards: tuple[Tensor, Tensor],
    gradient: Tensor,
    l2: float,
) -> Tensor:
    """Returns, (k,), how much of a step is made: to where the slope along it has nearly vanished, found by halving."""
    (pulls, scores), (step, moved) = at, towards
    begin = _dot(problem, gradient, moved)
    constant, linear = l2 * _dot(problem, pulls, moved), l2 * _dot(problem, step, moved)
    low, high = torch.zeros_like(begin), torch.full_like(begin, torch.inf)
    length = torch.ones_like(begin)
    for _ in range(_LINE_STEPS):
        slope = _dot(problem, problem.slope(scores + length * moved, labels), moved) + constant + length * linear
        open_ = ~(slope.abs() <= _FLAT * begin.abs())
        if not open_.any():
            return length
        falls = slope < 0
        low, high = torch.where(falls, length, low), torch.where(falls, high, length)
        next_ = torch.where(high.isinf(), 2 * length, (low + high) / 2)
        length = torch.where(open_, next_, length)
    return torch.where(open_, low, length)
