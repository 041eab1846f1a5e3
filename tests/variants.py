"""Every loss of the catalog, in every published variant, for the tests that hold for all of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import lopsided
from lopsided.functional import multilabel_loss
from tests import oracle

ASL = {"gamma_neg": 4, "gamma_pos": 0, "clip": 0.05}
APL = ASL | {"epsilon_pos": 1.0, "epsilon_neg": 0.0, "epsilon_pos_pow": -2.5}

# spec -> the same loss in the oracle
VARIANTS: dict[str, dict[str, Any]] = {
    "bce": {},
    "focal": {"gamma_neg": 2, "gamma_pos": 2},
    "focal(gamma=0.5)": {"gamma_neg": 0.5, "gamma_pos": 0.5},
    "focal(gamma=3.7, detach_focus=True)": {"gamma_neg": 3.7, "gamma_pos": 3.7, "detach_focus": True},
    "asl": ASL | {"detach_focus": True},
    "asl(detach_focus=False)": ASL,
    "asl(gamma_pos=1)": ASL | {"gamma_pos": 1, "detach_focus": True},
    "asl(gamma_neg=0, clip=0.2)": {"clip": 0.2},
    "asl(gamma_neg=7, clip=0)": {"gamma_neg": 7, "detach_focus": True},
    "asl(gamma_neg=0.3, gamma_pos=0.3, detach_focus=False)": {"gamma_neg": 0.3, "gamma_pos": 0.3, "clip": 0.05},
    "asl(gamma_neg=9, gamma_pos=1.3, clip=0.2, detach_focus=False)": {"gamma_neg": 9, "gamma_pos": 1.3, "clip": 0.2},
    "apl": APL | {"detach_focus": True},
    "apl(detach_focus=False)": APL,
    "apl(epsilon_neg=1)": APL | {"epsilon_neg": 1, "detach_focus": True},
    "apl(gamma_neg=2, gamma_pos=1, clip=0, epsilon_pos=-1, epsilon_neg=0.5, epsilon_pos_pow=0, detach_focus=False)": {
        "gamma_neg": 2,
        "gamma_pos": 1,
        "epsilon_pos": -1,
        "epsilon_neg": 0.5,
    },
    "apl(gamma_neg=0, epsilon_neg=-0.5, clip=0.1)": APL | {"gamma_neg": 0, "epsilon_neg": -0.5, "clip": 0.1},
    "zlpr": {},
}
DERIVATIVES = [spec for spec, settings in VARIANTS.items() if "detach_focus" not in settings]
every_variant = pytest.mark.parametrize("spec", VARIANTS)
every_derivative = pytest.mark.parametrize("spec", DERIVATIVES)


def expected(spec: str, y: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda z: oracle.zlpr(z, y) if spec == "zlpr" else oracle.asymmetric_polynomial(z, y, **VARIANTS[spec])


def rows(spec: str, y: Tensor, mask: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    return lambda z: multilabel_loss(z, y, lopsided.loss(spec), mask=mask, reduction="none")


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
