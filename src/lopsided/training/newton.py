"""Minimises the loss of a linear model over all rows at once: Newton's method with conjugate gradients, in pulls.

The weights of such a minimum are W = X^T A, whatever the loss: every row pulls at the labels, and A, (rows, labels),
says how hard. So all is computed in numbers of that shape, with Z = X X^T A beside A, even where there are far more
features than rows; only the product with X X^T sees the features.

Every label takes its own steps, as in LIBLINEAR (Lin, Weng & Keerthi 2008, JMLR 9), but for one difference: no value
of the loss is asked for, and so the length of a step is found by the slope along it. That also solves what is the
derivative of no value, as where focusing weights are detached: where labels are apart, the slope of each is a function
of its own score alone, and its integral is what is minimised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_NEAR = 2.0**-7  # how far away in scores a slope is taken, of which the difference tells the curvature
_FORCING = 0.3  # the residual of the linear system of a Newton step, as a share of the gradient
_NEWTON_STEPS, _CONJUGATE_STEPS, _LINE_STEPS = 200, 60, 12
_FLAT = 0.2  # a step ends where the slope along it has fallen to this share
_KEPT = 0.9  # of the curvature measured before, where labels are not apart
_CACHED = 2**17  # numbers of rows and labels, as many as stay in the cache


@dataclass(frozen=True)
class Problem:
    """Says what is minimised: sum over rows of a loss of Z = X X^T A, plus l2/2 times the square of X^T A.

    product: maps (rows, k) pulls to X X^T of them. slope: the derivative of the loss by the (rows, k) scores Z of the
    given labels, (k,) int64. apart: whether the loss is a sum over labels, so that each is a problem of its own.
    """

    product: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    apart: bool


def side_by_side(rows: int) -> int:
    """Returns how many labels are solved together, unless one depends on the other."""
    return max(32, _CACHED // max(rows, 1))


def minimise(problem: Problem, pulls: Tensor, l2: float, tolerance: float) -> Tensor:
    """Returns the (rows, k) pulls of the minimum, from others near it.

    tolerance: a label is solved when its gradient by the weights has fallen to this share of the one without weights.
    Labels that are not apart are solved when that holds for the root of the mean square of their shares.

    >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [3.0]])
    >>> squares = Problem(lambda pulls: x @ (x.T @ pulls), lambda scores, labels: 2 * (scores - y), apart=True)
    >>> x.T @ minimise(squares, torch.zeros(2, 1), l2=2.0, tolerance=1e-6)  # x'y / (x'x + l2 / 2) = 7 / 6
    tensor([[1.1667]])
    """
    solved, labels = pulls.clone(), torch.arange(pulls.shape[1], device=pulls.device)
    start = problem.slope(torch.zeros_like(pulls), labels)
    far = _dot(start, problem.product(start)) * tolerance**2
    scores, last, bend = problem.product(pulls), None, None
    random = torch.Generator(pulls.device).manual_seed(0)
    for _ in range(_NEWTON_STEPS):
        slope = problem.slope(scores, labels)
        gradient = slope + l2 * pulls
        along = problem.product(gradient)
        left = _dot(gradient, along)
        unsolved = left > far if problem.apart else ((left / far).nanmean() > 1).expand(len(far))
        if not unsolved.any():
            break
        if not unsolved.all():  # what is solved stays so
            solved[:, labels] = pulls
            labels, far = labels[unsolved], far[unsolved]
            pulls, scores, slope, gradient, along = (
                each[:, unsolved] for each in (pulls, scores, slope, gradient, along)
            )
        bend = _curvature(problem, scores, labels, slope, random, bend)
        step = _newton_step(problem.product, gradient, along, bend.clamp(min=0), l2)
        if not problem.apart:
            step = last = _turned(step, last)
        fixed = l2 * _dot(pulls, step.moved), l2 * _dot(step.pulls, step.moved)
        length = _length(problem, scores, step.moved, labels, fixed, _dot(gradient, step.moved))
        pulls, scores = torch.addcmul(pulls, length, step.pulls), torch.addcmul(scores, length, step.moved)
    solved[:, labels] = pulls
    return solved


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(0)


def _curvature(
    problem: Problem, scores: Tensor, labels: Tensor, slope: Tensor, random: torch.Generator, last: Tensor | None
) -> Tensor:
    """Measures, (rows, k), how the slope of each score changes with itself; below 0 where the loss bends down.

    Where labels are not apart, all scores move at once, each up or down at random. What the others do to a slope then
    has a random sign, too, and vanishes in the mean over the steps (Bekas, Kokiopoulou & Saad 2007, Applied Numerical
    Mathematics 57; a running mean as in Yao et al. 2021, arXiv 2006.00719). last: that mean so far.
    """
    if problem.apart:
        return (problem.slope(scores + _NEAR, labels) - slope) / _NEAR
    near = torch.randint(0, 2, scores.shape, generator=random, device=scores.device, dtype=scores.dtype)
    near = near.mul_(2 * _NEAR).sub_(_NEAR)
    measured = (problem.slope(scores + near, labels) - slope) / near
    return measured if last is None else last.lerp(measured, 1 - _KEPT)


@dataclass(frozen=True)
class _Step:
    """Holds a step from where the gradient was such: pulls, and what they do to the scores; all (rows, k).

    straight: what the step did to the scores before the last one turned it.
    """

    gradient: Tensor
    pulls: Tensor
    moved: Tensor
    straight: Tensor


def _newton_step(
    product: Callable[[Tensor], Tensor], gradient: Tensor, along: Tensor, bend: Tensor, l2: float
) -> _Step:
    """Returns the steps of all labels, each as if the others stood."""
    gradients, alongs, bends = (each.split(side_by_side(len(gradient)), 1) for each in (gradient, along, bend))
    steps = [_conjugate_steps(product, *part, l2) for part in zip(gradients, alongs, bends, strict=True)]
    pulls, moved = (torch.cat(each, 1) for each in zip(*steps, strict=True))
    return _Step(gradient, pulls, moved, moved)


def _conjugate_steps(
    product: Callable[[Tensor], Tensor], gradient: Tensor, along: Tensor, bend: Tensor, l2: float
) -> tuple[Tensor, Tensor]:
    """Returns the step of each label and what it does to its scores, by conjugate gradients.

    They run in the space of the weights, where the inner product of two pulls is that of one with X X^T of the other.
    """
    steps, moves = torch.zeros_like(gradient), torch.zeros_like(gradient)
    step, moved, live = steps.clone(), moves.clone(), torch.arange(gradient.shape[1], device=gradient.device)
    residual, way, moving, left = -gradient, -gradient, -along, _dot(gradient, along)
    enough = left * _FORCING**2
    for _ in range(_CONJUGATE_STEPS):
        change = torch.addcmul(l2 * way, bend, moving)
        size = (left / _dot(change, moving)).nan_to_num(0.0, posinf=0.0)  # a label whose gradient is 0 stays
        step.addcmul_(size, way)
        moved.addcmul_(size, moving)
        residual.addcmul_(size, change, value=-1)
        along = product(residual)
        new = _dot(residual, along)
        going = new > enough
        if not going.all():
            steps[:, live], moves[:, live] = step, moved
            if not going.any():
                return steps, moves
            live, enough, new, left = live[going], enough[going], new[going], left[going]
            step, moved, residual, way, moving, along, bend = (
                each[:, going] for each in (step, moved, residual, way, moving, along, bend)
            )
        turn = new / left
        way, moving, left = torch.addcmul(residual, turn, way), torch.addcmul(along, turn, moving), new
    steps[:, live], moves[:, live] = step, moved
    return steps, moves


def _turned(step: _Step, last: _Step | None) -> _Step:
    """Returns a step turned by the last one, so that what labels do to each other is not undone again and again.

    Those are conjugate gradients of the whole loss (Polak & Ribiere 1969), preconditioned by the Newton steps of single
    labels. A step that would then lead up is left as it was.
    """
    if last is None:
        return step
    share = ((step.gradient - last.gradient) * step.straight).sum() / (last.gradient * last.straight).sum()
    moved = torch.addcmul(step.moved, share, last.moved)
    if not (share > 0 and (step.gradient * moved).sum() < 0):
        return step
    return _Step(step.gradient, torch.addcmul(step.pulls, share, last.pulls), moved, step.straight)


def _length(
    problem: Problem, scores: Tensor, moved: Tensor, labels: Tensor, fixed: tuple[Tensor, Tensor], begin: Tensor
) -> Tensor:
    """Returns, (k,), how much of a step to make: to where the slope along it has nearly vanished, by halving.

    fixed: the slope of the penalty along the step, and what a whole step adds to it. begin: the slope of all at 0.
    """

    def of_steps(each: Tensor) -> Tensor:  # steps of labels that are not apart are one
        return each if problem.apart else each.sum().expand(len(each))

    length, low = torch.ones_like(begin), torch.zeros_like(begin)
    high, small = torch.full_like(begin, torch.inf), _FLAT * of_steps(begin).abs()
    for _ in range(_LINE_STEPS):
        loss = _dot(problem.slope(torch.addcmul(scores, length, moved), labels), moved)
        slope = of_steps(loss + fixed[0] + length * fixed[1])
        steep = ~(slope.abs() <= small)
        if not steep.any():
            return length
        low, high = torch.where(slope < 0, length, low), torch.where(slope < 0, high, length)
        length = torch.where(steep, torch.where(high.isinf(), 2 * length, (low + high) / 2), length)
    return torch.where(steep, low, length)
