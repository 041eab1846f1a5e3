"""The streamed executor against the eager one: every loss, every kind of targets, any cut into blocks."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import lopsided
from lopsided.compute import blocks, eager
from lopsided.losses import CATALOG, Curve, Formula, Pool, Sum, formula
from lopsided.losses.curves import polynomial_negative, polynomial_positive
from lopsided.losses.pools import Pair
from lopsided.targets import Supervision
from tests.batches import batch, said
from tests.variants import every_variant


def compare(loss: Formula, z: Tensor, labels: Supervision) -> None:
    leaf = z.detach().requires_grad_()
    expected = eager.rows(loss, leaf, labels).values
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    value, found = blocks.rows(loss, z, labels)[:2]
    torch.testing.assert_close(value, expected.detach(), equal_nan=True)
    torch.testing.assert_close(found, gradient, equal_nan=True)
    alone, nothing = blocks.rows(loss, z, labels, with_gradient=False)[:2]
    assert nothing is None
    torch.testing.assert_close(alone, value, equal_nan=True)


@every_variant
@pytest.mark.parametrize("density", [0.02, 0.5])
def test_every_loss(spec: str, density: float) -> None:
    z, y = batch(7, 90, density)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        compare(formula(spec), z.to(dtype), Supervision(y))


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("cached", [100, *(pytest.param(some, marks=pytest.mark.slow) for some in (1, 1 << 18))])
def test_every_kind_of_labels_cut_anywhere(name: str, cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_CACHED", max(cached // torch.get_num_threads(), 1))
    z, y = batch(5, 40)
    for labels in said(z, y):
        compare(formula(name), z, labels)


@pytest.mark.parametrize("name", CATALOG)
def test_infinite_and_missing_logits(name: str) -> None:
    z, y = batch(4, 30)
    y[:, :2] = torch.tensor([1.0, 0.0])
    z[0, 0], z[0, 1], z[1, 3] = torch.inf, -torch.inf, torch.nan
    compare(formula(name), z, Supervision(y))
    compare(formula(name), z, Supervision(y, mask=~z.isnan()))


@dataclass(frozen=True)
class Dearest(Pool):
    """The dearest positive and the dearest negative. Its coefficients are not 0 where a weight is."""

    counts = "rows"

    def fold(self, values: Pair, weights: Pair) -> Tensor:
        return torch.stack([torch.where(a > 0, v, 0.0).amax(-1) for v, a in zip(values, weights, strict=True)])

    def merge(self, states: Tensor) -> Tensor:
        return states.amax(0)

    def value(self, state: Tensor) -> Tensor:
        return state.sum(0)

    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        return (values[0] == state[0, ..., None]).to(state.dtype), (values[1] == state[1, ..., None]).to(state.dtype)


def test_a_pool_of_ones_own_is_only_read_where_the_weight_is_positive() -> None:
    y = torch.zeros(2, 40, dtype=torch.float64)
    y[:, 0] = 1
    compare(
        Formula(Curve(polynomial_positive), Curve(polynomial_negative), Dearest()), torch.zeros_like(y), Supervision(y)
    )


def test_both_halves_of_a_two_way_loss_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_CACHED", 50)
    z, y = batch(30, 40)
    weight = torch.rand(40, dtype=torch.float64)
    values = [
        lopsided.MultiLabelLoss("two_way", pos_weight=weight, backend=backend)(z, y)
        for backend in ("streamed", "eager")
    ]
    torch.testing.assert_close(*values)


def test_curves_that_overflow_are_still_removed_by_a_weight_of_0() -> None:
    def rough(z: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.log(1 - torch.sigmoid(z)), torch.sigmoid(z)

    loss = Formula(Curve(polynomial_positive), Curve(rough), Sum())
    compare(loss, torch.full((2, 30), 50.0), Supervision(torch.ones(2, 30)))
    compare(loss, torch.randn(30, 2).T, Supervision((torch.rand(30, 2) < 0.05).float().T))


def test_through_the_module() -> None:
    z, y = batch(6, 40)
    for reduction in ("mean", "sum", "none"):
        results = []
        for backend in ("streamed", "eager"):
            leaf = z.clone().requires_grad_()
            value = lopsided.AsymmetricLoss(reduction=reduction, backend=backend)(leaf, y)
            value.square().sum().backward()
            results.append((value, leaf.grad))
        torch.testing.assert_close(*results)
    leaf = z.clone().requires_grad_()
    value = lopsided.AsymmetricLoss(backend="streamed")(leaf, y)
    with pytest.raises(RuntimeError, match="only the eager executor has second derivatives"):
        torch.autograd.grad(value, leaf, create_graph=True)
