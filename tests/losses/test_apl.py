"""The polynomial loss: series, identities, and the ranges in which it stays monotone."""

import pytest
import torch

from lopsided.losses import CATALOG, formula
from tests import oracle
from tests.variants import example, rows


def test_taylor_series_of_two_hundred_terms() -> None:
    """Straight from the paper: sum_m alpha_m (1-p)^m and sum_n beta_n p^n, the tails being 1/m and 1/n."""
    z = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    p = torch.sigmoid(z)
    alphas, betas = (0.0, 1.75, 0.5), (1.2, 0.1)
    spec = f"apl(gamma_neg=0, clip=0, alphas={alphas}, betas={betas})"
    for x, leading, y in ((1 - p, alphas, torch.ones_like(z)), (p, betas, torch.zeros_like(z))):
        coefficients = [*leading, *(1 / order for order in range(len(leading) + 1, 201))]
        series = sum(c * x**order for order, c in enumerate(coefficients, start=1))
        torch.testing.assert_close(rows(spec, y)(z), series.squeeze(1), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("spec", "other"),
    [
        ("apl(alphas=(1, 0.5, 0.25), betas=(1,), gamma_neg=0, clip=0, monotone=False)", None),
        ("apl(alphas=(1, 0.5), betas=(1, 0.5, 0.3333333333333333), gamma_neg=0, clip=0)", "bce"),
        ("apl(alphas=(1,), betas=(), detach_focus=True)", "asl"),
        ("apl(alphas=(0, 1.75))", "apl"),
        ("apl(alphas=(), betas=(), gamma_neg=2, gamma_pos=2, clip=0, detach_focus=False)", "focal"),
    ],
)
def test_identities(spec: str, other: str | None) -> None:
    """At the coefficients of the logarithm, or of the official epsilons, it is another loss of the catalog."""
    assert (formula(spec) == formula(other)) if other else formula(spec) != formula("bce")


@pytest.mark.parametrize("epsilon", [-0.5, 0.5, 2.0])
def test_poly_1_is_one_coefficient(epsilon: float) -> None:
    """PolyLoss, arXiv 2204.12511: cross-entropy + epsilon (1 - p_t), for both sides."""
    z, y = example()
    p = torch.sigmoid(z)
    right = torch.where(y > 0, p, 1 - p)
    poly = (-torch.log(right) + epsilon * (1 - right)).sum(1)
    spec = f"apl(gamma_neg=0, clip=0, alphas=({1 + epsilon},), betas=({1 + epsilon},))"
    torch.testing.assert_close(rows(spec, y)(z), poly)


def test_the_official_constant_is_there_only_with_epsilons() -> None:
    z, zero = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, 1)
    shared = "gamma_neg=0, clip=0, detach_focus=True"
    with_constant = rows(f"apl(epsilon_neg=-0.5, {shared})", zero)(z)
    without = rows(f"apl(betas=(0.5,), {shared})", zero)(z)
    assert (with_constant - without).item() == pytest.approx(0.5)
    gradients = [
        oracle.gradient(rows(spec, zero), z)
        for spec in (f"apl(epsilon_neg=-0.5, {shared})", f"apl(betas=(0.5,), {shared})")
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("settings", "side"),
    [
        ({"epsilon_pos": 1.001}, "positive"),
        ({"epsilon_pos": 1.0, "epsilon_pos_pow": 2.0}, "positive"),
        ({"alphas": (-0.01,)}, "positive"),
        ({"alphas": (0, 0, -3)}, "positive"),
        ({"epsilon_neg": -1.01}, "negative"),
        ({"epsilon_neg": 0.5, "detach_focus": False}, "negative"),
        ({"betas": (0.5, -2)}, "negative"),
    ],
)
def test_settings_that_train_labels_the_wrong_way_are_refused(settings: dict[str, object], side: str) -> None:
    with pytest.raises(ValueError, match=f"would train {side} labels the wrong way, at p = .*monotone=False"):
        CATALOG["apl"](**settings)
    loss = CATALOG["apl"](**settings, monotone=False)
    z = torch.linspace(-25, 25, 4001, dtype=torch.float64)
    slope = torch.as_tensor((loss.positive if side == "positive" else loss.negative)(z)[1])
    assert (slope.max() > 0) if side == "positive" else (slope.min() < 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"epsilon_pos": 1.0, "epsilon_pos_pow": -10.0},
        {"epsilon_pos": -3.0, "epsilon_pos_pow": 0.0},
        {"epsilon_neg": -1.0},
        {"epsilon_neg": 3.0, "detach_focus": True},
        {"epsilon_neg": -0.5, "detach_focus": False},
        {"alphas": (0, 0, 0, 5), "betas": (0, 0, 3)},
    ],
)
def test_settings_inside_the_range_are_taken(settings: dict[str, object]) -> None:
    CATALOG["apl"](**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alphas": (1,), "epsilon_pos": 0.5}, "give alphas or epsilon_pos and epsilon_pos_pow, not both"),
        ({"betas": (1,), "epsilon_neg": -0.5}, "give betas or epsilon_neg, not both"),
        ({"alphas": 1.0}, r"alphas must be numbers such as \(1, 0.5\), got 1.0"),
        ({"betas": (1, float("nan"))}, r"betas\[1\] must be finite"),
    ],
)
def test_contradictions_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        CATALOG["apl"](**settings)
