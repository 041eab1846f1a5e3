"""Third curves, for labels that nobody marked, and what chooses among them: against the published codes' forms."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

import lopsided
from lopsided.losses import UNKNOWN, UNKNOWN_SOURCES, between, formula
from lopsided.losses.closed_form import posterior
from lopsided.nn.functional import multilabel_loss
from lopsided.nn.partial import expected_positives, partial_loss
from lopsided.testing import check_loss
from tests import oracle


def batch() -> tuple[Tensor, Tensor]:
    """Logits, and which labels are listed as positive."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(6, 9, generator=generator, dtype=torch.float64) * 3
    return z, (torch.rand(6, 9, generator=generator) < 0.3).double()


def of_entries(listed: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda z, y: torch.where(y == 1, listed(z), other(z)).sum(-1)


def missed(z: Tensor) -> Tensor:
    return -torch.log(torch.sigmoid(z))


def focal(z: Tensor, gamma: float) -> Tensor:
    return (1 - torch.sigmoid(z)) ** gamma * missed(z)


def entropy(p: Tensor) -> Tensor:
    return -p * torch.log(p) - (1 - p) * torch.log(1 - p)


def robust(z: Tensor, w: float, b: float, mu: float, sigma: float, a: float, c: float) -> Tensor:
    p = torch.sigmoid(z)
    k, v = 1 / (1 + torch.exp(-(w * p.detach() + b))), torch.exp(-0.5 * ((p.detach() - mu) / sigma) ** 2)
    return v * (k * (1 - p**a) / a + (1 - k) * (1 - (1 - p) ** c) / c)


def corrected(z: Tensor, tau: float, gamma: float) -> Tensor:
    return torch.where(torch.sigmoid(z) > tau, focal(z, gamma), focal(-z, gamma))


PUBLISHED = {
    "wan": of_entries(missed, lambda z: 0.05 * missed(-z)),
    "wan(weight=0.125)": of_entries(missed, lambda z: missed(-z) / 8),
    "em": of_entries(missed, lambda z: -0.1 * entropy(torch.sigmoid(z))),
    "splc": of_entries(lambda z: focal(z - 1, 2), lambda z: corrected(z, 0.6, 2)),
    "splc(tau=0.3, margin=0.5, gamma=0)": of_entries(lambda z: missed(z - 0.5), lambda z: corrected(z, 0.3, 0)),
    "splc(tau=0)": of_entries(lambda z: focal(z - 1, 2), lambda z: corrected(z, 0, 2)),
    "gr": of_entries(missed, lambda z: robust(z, 0, -2, 0.5, 2, 0.01, 1)),
    "gr(steepness=2, middle=0.8, width=0.5, power_neg=0.7)": of_entries(
        missed, lambda z: robust(z, 2, -2, 0.8, 0.5, 0.01, 0.7)
    ),
}


@pytest.mark.parametrize("spec", PUBLISHED)
def test_value_and_gradient_are_the_published_ones(spec: str) -> None:
    (z, y), published = batch(), PUBLISHED[spec]
    listed = lopsided.SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in y])
    expected = oracle.gradient(lambda z: published(z, y), z)
    for targets, backend in ((y, "auto"), (listed, "auto"), (y, "eager"), (y, "streamed")):

        def ours(z: Tensor, targets: object = targets, backend: str = backend) -> Tensor:
            return multilabel_loss(z, targets, spec, reduction="none", backend=backend)  # type: ignore[arg-type]

        torch.testing.assert_close(ours(z), published(z, y), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(oracle.gradient(ours, z), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_head_takes_it_without_logits(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(size, 4, generator=generator, dtype=torch.float64) for size in (5, 70))
    weight.requires_grad_()
    listed = lopsided.SparseTargets.from_indices([[3], [], [0, 69], [5], [7, 8, 9]])
    found = lopsided.linear_loss(hidden, weight, None, listed, name, chunk=32)
    expected = multilabel_loss(hidden @ weight.T, listed, name)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, weight)[0] for value in (found, expected)))


