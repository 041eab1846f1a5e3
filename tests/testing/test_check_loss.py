"""`check_loss` passes what is right, and says what is wrong with what is not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lopsided.losses import Curve, Formula, Pool, Sum
from lopsided.losses.curves import Values, exponent, polynomial_negative, polynomial_positive
from lopsided.losses.pools import Pair
from lopsided.losses.vocabulary import logistic
from lopsided.testing import check_loss
from tests.variants import DERIVATIVES, every_variant


@pytest.mark.slow
@every_variant
def test_the_catalog_passes(spec: str) -> None:
    """Under ncrl the none class, which is no label of the row, pushes negatives up beside a positive."""
    monotone = "monotone=False" not in spec and not spec.startswith("ncrl")
    check_loss(spec, derivative=spec in DERIVATIVES, monotone=monotone)


def naive_positive(z: Tensor) -> Values:
    p = torch.sigmoid(z)
    return -torch.log(p), p - 1


def clamped_positive(z: Tensor) -> Values:
    """The official clamp, where it shows within the logits that are examined."""
    p = torch.sigmoid(z)
    return -torch.log(p.clamp_min(1e-2)), p - 1


def doubled_slope(z: Tensor) -> Values:
    value, slope = polynomial_positive(z)
    return value, 2 * slope


def wrong_way(z: Tensor) -> Values:
    p, q = logistic(z)
    return p * q, p * q * (q - p)


def imprecise(z: Tensor) -> Values:
    value, slope = polynomial_positive(z)
    return value + 1e-4 * (z.dtype == torch.float32), slope


class Leaky(Sum):
    def fold(self, values: Pair, weights: Pair) -> Tensor:
        return super().fold(values, (weights[0].clamp_min(1e-3), weights[1]))


class Mixing(Sum):
    def fold(self, values: Pair, weights: Pair) -> Tensor:
        return super().fold(values, weights) - super().fold(values, weights).mean()


class RandomPool(Sum):
    def fold(self, values: Pair, weights: Pair) -> Tensor:
        return super().fold(values, weights) + 0 * torch.rand(())


def of(positive: Callable[..., Values], pool: Pool | None = None) -> Formula:
    return Formula(Curve(positive), Curve(polynomial_negative), pool or Sum())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (of(naive_positive), "not finite in torch.float16 at logit -90, target 1"),
        (of(clamped_positive), "a slope is not the derivative of its value"),
        (of(doubled_slope), "a slope is not the derivative of its value"),
        (of(wrong_way), "a label with target 1 is pushed the wrong way"),
        (of(imprecise), "the value in float32 is off by"),
        (of(polynomial_positive, Leaky()), "a label of weight 0 changes the value"),
        (of(polynomial_positive, Mixing()), "the value of a row depends on the other rows"),
        (of(polynomial_positive, RandomPool()), "draws random numbers"),
        (
            Formula(Curve(exponent, (("scale", -1.0),)), Curve(exponent, (("scale", -1.0),)), Sum()),
            "target 0 is pushed",
        ),
    ],
)
def test_what_is_wrong_is_said(loss: Formula, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_loss(loss, derivative="derivative" in message)
