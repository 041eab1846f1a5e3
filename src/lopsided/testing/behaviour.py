"""Findings about behaviour: in 16 bits, far out, with odd targets and batches; what a call changes, keeps and costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import torch
from torch import Tensor
from torch.nn import functional

from lopsided.testing.findings import Finding, Subject, percent
from lopsided.testing.probe import FARTHEST, LABELS, Answer, Loss, ask

_FAR = (10.0, 15.0, 20.0, 30.0, 50.0, 100.0)
_NAMES = {1: "positive", 0: "negative"}


def far_logits(subject: Subject) -> Iterator[Finding]:
    """Tells from which logit on the value or the gradient of a label is not finite, in float32, or dies away."""
    broken = dying = None
    for size in _FAR:
        for target, sign in ((1, -1), (0, 1), (1, 1), (0, -1)):
            answer = _alone(subject.loss, sign * size, target)
            if not answer.finite:
                broken = broken or f"NaN, infinity or an error for a {_NAMES[target]} at {sign * size:g}"
            elif sign == (-1 if target else 1) and _dies(subject, answer, sign * size, target):
                dying = dying or (
                    f"from {sign * size:g} on a {_NAMES[target]} is hardly pulled: an eps or a clamp inside a logarithm"
                )
    if broken:
        yield Finding("far logits", "fault", broken)
    elif dying:
        yield Finding("far logits", "note", dying)
    else:
        yield Finding("far logits", "ok", f"finite for logits up to {_FAR[-1]:g} in float32")


def _alone(loss: Loss, logit: float, target: int, dtype: torch.dtype = torch.float32) -> Answer:
    """Asks for the first label of a row, whose other ones, of both kinds, are at 0."""
    z = torch.tensor([[logit, *[0.0] * (LABELS - 1)]], dtype=dtype)
    return ask(loss, z, torch.tensor([[target, 1 - target] * (LABELS // 2)], dtype=dtype))


def _dies(subject: Subject, answer: Answer, logit: float, target: int) -> bool:
    """Tells whether a badly missed label is pulled by less than half of what the published loss says."""
    published = subject.match.candidate.loss
    if not (subject.match.same and published.pool.per_label):
        return False
    curve = published.positive if target else published.negative
    at = torch.tensor([logit, FARTHEST if logit > 0 else -FARTHEST], dtype=torch.float64)
    slopes = torch.as_tensor(curve(at)[1]).expand_as(at).abs()
    near = _alone(subject.loss, float(at[1]), target).gradient[0, 0].abs()
    return float(slopes[0]) > 1e-9 and float(answer.gradient[0, 0].abs() / near) < 0.5 * float(slopes[0] / slopes[1])


def half_precision(subject: Subject) -> Iterator[Finding]:
    """Compares 16-bit logits with the same numbers in float32."""
    for dtype in (torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        z, y = subject.logits.to(dtype), subject.targets
        narrow, wide = ask(subject.loss, z, y.to(dtype)), ask(subject.loss, z.float(), y)
        hard = [_alone(subject.loss, -20.0 if target else 20.0, target, dtype) for target in (1, 0)]
        if narrow.error:
            yield Finding(name, "note", f"refused: {narrow.error}")
        elif not (narrow.finite and all(answer.finite for answer in hard)):
            limit = FARTHEST if not narrow.finite else 20
            text = f"value or gradient is NaN or infinite within logits of ±{limit:g}: call it with logits.float()"
            yield Finding(name, "note", text)
        else:
            value = float((narrow.value.float().sum() - wide.value.sum()).abs() / wide.value.sum().abs())
            gradient = float((narrow.gradient.float() - wide.gradient).abs().max() / wide.gradient.abs().max())
            text = f"value off by {percent(value)}, gradient by {percent(gradient)} of the largest"
            yield Finding(name, "note" if max(value, gradient) > 0.02 else "ok", text)


def side_effects(subject: Subject) -> Iterator[Finding]:
    """Tells whether a call changes the grad mode, its inputs, or the next call."""
    with torch.no_grad():
        with suppress(Exception):  # of code that is not ours
            subject.loss(subject.logits.clone(), subject.targets.clone())
        leaked = torch.is_grad_enabled()
    text = "switches gradients on inside torch.no_grad(), and leaves them on" if leaked else "left as it was"
    yield Finding("grad mode", "fault" if leaked else "ok", text)
    z, y = subject.logits.clone().requires_grad_(), subject.targets.clone()
    given = z * 1
    with suppress(Exception):
        subject.loss(given, y)
    changed = [
        name for name, one, other in (("logits", given, z), ("targets", y, subject.targets)) if (one != other).any()
    ]
    text = f"changes the {' and the '.join(changed)} in place" if changed else "left as they were"
    yield Finding("inputs", "fault" if changed else "ok", text)
    if not torch.equal(ask(subject.loss, subject.logits, subject.targets).gradient, subject.answer.gradient):
        yield Finding("repeated call", "note", "gives another gradient: the loss remembers, or draws random numbers")


def odd_targets(subject: Subject) -> Iterator[Finding]:
    """Tells what a target does that is neither 0 nor 1, and whether targets may be bool or integer."""
    at = _entry(subject)
    usual = {target: _with_target(subject, at, target).gradient for target in (0.0, 1.0)}
    for target in (-1.0, 255.0, torch.nan):
        yield _odd(f"target {target:g}", _with_target(subject, at, target), usual, at)
    yield _soft(_with_target(subject, at, 0.3), usual, at)
    for dtype in (torch.bool, torch.int64):
        answer = ask(subject.loss, subject.logits, subject.targets.to(dtype))
        name = f"targets of {str(dtype).removeprefix('torch.')}"
        same = answer.finite and torch.allclose(answer.gradient, subject.answer.gradient, rtol=1e-4, atol=1e-8)
        text = "the same gradient" if same else answer.error or "another gradient than with float"
        yield Finding(name, "ok" if same else "note", text)


def _entry(subject: Subject) -> tuple[int, int]:
    """Returns where the negative stands whose logit is nearest to 1."""
    distance = (subject.logits - 1).abs() + 100 * subject.targets
    row, label = divmod(int(distance.argmin()), subject.logits.shape[1])
    return row, label


def _with_target(subject: Subject, at: tuple[int, int], target: float) -> Answer:
    y = subject.targets.clone()
    y[at] = target
    return ask(subject.loss, subject.logits, y)


def _odd(name: str, answer: Answer, usual: dict[float, Tensor], at: tuple[int, int]) -> Finding:
    if answer.error:
        return Finding(name, "ok", f"refused: {answer.error}")
    if not answer.finite:
        return Finding(name, "note", "value or gradient becomes NaN or infinite")
    given = float(answer.gradient[at])
    if given == 0:
        return Finding(name, "ok", "left out: no gradient")
    hard = {kind: float(usual[target][at]) for kind, target in (("a negative", 0.0), ("a positive", 1.0))}
    for kind, gradient in hard.items():
        if abs(given - gradient) < 1e-3 * abs(given):
            return Finding(name, "note", f"taken for {kind}, without a word")
    times = (f": {given / gradient:.3g} times the gradient of {kind}" for kind, gradient in hard.items() if gradient)
    return Finding(name, "note", f"counts, without a word{next(times, '')}")


def _soft(answer: Answer, usual: dict[float, Tensor], at: tuple[int, int]) -> Finding:
    if not answer.finite:
        return Finding("soft targets", "note", answer.error or "value or gradient becomes NaN or infinite")
    given, mixed = float(answer.gradient[at]), float(0.3 * usual[1.0][at] + 0.7 * usual[0.0][at])
    largest = max(abs(float(usual[target][at])) for target in usual)
    if abs(given) <= 1e-6 * largest:
        return Finding("soft targets", "note", "a target between 0 and 1 has no gradient: neither cost nor effect")
    if abs(given - mixed) <= 1e-3 * largest:
        return Finding("soft targets", "ok", "mix the gradients of a positive and a negative")
    if not largest:
        return Finding("soft targets", "note", "at 0.3 there is a gradient, where 0 and 1 have none")
    text = (
        f"at 0.3 the gradient is {given / largest:.2f} of a hard one, where the mix of both has {mixed / largest:.2f}"
    )
    return Finding("soft targets", "note", text)


def odd_batches(subject: Subject) -> Iterator[Finding]:
    """Tells what rows, and batches, do that have no positives, no negatives, or nothing at all."""
    z, y = subject.logits, subject.targets
    with_row = {target: torch.cat([torch.full_like(y[:1], target), y[1:]]) for target in (0.0, 1.0)}
    for name, targets in (
        ("row without positives", with_row[0.0]),
        ("row without negatives", with_row[1.0]),
        ("batch without positives", torch.zeros_like(y)),
    ):
        answer = ask(subject.loss, z, targets)
        text = "finite" if answer.finite else answer.error or "value or gradient is NaN or infinite"
        yield Finding(name, "ok" if answer.finite else "fault", text)
    answer = ask(subject.loss, z[:0], y[:0])
    text = "the value is 0" if answer.finite else answer.error or "the value is NaN, as that of torch's means"
    yield Finding("empty batch", "ok" if answer.finite else "note", text)


def cost(subject: Subject) -> Iterator[Finding]:
    """Measures the memory that is kept until the backward pass, and the time beside torch's cross-entropy."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(256, 500, generator=generator)
    y = (torch.rand(256, 500, generator=generator) < 0.05).float()
    if ask(subject.loss, z, y).error:
        return
    kept = _kept_bytes(subject.loss, z, y) / z.numel()
    yield Finding("memory", "ok", f"{kept:.3g} bytes a logit are kept for the backward pass, beside the inputs")
    own, usual = (_seconds(loss, z, y) for loss in (subject.loss, functional.binary_cross_entropy_with_logits))
    yield Finding("time", "ok", f"{own / usual:.2g} times that of torch's binary cross-entropy, forward and backward")


def _kept_bytes(loss: Loss, z: Tensor, y: Tensor) -> int:
    """Counts each piece of memory once."""
    z = z.clone().requires_grad_() * 1
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss(z, y)  # held, so that no memory is given back and counted as another's
    for given in (z, y):
        kept.pop(given.untyped_storage().data_ptr(), None)
    del value
    return sum(kept.values())


def _seconds(loss: Callable[[Tensor, Tensor], Tensor], z: Tensor, y: Tensor) -> float:
    times = []
    for _ in range(6):
        start = time.perf_counter()
        ask(loss, z, y)
        times.append(time.perf_counter() - start)
    return min(times[1:])