@pytest.mark.slow
@pytest.mark.parametrize("name", UNKNOWN)
def test_curves_are_sound(name: str) -> None:
    if name == "splc":  # it jumps, where a slope of differences is none
        for dtype in (torch.float16, torch.float32):
            z = torch.tensor([[-1e4, -90, 0, 17, 90, 1e4]], dtype=dtype, requires_grad=True)
            multilabel_loss(z, torch.zeros(1, 6), name).backward()
            assert z.grad is not None
            assert z.grad.isfinite().all()
        return
    check_loss(name, derivative=name != "gr", monotone=False)


def test_known_negatives_are_negatives_and_the_rest_is_unknown() -> None:
    z, y = batch()
    known = torch.rand(6, 9, generator=torch.Generator().manual_seed(1)) < 0.5
    given = y.masked_fill(~known, torch.nan)
    found = partial_loss(z, given, "bce", mode="negative", unknown_loss="em(alpha=0.2)", reduction="sum")
    costs = torch.where(known, cross_entropy(z, y, reduction="none"), -0.2 * entropy(torch.sigmoid(z)))
    torch.testing.assert_close(found, costs.sum())


@pytest.mark.parametrize("mode", ["selective", "flip"])
@pytest.mark.parametrize("share", [0.02, 0.2])
def test_large_losses_are_rejected_or_corrected(mode: str, share: float) -> None:
    """LL-R and LL-Ct: of all entries of the batch a share, those unlisted whose loss as a negative is largest."""
    z, y = batch()
    as_negative = torch.where(y == 1, 0, cross_entropy(z, torch.zeros_like(z), reduction="none"))
    largest = as_negative >= as_negative.flatten().topk(math.ceil(share * z.numel())).values[-1]
    instead = cross_entropy(z, torch.ones_like(z), reduction="none") if mode == "flip" else torch.zeros_like(z)
    costs = torch.where(largest, instead, cross_entropy(z, y, reduction="none"))
    given = y.masked_fill(y == 0, torch.nan)
    found = partial_loss(z, given, "bce", mode=mode, unknown_loss="bce", top=share * 9, reduction="sum")
    torch.testing.assert_close(found, costs.sum())


def test_the_expected_number_of_positives() -> None:
    z, _ = batch()
    p = 1 / (1 + torch.exp(-z))
    torch.testing.assert_close(expected_positives(z, 2.5), (p.sum() / 6 - 2.5) ** 2 / 81)
    with pytest.raises(ValueError, match=r"expected must be in \[0"):
        expected_positives(z, -1)


def test_a_schedule_goes_from_one_loss_to_another_of_its_name() -> None:
    first, last = "gr", "gr(steepness=2, middle=0.8, width=0.5)"
    assert between(first, last, 0) == formula(first)
    assert between(first, last, 1) == between(first, last, 7) == formula(last)
    assert str(between(first, last, 0.25)) == str(formula("gr(steepness=0.5, middle=0.575, width=1.625)"))
    assert between("asl(detach_focus=False)", "asl(gamma_neg=2, detach_focus=False)", 0.5) == formula(
        "asl(gamma_neg=3, detach_focus=False)"
    )
    with pytest.raises(ValueError, match="between settings of one loss, got asl and em"):
        between("asl", "em", 0.5)


@pytest.mark.parametrize("margin", [0, 0.5, 1])
def test_where_all_unknown_are_positives_no_score_stands_for_a_probability(margin: float) -> None:
    with pytest.raises(ValueError, match="a more probable label does not always get a higher score"):
        posterior(formula("splc", tau=0, margin=margin), torch.zeros(1))


def test_what_is_wrong_is_said() -> None:
    z, y = batch()
    with pytest.raises(ValueError, match="takes no priors"):
        partial_loss(z, y.masked_fill(y == 0, torch.nan), "bce", mode="flip", priors=torch.ones(9))
    with pytest.raises(ValueError, match=r"did you mean 'wan'"):
        formula("wann")
    with pytest.raises(ValueError, match="does not always get a higher score"):
        lopsided.loss("em").decision_threshold()
    assert UNKNOWN.keys() == UNKNOWN_SOURCES.keys()
    for name in UNKNOWN:
        assert formula(str(formula(name))) == formula(name)
