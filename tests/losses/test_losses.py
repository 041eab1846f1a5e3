"""Every variant against independent values and against the properties that all losses share."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lopsided
from lopsided.losses import CATALOG, PRESETS, SOURCES, Formula, formula
from lopsided.nn.functional import multilabel_loss
from tests import oracle
from tests.variants import DERIVATIVES, VARIANTS, every_variant, example, expected, rows


def ranking(spec: str) -> bool:
    """Does the loss compare positives with negatives, so that a label alone costs nothing?"""
    return not formula(spec).pool.thresholded


def test_the_variants_cover_the_catalog() -> None:
    assert {spec.partition("(")[0] for spec in VARIANTS} == set(CATALOG) == set(SOURCES)


@every_variant
@pytest.mark.parametrize("soft", [False, True])
def test_value_and_gradient_equal_the_textbook(spec: str, soft: bool) -> None:
    z, y = example(soft)
    torch.testing.assert_close(rows(spec, y)(z), expected(spec, y)(z), rtol=1e-11, atol=1e-11)
    ours, theirs = oracle.gradient(rows(spec, y), z), oracle.gradient(expected(spec, y), z)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


def vector_loss(case: dict[str, Any]) -> Formula:
    names = {"disable_torch_grad_focal_loss": "detach_focus"}
    settings = {names.get(key, key): value for key, value in case["kwargs"].items() if key != "eps"}
    name = next(name for mark, name in (("/ASL", "asl"), ("/APL", "apl"), ("bert4keras", "zlpr")) if mark in case["fn"])
    return CATALOG[name](**settings | ({"monotone": False} if name == "apl" else {}))


def test_official_vectors(shared: Path) -> None:
    """Values of the official codes, run unchanged; the log clamp of 1e-8 does not show at these logits."""
    cases = [case for case in json.loads((shared / "oracle/vectors.json").read_text()) if case["fn"].endswith("hard")]
    assert len(cases) == 21
    for case in cases:
        z = torch.tensor(case["logits"], dtype=torch.float64, requires_grad=True)
        value = multilabel_loss(z, torch.tensor(case["targets"]), vector_loss(case), reduction="sum")
        value.backward()
        expected_value = torch.tensor(case["loss"], dtype=torch.float64).sum()
        torch.testing.assert_close(value.detach(), expected_value, rtol=0, atol=1e-9, msg=str(case["kwargs"]))
        expected_grad = torch.tensor(case["grad_of_sum"], dtype=torch.float64)
        torch.testing.assert_close(z.grad, expected_grad, rtol=0, atol=1e-9, msg=str(case["kwargs"]))


@pytest.mark.parametrize("spec", [spec for spec in DERIVATIVES if "monotone=False" not in spec and not ranking(spec)])
def test_losses_fall_as_the_score_of_the_right_answer_rises(spec: str) -> None:
    z = torch.linspace(-30, 30, 4001, dtype=torch.float64)[:, None]
    assert (rows(spec, torch.zeros_like(z))(z).diff() >= -1e-15).all()
    assert (rows(spec, torch.ones_like(z))(z).diff() <= 1e-15).all()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("asl(gamma_neg=0, clip=0)", "bce"),
        ("focal(gamma=0)", "bce"),
        ("asl(gamma_neg=2, gamma_pos=2, clip=0, detach_focus=False)", "focal"),
        ("apl(epsilon_pos=0, epsilon_pos_pow=0)", "asl"),
    ],
)
def test_special_cases_are_the_same_loss(one: str, other: str) -> None:
    assert formula(one) == formula(other)


def test_detaching_the_focus_changes_only_the_gradient() -> None:
    z, y = example()
    for name in ("focal", "asl", "apl"):
        detached, attached = f"{name}(detach_focus=True)", f"{name}(detach_focus=False)"
        assert torch.equal(rows(detached, y)(z), rows(attached, y)(z))
        assert not torch.allclose(oracle.gradient(rows(detached, y), z), oracle.gradient(rows(attached, y), z))


def test_zlpr_is_the_pairwise_rank_loss_with_a_threshold() -> None:
    z, y = example()
    for row, target in zip(z, y, strict=True):
        positive, negative = row[target == 1], row[target == 0]
        pairs = torch.exp(negative[:, None] - positive[None, :]).sum()
        direct = torch.log(1 + pairs + torch.exp(negative).sum() + torch.exp(-positive).sum())
        torch.testing.assert_close(rows("zlpr", target[None])(row[None])[0], direct)


def test_zlpr_bounds_and_soft_optimum() -> None:
    z, y = example(labels=200)
    assert (rows("zlpr", y)(z) <= rows("bce", y)(z)).all()
    assert (oracle.gradient(rows("zlpr", y), z).abs().sum(-1) < 2).all()
    assert oracle.gradient(rows("zlpr", torch.sigmoid(2 * z)), z).abs().max() < 1e-12


@every_variant
def test_reductions(spec: str) -> None:
    z, y = example()
    loss = formula(spec)
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[2, 3:], mask[4] = False, False
    assert y[3:].any(1).all()
    for known in (torch.ones_like(mask), mask):
        by_row, full_rows = rows(spec, y, known)(z), known.any(1).sum()
        count = {"labels": known.sum(), "rows": full_rows, "positive rows": ((y > 0) & known).any(1).sum()}
        if loss.pool.transposed:
            columns = rows(spec, y.T, known.T)(z.T)
            extra = columns.sum() / ((y > 0) & known).any(0).sum()
            with pytest.raises(ValueError, match="compares rows with each other"):
                multilabel_loss(z, y, loss, mask=known, reduction="none")
        else:
            extra = torch.zeros(())
            for reduction, divisor in (("sum", 1), ("batchmean", full_rows)):
                value = multilabel_loss(z, y, loss, mask=known, reduction=reduction)
                torch.testing.assert_close(value, by_row.sum() / divisor)
        mean = multilabel_loss(z, y, loss, mask=known)
        torch.testing.assert_close(mean, by_row.sum() / count[loss.pool.counts] + extra)
    assert rows(spec, y)(z).shape == (6,)


def test_what_mean_divides_by() -> None:
    counts = {name: formula(name).pool.counts for name in CATALOG}
    assert {name for name, count in counts.items() if count == "rows"} == {
        "zlpr",
        "atl",
        "mean_sat",
        "hinge_abl",
        "ncrl",
    }
    assert {name for name, count in counts.items() if count == "positive rows"} == {
        "lsep",
        "two_way",
        "bp_mll",
        "softmax",
        "decoupled",
    }


@every_variant
def test_second_derivatives_do_not_see_what_is_masked(spec: str) -> None:
    z, y = example()
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[:, 4] = False
    z = z.masked_fill(~mask, torch.nan).requires_grad_()
    (grad,) = torch.autograd.grad(rows(spec, y, mask)(z).sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), z)
    assert second.isfinite().all()
    assert (second[:, 4] == 0).all()


@every_variant
def test_masking_equals_removing_even_nan(spec: str) -> None:
    z, y = example()
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[:, [2, 5]] = False
    poisoned = z.masked_fill(~mask, torch.nan)
    kept = [0, 1, 3, 4, 6, 7, 8]
    torch.testing.assert_close(rows(spec, y, mask)(poisoned), rows(spec, y[:, kept])(z[:, kept]))
    grad = oracle.gradient(rows(spec, y, mask), poisoned)
    assert (grad[~mask] == 0).all()
    torch.testing.assert_close(grad[:, kept], oracle.gradient(rows(spec, y[:, kept]), z[:, kept]))


@every_variant
def test_nothing_known_and_no_rows_give_zero(spec: str) -> None:
    z = torch.randn(3, 4, requires_grad=True)
    loss = formula(spec)
    for reduction in ("mean", "batchmean", "sum"):
        value = multilabel_loss(
            z, torch.ones(3, 4), loss, mask=torch.zeros(3, 4, dtype=torch.bool), reduction=reduction
        )
        (grad,) = torch.autograd.grad(value, z)
        assert value == 0
        assert (grad == 0).all()
        assert multilabel_loss(torch.zeros(0, 4), torch.zeros(0, 4), loss, reduction=reduction) == 0


@every_variant
def test_target_dtypes_leading_dimensions_and_strides(spec: str) -> None:
    z, y = example()
    plain = rows(spec, y)(z)
    for targets in (y.bool(), y.long(), y.to(torch.uint8), y.float()):
        torch.testing.assert_close(rows(spec, targets)(z), plain)
    torch.testing.assert_close(rows(spec, y.view(2, 3, 9))(z.view(2, 3, 9)), plain.view(2, 3))
    torch.testing.assert_close(rows(spec, y)(z.T.contiguous().T), plain)
    torch.testing.assert_close(rows(spec, y[2])(z[2]), plain[2])


@every_variant
def test_upstream_gradients_reach_each_row(spec: str) -> None:
    z, y = example()
    weight = torch.arange(6, dtype=torch.float64)
    ours = oracle.gradient(lambda z: weight * rows(spec, y)(z), z)
    torch.testing.assert_close(ours, weight[:, None] * oracle.gradient(rows(spec, y), z))


# ---- string forms


@every_variant
def test_the_string_form_says_everything(spec: str) -> None:
    loss = formula(spec)
    assert formula(str(loss)) == loss
    assert str(formula(str(loss))) == str(loss)
    assert eval(repr(loss)) == loss
    assert str(loss).startswith(spec.partition("(")[0])
    assert str(loss) in repr(lopsided.MultiLabelLoss(spec))


def test_the_repr_of_a_formula_makes_it_again() -> None:
    named = formula("apl(alphas=(0, 1.75), gamma_neg=2)")
    unnamed = Formula(named.positive, named.negative, named.pool)
    made_again = eval(repr(unnamed), vars(lopsided.losses) | vars(lopsided.losses.curves))
    assert made_again == unnamed == named
    assert repr(unnamed) == repr(made_again) != repr(named)


def test_numbers_of_numpy_are_numbers() -> None:
    loss = CATALOG["asl"](gamma_neg=np.float32(2), clip=np.float64(0.1), alpha=np.float64(0.25))
    assert loss == formula(str(loss)) == formula("asl(gamma_neg=2, clip=0.1, alpha=0.25)")
    assert str(CATALOG["focal"](np.int64(2), np.float64(0.25))) == "focal(gamma=2, alpha=0.25, detach_focus=False)"


def test_presets_are_the_published_settings() -> None:
    published = {
        "asl_paper": "asl(gamma_neg=4, gamma_pos=0, clip=0.05, detach_focus=True)",
        "asl_official": "asl(gamma_neg=4, gamma_pos=1, clip=0.05, detach_focus=True)",
        "asl_optimized": "asl(gamma_neg=4, gamma_pos=1, clip=0.05, detach_focus=False)",
        "asl_timm": "asl(gamma_neg=4, gamma_pos=1, clip=0.05, detach_focus=False)",
        "asl_mmpretrain": "asl(gamma_neg=4, gamma_pos=0, clip=0.05, detach_focus=False)",
    }
    assert {name: str(loss) for name, loss in PRESETS.items()} == published
    assert all(formula(name) == formula(spec) for name, spec in published.items())
    with pytest.raises(ValueError, match="asl_timm takes no settings"):
        formula("asl_timm(clip=0)")


def test_presets_are_the_official_vectors(shared: Path) -> None:
    """The official codes, run with these settings, hard targets."""
    cases = json.loads((shared / "oracle/vectors.json").read_text())
    for name, loss in PRESETS.items():
        settings = {
            "gamma_neg": loss.negative.setting("gamma"),
            "gamma_pos": loss.positive.setting("gamma"),
            "clip": loss.negative.setting("margin"),
            "disable_torch_grad_focal_loss": bool(loss.negative.setting("detach")),
        }
        (case,) = [
            case
            for case in cases
            if case["fn"].endswith("AsymmetricLoss hard") and settings.items() <= case["kwargs"].items()
        ]
        z, y = (torch.tensor(case[key], dtype=torch.float64) for key in ("logits", "targets"))
        total = multilabel_loss(z, y, name, reduction="sum")
        assert total.item() == pytest.approx(torch.tensor(case["loss"]).sum().item(), abs=1e-5)
        grad = oracle.gradient(lambda z, y=y, name=name: multilabel_loss(z, y, name, reduction="sum"), z)  # type: ignore[misc]
        torch.testing.assert_close(grad, torch.tensor(case["grad_of_sum"], dtype=torch.float64), rtol=0, atol=1e-9)
