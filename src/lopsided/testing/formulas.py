"""Examines a formula: the battery that every loss of the catalog passes, for curves of your own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lopsided.compute import eager
from lopsided.losses import Formula, as_formula
from lopsided.targets import Supervision

_HALF = (torch.float16, torch.bfloat16)
_DTYPES = (*_HALF, torch.float32, torch.float64)
_FAR = (0.0, 1e-4, 0.5, 3.0, 17.0, 20.0, 60.0, 90.0, 104.0, 710.0, 1e4)


def check_loss(loss: Formula | str, *, derivative: bool = True, monotone: bool = True) -> None:
    """Examines a loss; raises AssertionError that says what is wrong, with an example.

    Checked: slopes against numerical derivatives, once and twice; the direction in which a label is pushed; finite
    values and gradients for logits up to 1e4 in every float dtype; float32 results for 16-bit logits, and gradients
    in the dtype of the logits; float32 against float64; labels of weight 0, even with NaN logits; rows that do not
    see each other; the random state.

    Args:
        loss: made of your curves and a pool, `Formula(Curve(my_positive), Curve(my_negative), Sum())`, or a name.
        derivative: False where a slope is deliberately not the derivative of its value, as with a detached focus.
        monotone: False where a label may be pushed the wrong way.

    >>> from lopsided.losses import Curve, Formula, Sum
    >>> from lopsided.losses.curves import Values
    >>> from lopsided.losses.vocabulary import logistic
    >>> def squared_positive(z: Tensor) -> Values:  # (1 - p)^2
    ...     p, q = logistic(z)
    ...     return q * q, -2 * p * q * q
    >>> def squared_negative(z: Tensor) -> Values:  # p^2
    ...     p, q = logistic(z)
    ...     return p * p, 2 * p * p * q
    >>> check_loss(Formula(Curve(squared_positive), Curve(squared_negative), Sum()))
    """
    formula = as_formula(loss)
    if derivative:
        _check_slopes(formula)
    if monotone:
        _check_direction(formula)
    _check_finite(formula)
    _check_precision(formula)
    _check_absent_labels(formula)
    _check_rows_are_independent(formula)
    _check_randomness(formula)


def _rows(formula: Formula, y: Tensor, mask: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    return lambda z: eager.rows(formula, z, Supervision(y, mask=mask)).values


def _example() -> tuple[Tensor, Tensor]:
    """Returns logits (5, 4) from -8 to 8 and targets: rows of negatives, of positives, mixed twice, and soft."""
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(5, 4, generator=generator, dtype=torch.float64)
    z = torch.tensor([-8.0, -2.0, 1.0, 5.0]) + 3 * z
    y = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0], [0.2, 0.9, 0.5, 0]], dtype=torch.float64)
    return z, y


def _value_and_grad(rows: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.detach().clone().requires_grad_()
    value = rows(z)
    return value.detach(), torch.autograd.grad(value.sum(), z)[0]


def _check_slopes(formula: Formula) -> None:
    z, y = _example()
    z.requires_grad_()
    for name, check in (("slope", torch.autograd.gradcheck), ("second derivative", torch.autograd.gradgradcheck)):
        try:
            check(_rows(formula, y), z)
        except RuntimeError as error:
            raise AssertionError(
                f"{formula}: a {name} is not the derivative of its value; if so meant, pass derivative=False\n{error}"
            ) from None


def _check_direction(formula: Formula) -> None:
    """Checks signs in a row with a label of the other kind, so that losses which compare labels can."""
    z = torch.linspace(-30, 30, 601, dtype=torch.float64)
    row = torch.stack([z, torch.zeros_like(z)], 1)
    for target, sign in ((1.0, -1), (0.0, 1)):
        y = torch.tensor([target, 1 - target], dtype=torch.float64).expand_as(row)
        slope = _value_and_grad(_rows(formula, y), row)[1][:, 0] * sign
        assert (slope >= -1e-12).all(), (
            f"{formula}: at logit {z[slope.argmin()]:g} a label with target {target:g} is pushed the wrong way, by "
            f"{-slope.min():g}; if that is meant, pass monotone=False"
        )


def _check_finite(formula: Formula) -> None:
    for dtype in _DTYPES:
        z = torch.tensor([[sign * x, 0.0] for x in _FAR for sign in (1, -1)], dtype=dtype)
        for target in (0.0, 1.0, 0.3):
            y = torch.tensor([target, 1 - target], dtype=torch.float64).expand_as(z)
            value, grad = _value_and_grad(_rows(formula, y), z)
            wide = torch.float32 if dtype in _HALF else dtype
            assert value.dtype == wide, f"{formula}: {dtype} logits give a value in {value.dtype}, not {wide}"
            assert grad.dtype == dtype, f"{formula}: {dtype} logits get a gradient in {grad.dtype}"
            broken = ~(value.isfinite() & grad.isfinite().all(1))
            assert not broken.any(), (
                f"{formula}: value or gradient is not finite in {dtype} at logit {z[broken][0, 0]:g}, target {target:g}"
            )


def _check_precision(formula: Formula) -> None:
    z, y = _example()
    z = z.float().double()  # the same numbers in both
    narrow, wide = (_value_and_grad(_rows(formula, y), z.to(dtype)) for dtype in (torch.float32, torch.float64))
    for name, one, other in zip(("value", "gradient"), narrow, wide, strict=True):
        error = ((one - other).abs() / other.abs().clamp_min(1e-2)).max()
        assert error < 1e-5, f"{formula}: the {name} in float32 is off by {error:.1e}, relative to float64"


def _check_absent_labels(formula: Formula) -> None:
    z, y = _example()
    present = torch.tensor([True, False, True, True])
    poisoned = z.masked_fill(~present, torch.nan)
    value, grad = _value_and_grad(_rows(formula, y, present.expand_as(z)), poisoned)
    expected_value, expected_grad = _value_and_grad(_rows(formula, y[:, present]), z[:, present])
    assert torch.allclose(value, expected_value), f"{formula}: a label of weight 0 changes the value"
    assert torch.allclose(grad[:, present], expected_grad), f"{formula}: a label of weight 0 changes other gradients"
    assert (grad[:, ~present] == 0).all(), f"{formula}: a label of weight 0 gets a gradient"


def _check_rows_are_independent(formula: Formula) -> None:
    z, y = _example()
    together = _rows(formula, y)(z)
    alone = torch.cat([_rows(formula, y[i : i + 1])(z[i : i + 1]) for i in range(len(z))])
    assert torch.allclose(together, alone), f"{formula}: the value of a row depends on the other rows"


def _check_randomness(formula: Formula) -> None:
    z, y = _example()
    state = torch.get_rng_state()
    _rows(formula, y)(z)
    assert torch.equal(state, torch.get_rng_state()), f"{formula}: draws random numbers"
