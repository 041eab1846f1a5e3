"""Losses made from label counts, against their papers' definitions, entry by entry, with none of lopsided's code."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import lopsided
from lopsided.compute.native import run as native
from lopsided.losses import BALANCED, balanced, formula
from lopsided.nn.functional import multilabel_loss
from lopsided.nn.options import DEFAULTS
from lopsided.targets import Supervision
from lopsided.testing import check_loss
from tests import oracle
from tests.compute.test_native import compare

ROWS, COUNTS = 1000, [700, 300, 40, 9, 1]
SPECS = [
    *BALANCED,
    "cb(beta=0.999, gamma=0)",
    "rebalanced(alpha=0.3, steepness=4, middle=0.2, gamma=0)",
    "ntr(kappa=0.5, tolerance=5, gamma=0)",
    "ntr(tolerance=1)",
    "db(alpha=0, steepness=3, middle=0.4, kappa=0.2, tolerance=3, gamma=1.5)",
    "ldam(margin=1.5, scale=2)",
]


def batch() -> tuple[Tensor, Tensor]:
    """Logits and hard targets; a row without a label, and one with all."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(6, 5, generator=generator, dtype=torch.float64) * 2
    y = (torch.rand(6, 5, generator=generator) < 0.4).double()
    y[0], y[1] = 0, 1
    return z, y


def published(spec: str, z: Tensor, y: Tensor, counts: Sequence[int] = COUNTS, of_rows: int = ROWS) -> Tensor:
    """One value per row, each entry on its own."""
    name = spec.partition("(")[0]
    told: dict[str, float] = {"alpha": 0.1, "steepness": 10, "middle": 0.9, "kappa": 0.05, "tolerance": 2, "gamma": 2}
    told |= {"beta": 0.9, "margin": 0.5, "scale": 30}
    told |= {
        key: float(value) for key, value in (each.split("=") for each in spec[len(name) + 1 : -1].split(", ") if each)
    }
    rows = []
    for row, target in zip(z, y, strict=True):
        total = torch.zeros((), dtype=z.dtype)
        sampled = sum(1 / count for count, here in zip(counts, target.tolist(), strict=True) if here)
        for logit, here, count in zip(row, target.tolist(), counts, strict=True):
            weight = torch.ones((), dtype=z.dtype)
            if name in ("cb", "cb_ntr"):
                weight = weight * (1 - told["beta"]) / (1 - told["beta"] ** count)
            if name in ("rebalanced", "db"):
                ratio = 1 / count / sampled if sampled else float("inf")
                weight = told["alpha"] + torch.sigmoid(weight * told["steepness"] * (ratio - told["middle"]))
            stretch, gamma = 1.0, told["gamma"]
            if name in ("ntr", "cb_ntr", "db"):
                logit = logit - told["kappa"] * torch.log(torch.tensor(of_rows / count - 1, dtype=z.dtype))
                stretch = told["tolerance"]
            if name == "ldam":
                logit = told["scale"] * (logit - here * told["margin"] * (min(counts) / count) ** 0.25)
                gamma = 0.0
            right = logit if here else -stretch * logit
            cost = torch.sigmoid(-right) ** gamma * -torch.log(torch.sigmoid(right))
            total = total + weight * cost / (1 if here else stretch)
        rows.append(total)
    return torch.stack(rows)


def criterion(spec: str, **options: Any) -> lopsided.BalancedLoss:
    return lopsided.BalancedLoss(spec, torch.tensor(COUNTS), ROWS, **({"reduction": "none"} | options))


@pytest.mark.parametrize("spec", SPECS)
def test_value_and_gradient_are_the_published_ones(spec: str) -> None:
    z, y = batch()
    module = criterion(spec)
    torch.testing.assert_close(module(z, y), published(spec, z, y), rtol=2e-6, atol=1e-7)  # counts make float32 tensors
    expected = oracle.gradient(lambda z: published(spec, z, y), z)
    torch.testing.assert_close(oracle.gradient(lambda z: module(z, y), z), expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("spec", BALANCED)
def test_every_way_to_say_targets_gives_the_same(spec: str) -> None:
    z, y = batch()
    module, expected = criterion(spec), criterion(spec)(z, y)
    listed = lopsided.SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in y])
    torch.testing.assert_close(module(z, listed), expected)
    torch.testing.assert_close(module(z.view(2, 3, 5), y.view(2, 3, 5)).flatten(), expected)
    torch.testing.assert_close(criterion(spec, label_dim=0)(z.T, y.T), expected)
    torch.testing.assert_close(criterion(spec, backend="eager")(z, y), expected)
    torch.testing.assert_close(
        criterion(spec, backend="streamed")(z.float(), y), expected.float(), rtol=1e-5, atol=1e-6
    )
    with_threshold = torch.cat([torch.ones(6, 1), z + 1], 1)
    torch.testing.assert_close(criterion(spec, threshold_logit=0)(with_threshold, y), expected)
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[:, 3] = False
    unknown = y.masked_fill(~mask, torch.nan)
    torch.testing.assert_close(module(z, y, mask), module(z, unknown))
    torch.testing.assert_close(criterion(spec, ignore_index=-1)(z, unknown.nan_to_num(-1)), module(z, unknown))
    gradient = oracle.gradient(lambda z: module(z, y, mask), z)
    assert (gradient[:, 3] == 0).all()


