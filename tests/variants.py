"""Every loss of the catalog, in every published variant, for the tests that hold for all of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lopsided.compute import eager
from lopsided.losses import formula
from lopsided.nn.functional import multilabel_loss
from lopsided.targets import Supervision
from tests import oracle

ASL = {"gamma_neg": 4, "gamma_pos": 0, "clip": 0.05}
APL = ASL | {"epsilon_pos": 1.0, "epsilon_neg": 0.0, "epsilon_pos_pow": -2.5}

# spec -> the same loss in the oracle's ASL and APL
LABEL_WISE: dict[str, dict[str, Any]] = {
    "bce": {},
    "soft_margin": {},
    "sat": {},
    "focal": {"gamma_neg": 2, "gamma_pos": 2},
    "focal(gamma=0.5)": {"gamma_neg": 0.5, "gamma_pos": 0.5},
    "focal(alpha=0.25)": {"gamma_neg": 2, "gamma_pos": 2, "alpha": 0.25},
    "focal(gamma=3.7, detach_focus=True)": {"gamma_neg": 3.7, "gamma_pos": 3.7, "detach_focus": True},
    "asl": ASL | {"detach_focus": True},
    "asl(detach_focus=False)": ASL,
    "asl(gamma_pos=1)": ASL | {"gamma_pos": 1, "detach_focus": True},
    "asl(gamma_neg=0, clip=0.2)": {"clip": 0.2},
    "asl(gamma_neg=1, clip=0.001, detach_focus=False)": {"gamma_neg": 1, "clip": 0.001},
    "asl(gamma_neg=7, clip=0)": {"gamma_neg": 7, "detach_focus": True},
    "asl(gamma_neg=0.3, gamma_pos=0.3, detach_focus=False)": {"gamma_neg": 0.3, "gamma_pos": 0.3, "clip": 0.05},
    "asl(gamma_neg=9, gamma_pos=1.3, clip=0.2, detach_focus=False)": {"gamma_neg": 9, "gamma_pos": 1.3, "clip": 0.2},
    "apl": APL | {"detach_focus": True},
    "apl(detach_focus=False)": APL,
    "apl(epsilon_neg=1)": APL | {"epsilon_neg": 1, "detach_focus": True},
    "apl(gamma_neg=2, gamma_pos=1, clip=0, epsilon_pos=-1, epsilon_neg=0.5, epsilon_pos_pow=0, detach_focus=False, "
    "monotone=False)": {"gamma_neg": 2, "gamma_pos": 1, "epsilon_pos": -1, "epsilon_neg": 0.5},
    "apl(gamma_neg=0, epsilon_neg=-0.5, clip=0.1)": APL | {"gamma_neg": 0, "epsilon_neg": -0.5, "clip": 0.1},
    "ral": APL | {"hill": 1.5},
    "ral(gamma_neg=2, gamma_pos=1, clip=0, lamb=2, detach_focus=True)": APL
    | {"gamma_neg": 2, "gamma_pos": 1, "clip": 0, "hill": 2, "detach_focus": True},
}
# spec -> function and settings
OTHERS: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "apl(gamma_neg=0, clip=0, alphas=(0.5, 1, 0, 0.25), betas=(1.5, 0.2))": (
        oracle.taylor,
        {"alphas": (0.5, 1, 0, 0.25), "betas": (1.5, 0.2)},
    ),
    "hill": (oracle.hill, {}),
    "hill(gamma=1, margin=-0.5, lamb=2)": (oracle.hill, {"gamma": 1, "margin": -0.5, "lamb": 2}),
    "squared_hinge": (oracle.squared_hinge, {}),
    "zlpr": (oracle.zlpr, {}),
    "zlpr(threshold=1.5, scale=2, margin=0.3)": (oracle.zlpr, {"threshold": 1.5, "scale": 2, "margin": 0.3}),
    "lsep": (oracle.lsep, {}),
    "two_way": (oracle.two_way_rows, {}),
    "two_way(temperature_pos=2, temperature_neg=1.5)": (
        oracle.two_way_rows,
        {"temperature_pos": 2, "temperature_neg": 1.5},
    ),
    "bp_mll": (oracle.bp_mll, {}),
    "softmax": (oracle.softmax, {}),
    "atl": (oracle.atl, {}),
    "mean_sat": (oracle.side_means, {}),
    "hinge_abl": (oracle.side_means, {"margin": 5}),
    "hinge_abl(margin=1)": (oracle.side_means, {"margin": 1}),
    "ncrl": (oracle.none_class_ranking, {}),
    "ncrl(clip=0.05)": (oracle.none_class_ranking, {"clip": 0.05}),
    "decoupled": (oracle.decoupled, {}),
    "aml": (oracle.hinge, {}),
}
VARIANTS = [*LABEL_WISE, *OTHERS]
DERIVATIVES = [spec for spec in VARIANTS if "detach_focus" not in LABEL_WISE.get(spec, {})]
every_variant = pytest.mark.parametrize("spec", VARIANTS)
every_derivative = pytest.mark.parametrize("spec", DERIVATIVES)


def expected(spec: str, y: Tensor) -> Callable[[Tensor], Tensor]:
    function, settings = OTHERS.get(spec) or (oracle.asymmetric_polynomial, LABEL_WISE[spec])
    return lambda z: function(z, y, **settings)


def rows(spec: str, y: Tensor, mask: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """By the eager executor, the reference. One way of the loss: the other of a two-way loss has tests of its own."""
    loss = formula(spec)
    if loss.pool.transposed:
        return lambda z: eager.rows(loss, z, Supervision(y, mask=mask)).values
    return lambda z: multilabel_loss(z, y, loss, mask=mask, reduction="none", backend="eager")


def example(soft: bool = False, labels: int = 9) -> tuple[Tensor, Tensor]:
    """Float64 logits from -8 to 8 and targets with an all-negative and an all-positive row."""
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(6, labels, generator=generator, dtype=torch.float64) * 16 - 8
    y = torch.rand(6, labels, generator=generator, dtype=torch.float64)
    y = y if soft else (y < 0.3).double()
    y[0], y[1] = 0, 1
    assert z.min() < -6 < 6 < z.max()
    assert y[2:].std() > 0.1
    return z, y
