"""Accuracy, range and derivatives of every variant."""

from functools import partial
from typing import Any

import mpmath
import pytest
import torch

import lopsided
from lopsided.losses import CATALOG
from lopsided.nn.functional import multilabel_loss
from tests import oracle
from tests.variants import LABEL_WISE, VARIANTS, every_derivative, every_variant, example, expected, rows


@pytest.mark.slow
@every_derivative
@pytest.mark.parametrize("soft", [False, True])
def test_slopes_are_derivatives_twice(spec: str, soft: bool) -> None:
    z, y = example(soft, labels=4)
    z.requires_grad_()
    mask = torch.rand(z.shape, generator=torch.Generator().manual_seed(1)) < 0.8
    assert torch.autograd.gradcheck(rows(spec, y, mask), z)
    assert torch.autograd.gradgradcheck(rows(spec, y, mask), z)


@every_variant
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_for_every_finite_logit(spec: str, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max / 4  # settings may multiply what a label costs
    points = [0.0, 1e-4, 0.5, 3, 10, 17, 20, 60, 88, 104, 710, 1e4, 6e4, largest]
    z = torch.tensor([[x * sign] for x in points for sign in (1, -1)], dtype=dtype, requires_grad=True)
    for y in (torch.zeros_like(z), torch.ones_like(z), torch.full_like(z, 0.3)):
        value = rows(spec, y.detach())(z)
        (grad,) = torch.autograd.grad(value.sum(), z)
        assert value.isfinite().all()
        assert grad.isfinite().all()
        assert value.dtype == (torch.float32 if dtype.itemsize == 2 else dtype)
        assert grad.dtype == dtype


@pytest.mark.parametrize("gamma", [0, 0.3, 0.5, 1, 2, 4, 7])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_finite_for_every_gamma(gamma: float, detach: bool, dtype: torch.dtype) -> None:
    points = [1e4, 60, 20, 17, 2.9444, 1, 1e-3, 0]
    z = torch.tensor([[sign * x] for x in points for sign in (1, -1)], dtype=dtype)
    for clip in (0, 0.001, 0.05, 0.5):
        loss = CATALOG["asl"](gamma, gamma, clip, detach)
        for target in (0.0, 1.0, 0.5):
            row = partial(multilabel_loss, targets=torch.full_like(z, target), loss=loss, reduction="none")
            assert row(z).isfinite().all()
            assert oracle.gradient(row, z).isfinite().all()


# the textbook formula must itself be finite where it is compared
@pytest.mark.parametrize("spec", VARIANTS)
def test_errors_in_float32_are_at_most_twice_the_textbooks(spec: str) -> None:
    z = (torch.rand(400, 9, generator=torch.Generator().manual_seed(0)) * 16 - 8).double().float()
    y = (torch.rand(400, 9, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    y[:, 0] = 1
    exact = [expected(spec, y.double())(z.double()), oracle.gradient(expected(spec, y.double()), z.double())]
    naive = [expected(spec, y)(z), oracle.gradient(expected(spec, y), z)]
    ours = [rows(spec, y)(z), oracle.gradient(rows(spec, y), z)]
    for truth, textbook, ours_ in zip(exact, naive, ours, strict=True):
        rounding = 2.0**-24 * truth.abs().max()  # of storing the result: a lucky textbook is not held against us
        theirs = (textbook.double() - truth).abs().max()
        assert (ours_.double() - truth).abs().max() <= 2 * torch.maximum(theirs, rounding)


POINTS = [-700, -90, -50, -20.5, -8, -2.9, -1, -0.01, 0, 0.3, 2, 9, 16.7, 20.5, 37, 90, 700]


def parts(spec: str, z: Any, y: int) -> tuple[Any, Any]:
    """Focusing weight and what it multiplies, of a label alone, by mpmath."""
    settings = {key: mpmath.mpf(value) for key, value in LABEL_WISE.get(spec, {}).items() if value is not None}
    if spec.startswith("hill"):
        settings = {key: mpmath.mpf(value) for key, value in HILLS[spec].items()}
        p = 1 / (1 + mpmath.exp(-(z - settings["margin"] * y)))
        return ((1 - p) ** settings["gamma"], -mpmath.log(p)) if y else (1, p * p * (settings["lamb"] - p))
    p = 1 / (1 + mpmath.exp(-z))
    zero = mpmath.mpf(0)
    if y:
        first, second = settings.get("epsilon_pos", zero), settings.get("epsilon_pos_pow", zero)
        base = -mpmath.log(p) - first * (1 - p) - second / 2 * (1 - p) ** 2
        return settings.get("alpha", 1) * (1 - p) ** settings.get("gamma_pos", zero), base
    r = max(p - settings.get("clip", zero), zero)
    base = -mpmath.log(1 - r) - settings.get("epsilon_neg", zero) * (1 - r)
    if "hill" in settings:
        base *= (settings["hill"] - p) * p * p * (settings["hill"] - 1 + r)
    weight = 1 - settings["alpha"] if "alpha" in settings else 1
    return weight * r ** settings.get("gamma_neg", zero), base


def exact(spec: str, z: float, y: int) -> tuple[float, float]:
    """Value and slope of a label alone, by mpmath."""
    with mpmath.workdps(400):  # 1 - p and its powers at |z| = 700
        at, step = mpmath.mpf(z), mpmath.mpf(10) ** -40
        focus, base = parts(spec, at, y)
        (focus_up, base_up), (focus_down, base_down) = parts(spec, at + step, y), parts(spec, at - step, y)
        if LABEL_WISE.get(spec, {}).get("detach_focus"):
            slope = focus * (base_up - base_down) / (2 * step)
        else:
            slope = (focus_up * base_up - focus_down * base_down) / (2 * step)
        return float(focus * base), float(slope)


HILLS = {
    "hill": {"gamma": 2, "margin": 1, "lamb": 1.5},
    "hill(gamma=1, margin=-0.5, lamb=2)": {"gamma": 1, "margin": -0.5, "lamb": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("spec", [*LABEL_WISE, *HILLS])
def test_accuracy_against_mpmath(spec: str) -> None:
    """Small numbers are held to the largest of the row: near a margin or a change of sign only that can be exact."""
    for dtype, unit in ((torch.float64, 2.0**-53), (torch.float32, 2.0**-24)):
        z = torch.tensor(POINTS, dtype=dtype)[:, None]
        for y in (0, 1):
            expected = torch.tensor([exact(spec, point, y) for point in z.squeeze(1).tolist()], dtype=torch.float64)
            targets = torch.full_like(z, y)
            value, slope = rows(spec, targets)(z).double(), oracle.gradient(rows(spec, targets), z).squeeze(1).double()
            torch.testing.assert_close(value, expected[:, 0], rtol=400 * unit, atol=20 * unit)
            torch.testing.assert_close(slope, expected[:, 1], rtol=400 * unit, atol=20 * unit)


@every_variant
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_logits_lose_nothing_but_the_rounding_of_the_gradient(spec: str, dtype: torch.dtype) -> None:
    z, y = example(labels=90)
    z = z.to(dtype)
    torch.testing.assert_close(rows(spec, y)(z), rows(spec, y)(z.float()), rtol=0, atol=0)
    wide = oracle.gradient(rows(spec, y), z.float())
    torch.testing.assert_close(oracle.gradient(rows(spec, y), z), wide.to(dtype), rtol=0, atol=0)


def test_zlpr_is_exact_beyond_the_range_of_exp() -> None:
    z = torch.tensor([[20.5, -3, 1e4], [-800, 2, 700]], dtype=torch.float64)
    y = torch.tensor([[1, 0, 1], [1, 0, 0]])
    with mpmath.workdps(5000):
        for row, target, value in zip(z.tolist(), y.tolist(), rows("zlpr", y)(z).tolist(), strict=True):
            up = 1 + sum(mpmath.exp(s) for s, t in zip(row, target, strict=True) if not t)
            down = 1 + sum(mpmath.exp(-s) for s, t in zip(row, target, strict=True) if t)
            assert value == pytest.approx(float(mpmath.log(up) + mpmath.log(down)), rel=1e-14)


@pytest.mark.parametrize("spec", ["bce", "asl", "asl(detach_focus=False)", "zlpr"])
def test_a_badly_missed_positive_keeps_its_gradient(spec: str) -> None:
    z = torch.tensor([[-50.0], [-19.0], [-1000.0]])
    grad = oracle.gradient(rows(spec, torch.ones(3, 1)), z)
    torch.testing.assert_close(grad, -torch.ones(3, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("spec", ["asl", "asl(gamma_neg=0)", "asl(gamma_neg=0.5, detach_focus=False)", "apl"])
def test_negatives_below_the_clip_cost_exactly_nothing(spec: str) -> None:
    z = torch.tensor([[-1e4, -20, -5, -2.945]])
    assert rows(spec, torch.zeros_like(z))(z).item() == 0
    assert oracle.gradient(rows(spec, torch.zeros_like(z)), z).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("soft", [False, True])
def test_binary_cross_entropy_is_torchs(dtype: torch.dtype, soft: bool) -> None:
    z, y = (tensor.to(dtype) for tensor in example(soft, labels=80))
    theirs = torch.nn.BCEWithLogitsLoss()
    torch.testing.assert_close(lopsided.BinaryCrossEntropyLoss()(z, y), theirs(z, y), rtol=2e-7, atol=0)
    ours = oracle.gradient(lambda z: lopsided.BinaryCrossEntropyLoss()(z, y), z)
    torch.testing.assert_close(ours, oracle.gradient(lambda z: theirs(z, y), z))


# with gamma_neg=0, the official constant is what a negative costs at least; bp_mll costs at least e^-2 a pair,
# a softmax of infinite logits is not defined, nor the mean of inf and -inf
COSTLY = ("bp_mll", "softmax", "ncrl", "ncrl(clip=0.05)", "apl(gamma_neg=0, epsilon_neg=-0.5, clip=0.1)")


@pytest.mark.parametrize("spec", [spec for spec in VARIANTS if spec not in COSTLY])
def test_infinite_logits_on_the_right_side_cost_nothing(spec: str) -> None:
    for truth in ([1, 0], [1], [0], [0, 0]):
        y = torch.tensor([truth])
        z = torch.where(y > 0, torch.inf, -torch.inf).double()
        assert rows(spec, y)(z).item() == 0
        assert oracle.gradient(rows(spec, y), z).abs().max() == 0


@pytest.mark.parametrize("spec", ["ncrl", "ncrl(clip=0.05)"])
def test_an_infinite_logit_on_the_right_side_costs_what_a_large_one_does(spec: str) -> None:
    for y in torch.tensor([[[1, 0]], [[0, 0]], [[1, 1]]]):
        infinite, large = (torch.tensor([[x, 1.0]], dtype=torch.float64) * (2 * y - 1) for x in (torch.inf, 1e4))
        torch.testing.assert_close(rows(spec, y)(infinite), rows(spec, y)(large))
        torch.testing.assert_close(*(oracle.gradient(rows(spec, y), z) for z in (infinite, large)))


@pytest.mark.parametrize("spec", ["bce", "mean_sat", "hinge_abl", "atl"])
def test_infinite_logits_on_the_wrong_side_cost_without_end_and_are_pulled_back(spec: str) -> None:
    z, y = torch.tensor([[-torch.inf, torch.inf]], dtype=torch.float64), torch.tensor([[1, 0]])
    assert rows(spec, y)(z).item() == torch.inf
    assert oracle.gradient(rows(spec, y), z).tolist() == [[-1, 1]]