def test_all_options_reach_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("lopsided.nn.modules.multilabel_loss", lambda *given, **options: seen.update(options))
    asked: dict[str, Any] = {"pos_weight": torch.ones(5), "ignore_index": -1, "label_smoothing": 0.1}
    asked |= {"soft_targets": "product", "reduction": "sum", "backend": "eager", "inplace": True}
    criterion("cb", **asked)(*batch())
    assert {name: seen[name] for name in asked} == asked
    assert asked.keys() | {"weight", "label_dim", "threshold_logit"} == DEFAULTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["ntr", "ntr(gamma=0, tolerance=5)"])
def test_the_stretched_curve_passes_what_all_curves_do(spec: str) -> None:
    loss = balanced(spec).formula
    check_loss(loss)
    if isinstance(library := native.library(), str):
        pytest.skip(library)
    z, y = torch.randn(5, 530, dtype=torch.float64) * 4, (torch.rand(5, 530) < 0.1).double()
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        compare(loss, z.to(dtype), Supervision(y))


def test_a_tolerance_of_1_and_no_counts_leave_focal() -> None:
    assert balanced("ntr(tolerance=1)").formula == formula("focal")
    assert balanced("ldam").formula == formula("bce")


def test_a_weight_that_is_deferred_counts_once_it_is_switched_on() -> None:
    z, y = batch()
    module = criterion("ldam(beta=0.99)")
    before = module(z, y)
    module.reweight()
    weight = torch.tensor([(1 - 0.99) / (1 - 0.99**count) for count in COUNTS], dtype=torch.float64)
    margins = 0.5 * (min(COUNTS) / torch.tensor(COUNTS, dtype=torch.float64)) ** 0.25
    expected = multilabel_loss(30 * (z - y * margins), y, "bce", weight=weight, reduction="none")
    torch.testing.assert_close(module(z, y), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(before, expected)


@pytest.mark.parametrize("spec", ["ntr(kappa=0.5)", "cb_ntr(kappa=0.3, gamma=0)", "cb"])
def test_thresholds_are_where_the_risk_is_least(spec: str) -> None:
    module = criterion(spec)
    z = torch.linspace(-4, 4, 8001, dtype=torch.float64)[:, None]
    thresholds = module.decision_threshold(0.3)
    for label in range(5):
        logits = torch.zeros(8001, 5, dtype=torch.float64).index_fill(1, torch.tensor([label]), 0)
        logits[:, label] = z[:, 0]
        risk = module(logits, torch.full_like(logits, 0.3))
        assert thresholds[label].item() == pytest.approx(z[risk.argmin()].item(), abs=2e-3)
    torch.testing.assert_close(module.posterior(thresholds[None]), torch.full((1, 5), 0.3, dtype=torch.float64))


def test_a_scale_is_one_of_what_scores_stand_for() -> None:
    criterion = lopsided.BalancedLoss("ldam(margin=0, scale=30)", torch.tensor([5, 50]), rows=100)
    probability = criterion.posterior(torch.tensor([0.1, -0.1]))
    assert probability.tolist() == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(3))])
    assert criterion.decision_threshold(0.9).tolist() == pytest.approx([math.log(9) / 30] * 2)


def test_counts_of_other_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="the loss has the counts of 3 labels, got logits of 4"):
        lopsided.BalancedLoss("db", torch.tensor([5, 50, 7]), rows=100)(torch.zeros(2, 4), torch.zeros(2, 4))


def test_a_learnt_scale_and_shift_before_a_loss_are_those_of_siglip() -> None:
    """As in its paper: -log sigmoid(y (t z + b)), y 1 for the pairs and -1 for the rest, over the batch."""
    z, _ = batch()
    z, signs = z[:5], 2 * torch.eye(5, dtype=torch.float64) - 1
    scale, shift = (torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in (2.3, -10.0))
    expected = -torch.log(torch.sigmoid(signs * (scale.exp() * z + shift))).sum() / 5
    found = lopsided.loss("bce", reduction="batchmean")(scale.exp() * z + shift, (signs + 1) / 2)
    torch.testing.assert_close(found, expected)
    theirs, ours = (torch.autograd.grad(each, (scale, shift)) for each in (expected, found))
    torch.testing.assert_close(ours, theirs)


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match="no posterior and no threshold"):
        criterion("db").decision_threshold()
    with pytest.raises(ValueError, match=r"take lopsided.BalancedLoss\('db', counts, rows\)"):
        lopsided.loss("db")
    with pytest.raises(ValueError, match="'asl' is not made from label counts: those are cb, rebalanced"):
        criterion("asl")
    with pytest.raises(ValueError, match="its settings are: beta, gamma"):
        criterion("cb(alpha=1)")
    with pytest.raises(ValueError, match="a label has 700 positives, but there are only 9 rows"):
        lopsided.BalancedLoss("db", torch.tensor(COUNTS), 9)
    with pytest.raises(ValueError, match="weight is made from the counts"):
        criterion("cb", weight=torch.ones(5))
    with pytest.raises(ValueError, match="targets have shape"):
        criterion("db")(torch.zeros(2, 5), torch.zeros(2, 4))
    for spec in SPECS:
        assert str(balanced(str(balanced(spec)))) == str(balanced(spec)) in repr(criterion(spec))


def test_labels_in_no_row_and_in_all_are_finite() -> None:
    for name in BALANCED:
        module = lopsided.BalancedLoss(name, torch.tensor([0, 10]), 10)
        z = torch.zeros(2, 2, requires_grad=True)
        value = module(z, torch.tensor([[0, 1], [1, 1]]))
        value.backward()
        assert z.grad is not None
        assert value.isfinite()
        assert z.grad.isfinite().all()


@pytest.mark.parametrize("spec", [*BALANCED, "ldam(scale=2)"])
def test_a_head_makes_the_same_of_ranges_of_labels(spec: str) -> None:
    """`LinearHead`, which holds no logits, against the module; its bias begins where the loss settles."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, 4, generator=generator, dtype=torch.float64).requires_grad_()
    _, y = batch()
    listed = lopsided.SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in y])
    counts = torch.tensor(COUNTS)
    for reduction in ("mean", "none"):
        module = criterion(spec, reduction=reduction)
        for targets, options in ((y, {"chunk": 2}), (listed, {"chunk": 3}), (y, {"backend": "eager"})):
            head = lopsided.LinearHead(4, 5, spec, counts=counts, rows=ROWS, reduction=reduction, **options).double()
            values = head(hidden, targets), module(head.logits(hidden), targets)
            torch.testing.assert_close(*values, rtol=1e-6, atol=1e-7)
            leaves: Any = hidden, head.weight, head.bias
            ours, theirs = (torch.autograd.grad(value.sum(), leaves) for value in values)
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    prior = (counts + 0.5) / (ROWS + 1)
    begun: Any = lopsided.LinearHead(4, 5, spec, counts=counts, rows=ROWS, prior=prior)
    plain = lopsided.LinearHead(4, 5, balanced(spec).formula, prior=prior)
    zeros = torch.zeros(4)
    turned = begun.counts.now().turned(begun.logits(zeros).detach(), Supervision(torch.zeros(5)))[0]
    torch.testing.assert_close(turned, plain.logits(zeros).detach(), rtol=1e-4, atol=1e-5)
    assert begun(torch.zeros(0, 4), torch.zeros(0, 5)) == 0
    placed: Any = lopsided.LinearHead(4, 5, spec, counts=counts, rows=ROWS, device="meta")
    assert {each.device.type for each in (placed.weight, *placed.buffers())} == {"meta"}
    assert str(balanced(spec)) in repr(begun)
    assert list(begun.state_dict()) == ["weight", "bias"]


def test_what_a_head_refuses() -> None:
    counts = torch.tensor(COUNTS)
    with pytest.raises(ValueError, match=r"take lopsided.BalancedLoss\('db', counts, rows\), or LinearHead"):
        lopsided.LinearHead(4, 5, "db")
    with pytest.raises(ValueError, match="'asl' is not made from label counts"):
        lopsided.LinearHead(4, 5, "asl", counts=counts, rows=ROWS)
    with pytest.raises(ValueError, match=r"counts must have shape \(6,\)"):
        lopsided.LinearHead(4, 6, "db", counts=counts, rows=ROWS)
    with pytest.raises(ValueError, match="no posterior and no threshold"):
        lopsided.LinearHead(4, 5, "db", counts=counts, rows=ROWS).predict_topk(torch.zeros(1, 4), 2, posterior=True)
    head = lopsided.LinearHead(4, 5, "ntr", counts=counts, rows=ROWS)
    scores, labels = head.predict_topk(torch.zeros(1, 4), 2, posterior=True)
    torch.testing.assert_close(scores, criterion("ntr").posterior(head.logits(torch.zeros(1, 4))).gather(1, labels))
