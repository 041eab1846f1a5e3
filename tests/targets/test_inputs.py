"""Every loss takes the same targets, weights and unknown labels."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

import lopsided
from lopsided import SparseTargets
from lopsided.losses import CATALOG, formula
from lopsided.nn.functional import multilabel_loss
from lopsided.targets import checks
from tests import oracle
from tests.losses.test_losses import vector_loss
from tests.variants import every_variant, example, expected

every_loss = pytest.mark.parametrize("name", CATALOG)
ROW_WISE = [name for name in CATALOG if not formula(name).pool.transposed]
LABEL_WISE = [name for name in CATALOG if formula(name).pool.per_label]
every_row_wise_loss = pytest.mark.parametrize("name", ROW_WISE)
every_label_wise_loss = pytest.mark.parametrize("name", LABEL_WISE)


def same(
    one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], z: Tensor, tolerance: float = 1e-6
) -> None:
    """Equal values and gradients."""
    torch.testing.assert_close(one(z), other(z), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(oracle.gradient(one, z), oracle.gradient(other, z), rtol=tolerance, atol=tolerance)


def calling(targets: Any, loss: Any, **options: Any) -> Callable[[Tensor], Tensor]:
    return lambda z: multilabel_loss(z, targets, loss, **options)


@every_row_wise_loss
@pytest.mark.parametrize("soft", [False, True])
def test_unknown_labels_are_said_in_three_ways(name: str, soft: bool) -> None:
    z, y = example(soft)
    known = torch.rand(z.shape, generator=torch.Generator().manual_seed(2)) < 0.7
    known[3] = False
    for reduction in ("none", "sum", "mean", "batchmean"):
        by_mask = calling(y, name, mask=known, reduction=reduction)
        by_nan = calling(y.masked_fill(~known, torch.nan), name, reduction=reduction)
        same(by_mask, by_nan, z, 1e-12)
        by_number = calling(y.masked_fill(~known, -1), name, ignore_index=-1, reduction=reduction)
        same(by_mask, by_number, z, 1e-12)
    if not soft:
        integers = y.long().masked_fill(~known, -100)
        same(
            calling(y, name, mask=known),
            calling(integers, name, ignore_index=-100),
            z,
            1e-12,
        )


@every_loss
def test_nothing_known_gives_zero(name: str) -> None:
    z = torch.randn(3, 4, requires_grad=True)
    for targets in (torch.full((3, 4), torch.nan), torch.full((3, 4), -1)):
        for reduction in ("mean", "batchmean", "sum"):
            value = multilabel_loss(z, targets, name, ignore_index=-1, reduction=reduction)
            (grad,) = torch.autograd.grad(value, z)
            assert value == 0
            assert (grad == 0).all()


@every_label_wise_loss
@pytest.mark.parametrize("soft", [False, True])
def test_weights_multiply(name: str, soft: bool) -> None:
    z, y = example(soft)
    generator = torch.Generator().manual_seed(3)
    weight, pos_weight, row_weight, full = (
        2 * torch.rand(shape, generator=generator, dtype=torch.float64) for shape in ((9,), (9,), (6,), (6, 9))
    )

    def column(z: Tensor, target: float) -> Tensor:
        """What each label costs alone."""
        return multilabel_loss(z.unsqueeze(-1), torch.full_like(z, target).unsqueeze(-1), name, reduction="none")

    def by_hand(factor: Tensor) -> Callable[[Tensor], Tensor]:
        outer = row_weight[:, None] * factor
        return lambda z: (outer * (pos_weight * y * column(z, 1) + (1 - y) * column(z, 0))).mean()

    for given in (weight, full):
        ours = calling(y, name, weight=given, pos_weight=pos_weight, row_weight=row_weight)
        same(ours, by_hand(given.expand(6, 9)), z, 1e-12)


def test_weights_are_torchs() -> None:
    z, y = example(soft=True)
    weight, pos_weight = torch.rand(9, dtype=torch.float64), 5 * torch.rand(9, dtype=torch.float64)
    theirs = binary_cross_entropy_with_logits(z, y, weight, pos_weight=pos_weight)
    torch.testing.assert_close(multilabel_loss(z, y, "bce", weight=weight, pos_weight=pos_weight), theirs)


def test_weights_of_zlpr_stand_inside_the_logarithm() -> None:
    z, y = example()
    weight, pos_weight = torch.rand(9, dtype=torch.float64), 5 * torch.rand(9, dtype=torch.float64)
    up, down = (weight * (1 - y) * z.exp()).sum(1), (weight * pos_weight * y * (-z).exp()).sum(1)
    ours = multilabel_loss(z, y, "zlpr", weight=weight, pos_weight=pos_weight, reduction="none")
    torch.testing.assert_close(ours, torch.log(1 + up) + torch.log(1 + down))


def test_weights_of_softmax_and_bp_mll_tell_positives_of_a_row_from_each_other() -> None:
    z, y = example()
    weight = 0.5 + torch.rand(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share = weight * y
    share = share / share.sum(1, keepdim=True).clamp_min(1e-300)
    theirs = torch.nn.functional.cross_entropy(z, share, reduction="none")
    torch.testing.assert_close(multilabel_loss(z, y, "softmax", pos_weight=weight, reduction="none"), theirs)
    grad = oracle.gradient(calling(y, "softmax", pos_weight=weight, reduction="sum"), z)
    positive = y.any(1, keepdim=True)
    torch.testing.assert_close(grad, torch.where(positive, torch.softmax(z, 1) - share, 0))
    for name in ("softmax", "bp_mll"):
        constant = multilabel_loss(z, y, name, pos_weight=torch.full((9,), 7.0))
        torch.testing.assert_close(constant, multilabel_loss(z, y, name))


@pytest.mark.parametrize("name", ["lsep", "bp_mll", "softmax"])
def test_smoothed_rows_count(name: str) -> None:
    """An all-negative row is a little positive after smoothing: it costs something and is divided by."""
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    total = multilabel_loss(z, torch.zeros(3, 4), name, label_smoothing=0.1, reduction="sum")
    assert total > 0
    torch.testing.assert_close(multilabel_loss(z, torch.zeros(3, 4), name, label_smoothing=0.1), total / 3)


@every_loss
def test_a_weight_of_zero_removes_a_label(name: str) -> None:
    z, y = example()
    weight = torch.tensor([1, 0, 1, 1, 0, 1, 1, 1, 1.0])
    kept = weight > 0
    if formula(name).pool.transposed:
        return  # a label without weight still is one of the columns that the mean divides by
    same(
        calling(y, name, weight=weight, reduction="sum"),
        lambda z: multilabel_loss(z[:, kept], y[:, kept], name, reduction="sum"),
        z,
    )


@every_variant
def test_label_smoothing(spec: str) -> None:
    z, y = example()
    smoothed = expected(spec, y * 0.8 + 0.1)
    if formula(spec).pool.transposed:
        other = expected(spec, (y * 0.8 + 0.1).T)
        same(calling(y, spec, label_smoothing=0.2, reduction="sum"), lambda z: smoothed(z).sum() + other(z.T).sum(), z)
        return
    same(calling(y, spec, label_smoothing=0.2, reduction="none"), smoothed, z, 1e-10)


def test_smoothed_zlpr_is_minimal_where_the_author_says() -> None:
    """At s = +-logit(1 - e/2) / 2."""
    best = torch.logit(torch.tensor([0.95], dtype=torch.float64)) / 2
    for target, z in ((1.0, best), (0.0, -best)):
        y = torch.tensor([target], dtype=torch.float64)
        grad = oracle.gradient(calling(y, "zlpr", label_smoothing=0.1, reduction="none"), z)
        assert grad.abs().max() < 1e-15


def test_the_official_soft_targets_by_name(shared: Path) -> None:
    cases = json.loads((shared / "oracle/vectors.json").read_text())
    cases = [case for case in cases if case["fn"].endswith("soft") and "bert4keras" not in case["fn"]]
    assert len(cases) == 20
    for case in cases:
        z, y = (torch.tensor(case[key], dtype=torch.float64) for key in ("logits", "targets"))
        rows = calling(y, vector_loss(case), soft_targets="product", reduction="sum")
        total = torch.tensor(case["loss"], dtype=torch.float64).sum()
        torch.testing.assert_close(rows(z), total, rtol=0, atol=1e-9, msg=str(case["kwargs"]))
        grad = torch.tensor(case["grad_of_sum"], dtype=torch.float64)
        torch.testing.assert_close(oracle.gradient(rows, z), grad, rtol=0, atol=1e-9, msg=str(case["kwargs"]))


def test_soft_zlpr_is_the_authors(shared: Path) -> None:
    cases = json.loads((shared / "oracle/vectors.json").read_text())
    (case,) = [case for case in cases if case["fn"].endswith("soft") and "bert4keras" in case["fn"]]
    z, y = (torch.tensor(case[key], dtype=torch.float64) for key in ("logits", "targets"))
    rows = calling(y, "zlpr", reduction="none")
    torch.testing.assert_close(rows(z), torch.tensor(case["loss"], dtype=torch.float64), rtol=0, atol=1e-9)
    grad = torch.tensor(case["grad_of_sum"], dtype=torch.float64)
    torch.testing.assert_close(oracle.gradient(rows, z), grad, rtol=0, atol=1e-9)


PRODUCTS = [
    "bce",
    "asl(gamma_neg=0, gamma_pos=1)",
    "focal(gamma=0.5)",
    "focal(alpha=0.3)",
    "asl",
    "asl(gamma_pos=1)",
    "asl_optimized",
    "apl",
]


def test_a_product_is_zero_where_the_clip_leaves_nothing() -> None:
    """0^gamma is 0 for a small gamma too, in float32, where (1e-38)^0.05 is 0.013; APL has a constant to show it."""
    z, y = torch.tensor([[-4.0, -5.0, 2.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    spec = "apl(gamma_neg=0.05, epsilon_neg=-1)"
    values = [multilabel_loss(z, y, spec, reduction="sum", soft_targets=way) for way in ("mixture", "product")]
    torch.testing.assert_close(values[1], values[0])
    assert values[0].item() == pytest.approx(0.0254868, rel=1e-4)  # of the official class with epsilon_neg=-1


@pytest.mark.parametrize("spec", PRODUCTS)
def test_product_and_mixture_agree_on_hard_targets(spec: str) -> None:
    z, y = example()
    known = torch.rand(z.shape, generator=torch.Generator().manual_seed(2)) < 0.7
    mixture = calling(y, spec, mask=known)
    same(calling(y, spec, mask=known, soft_targets="product"), mixture, z, 1e-10)
    poisoned = z.masked_fill(~known, torch.nan)
    for targets in (y.masked_fill(~known, torch.nan), y.masked_fill(~known, -1)):
        product = calling(targets, spec, ignore_index=-1, soft_targets="product")
        same(product, calling(targets, spec, ignore_index=-1), poisoned, 1e-10)
    with pytest.raises(ValueError, match="'product' is defined for bce, focal, asl and apl, not for zlpr"):
        multilabel_loss(z, y, "zlpr", soft_targets="product")


@pytest.mark.parametrize("spec", PRODUCTS)
def test_smoothing_comes_before_the_product(spec: str) -> None:
    z, y = example()
    smoothed = calling(y * 0.8 + 0.1, spec, soft_targets="product")
    same(calling(y, spec, label_smoothing=0.2, soft_targets="product"), smoothed, z, 1e-12)
    assert not torch.allclose(smoothed(z), calling(y * 0.8 + 0.1, spec)(z)) or spec == "bce"


@every_row_wise_loss
def test_row_weights_in_every_reduction(name: str) -> None:
    z, y = example()
    row_weight = torch.arange(6.0)
    rows = multilabel_loss(z, y, name, reduction="none")
    for reduction in ("none", "sum", "batchmean", "mean"):
        plain = multilabel_loss(z, y, name, reduction=reduction)
        divisor = rows.sum() / plain if reduction != "none" else 1
        expected = row_weight * rows if reduction == "none" else (row_weight * rows).sum() / divisor
        torch.testing.assert_close(multilabel_loss(z, y, name, row_weight=row_weight, reduction=reduction), expected)


@every_loss
def test_labels_in_another_dimension(name: str) -> None:
    """Segmentation: (N, L, H, W)."""
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    y = (torch.rand(z.shape, generator=generator) < 0.4).long()
    y[0, :, 1, 2] = 255
    y[1, 2] = 255
    last_z, last_y = z.movedim(1, -1), y.movedim(1, -1)
    weight = torch.rand(z.shape, generator=generator)
    for turned in (None, weight):
        in_place = calling(y, name, ignore_index=255, label_dim=1, weight=turned)
        moved = None if turned is None else turned.movedim(1, -1)
        last = calling(last_y, name, ignore_index=255, weight=moved)
        same(in_place, lambda z, last=last: last(z.movedim(1, -1)), z, 1e-12)  # type: ignore[misc]
    if name in ROW_WISE:
        rows = multilabel_loss(z, y, name, ignore_index=255, label_dim=1, reduction="none")
        assert rows.shape == (2, 3, 4)
        torch.testing.assert_close(rows, multilabel_loss(last_z, last_y, name, ignore_index=255, reduction="none"))
    module = lopsided.MultiLabelLoss(name, ignore_index=255, label_dim=1)
    torch.testing.assert_close(module(z, y), multilabel_loss(last_z, last_y, name, ignore_index=255))


def test_two_way_is_the_published_sum_of_both_ways() -> None:
    z, y = example()
    with_positive, column = y.any(1), y.any(0)
    rows, columns = oracle.two_way_rows(z, y)[with_positive].mean(), oracle.two_way_rows(z.T, y.T)[column].mean()
    torch.testing.assert_close(multilabel_loss(z, y, "two_way"), rows + columns)
    weight, pos_weight = torch.rand(9, dtype=torch.float64), 5 * torch.rand(9, dtype=torch.float64)
    full = (weight * torch.where(y > 0, pos_weight, 1.0)).expand_as(z)
    ours = multilabel_loss(z, y, "two_way", weight=weight, pos_weight=pos_weight, reduction="sum")
    torch.testing.assert_close(ours, multilabel_loss(z, y, "two_way", weight=full, reduction="sum"))


def test_probabilities_given_as_logits_are_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_warned_of_probabilities", False)
    z, y = example(labels=90)
    loss = lopsided.AsymmetricLoss()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(z, y)
        loss(torch.zeros(6, 90), y.float())  # an untrained head
        loss(torch.sigmoid(z[:, :9]), y[:, :9])  # too few to tell
        loss(0.4 * torch.sigmoid(z), y)  # as close together as untrained scores may be
        late = torch.cat([torch.sigmoid(z).repeat(8, 1), z])
        loss(late, y.repeat(9, 1))  # the first 4096 alone would be probabilities
    with pytest.warns(UserWarning, match=r"all 540 logits lie in \[0, 1\], as probabilities do"):
        loss(torch.sigmoid(z), y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(torch.sigmoid(z), y)


Z = torch.zeros(2, 3)
Y = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (SparseTargets.from_indices([[0], [3]]), {}, r"label indices must lie in \[0, 3\), got values from 0 to 3"),
        (SparseTargets.from_indices(torch.tensor([[0, -2], [1, 2]])), {}, r"got values from -2 to 2: pass the padding"),
        (SparseTargets.from_indices([[0]]), {}, r"targets have 1 rows but logits \(2, 3\) have 2"),
        (SparseTargets(torch.tensor([0, 2, 1]), torch.tensor([0])), {}, "crow must rise from 0 .* falling in between"),
        (SparseTargets(torch.tensor([0.0, 1, 1]), torch.tensor([0])), {}, "crow must be one dimension of integers"),
        (SparseTargets(torch.tensor([0, 1, 1]), torch.tensor([0]), torch.tensor([2.0])), {}, "got the value 2"),
        (SparseTargets(torch.tensor([0, 1, 1]), torch.tensor([0]), torch.ones(2)), {}, "values must have the shape"),
        (Y.to_sparse(), {}, "sparse targets must be torch.sparse_csr"),
        (torch.zeros(2, 4).to_sparse_csr(), {}, r"targets have 4 labels but logits \(2, 3\)"),
        ([[0], [1]], {}, "targets must be a tensor or SparseTargets, got list: index lists go through"),
        (Y.numpy(), {}, r"got ndarray: pass torch.as_tensor\(...\)$"),
        (torch.zeros(2, 3, requires_grad=True), {}, "pass targets.detach.., or the logits first if they were swapped"),
        (Y.to(torch.uint16), {}, "targets must be bool, integer or float .*torch.uint16: call targets.float"),
        (Y, {"weight": [1, 1, 1]}, r"weight must be a tensor, got list: \[1, 1, 1\]: pass torch.as_tensor"),
        (Y, {"pos_weight": 2.0}, "pos_weight must be a tensor, got float"),
        (Y, {"mask": Y.bool().to("meta")}, "mask are on meta but logits on cpu"),
        (Y, {"label_dim": "x"}, "label_dim must be an integer, got 'x'"),
        (Y, {"ignore_index": "x"}, "ignore_index must be an integer, got 'x'"),
        (Y.to(torch.complex64), {}, "targets must be bool, integer or float"),
        (SparseTargets(torch.tensor([0, 1, 1]), torch.tensor([0]), torch.ones(1) * 1j), {}, "values must be real"),
        (Y, {"pos_weight": torch.ones(3) * 1j}, "pos_weight must be real, got torch.complex64: pass pos_weight.real"),
        (Y, {"weight": torch.ones(2)}, r"or \(3,\), got \(2,\): one number a row is row_weight="),
        (Y, {"pos_weight": torch.ones(1)}, r"pos_weight must have shape \(3,\), got \(1,\)"),
        (Y, {"row_weight": torch.ones(3)}, r"row_weight must have shape \(2,\), got \(3,\)"),
        (Y, {"weight": -torch.ones(3)}, "weight must be finite and not negative, got values from -1 to -1"),
        (Y, {"weight": torch.tensor([torch.nan, 1, 1])}, "weight must be finite and not negative"),
        (Y, {"pos_weight": torch.ones(3, requires_grad=True)}, "pos_weight require grad"),
        (Y - 1, {}, "the value -1: if -1 means that a label is not there, pass targets > 0; mark unknown"),
        (torch.tensor([[torch.nan, 0, 2], [0, 0, 0]]), {}, "got the value 2"),
        (Y, {"label_smoothing": 1}, r"label_smoothing must be in \[0, 1\), got 1"),
        (Y, {"soft_targets": "official"}, "soft_targets must be 'mixture' or 'product', got 'official'"),
    ],
)
def test_bad_input_is_named(targets: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        multilabel_loss(Z, targets, "asl", **options)


@pytest.mark.parametrize("indices", [torch.zeros(3, dtype=torch.long), torch.zeros(2, 2)])
def test_bad_index_tensors_are_named(indices: Tensor) -> None:
    with pytest.raises(ValueError, match=r"indices must be \(rows, longest\) integers"):
        SparseTargets.from_indices(indices)


def test_bad_losses_and_index_lists_are_named() -> None:
    for loss in (None, lopsided.AsymmetricLoss()):
        with pytest.raises(TypeError, match="loss must be a lopsided Formula or its name, got"):
            multilabel_loss(Z, Y, loss)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="loss must be a lopsided Formula or its name, got"):
            lopsided.MultiLabelLoss(loss)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="float"):
        SparseTargets.from_indices([[1.7]])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="'product' is defined for"):
        multilabel_loss(Z, Y, "two_way", soft_targets="product")


def test_what_stands_behind_a_mask_may_be_anything() -> None:
    mask = torch.tensor([[True, False, True]] * 2)
    targets = torch.tensor([[1.0, -7.0, 0.0]] * 2)
    assert multilabel_loss(Z, targets, "bce", mask=mask) == multilabel_loss(Z, targets.clamp_min(0), "bce", mask=mask)


def test_a_label_dim_that_the_logits_lack_is_named() -> None:
    for logits, label_dim in ((torch.zeros(3), 5), (torch.zeros(3), 1), (torch.zeros(2, 3), -3)):
        with pytest.raises(ValueError, match=f"label_dim must be a dimension of the logits, .* got {label_dim}"):
            multilabel_loss(logits, torch.zeros_like(logits), "asl", label_dim=label_dim)
    assert multilabel_loss(torch.zeros(3), torch.zeros(3), "asl", label_dim=0) > 0


def test_soft_values_of_sparse_targets_are_not_rounded_on_their_way() -> None:
    """In float64, transposed too, as for the second way of a two-way loss."""
    generator = torch.Generator().manual_seed(0)
    z, y = (torch.rand(4, 6, dtype=torch.float64, generator=generator) for _ in range(2))
    for name in CATALOG:
        dense, sparse = (multilabel_loss(9 * z, targets, name) for targets in (y, y.to_sparse_csr()))
        torch.testing.assert_close(sparse, dense, rtol=1e-14, atol=0)


def test_sparse_targets_refuse_what_they_would_misread() -> None:
    for hot in (torch.tensor([[0, 1, 0, 1]]), torch.zeros(2, 3, dtype=torch.int32)):
        with pytest.raises(ValueError, match="are all 0 or 1, as targets of all labels are"):
            SparseTargets.from_indices(hot)
    with pytest.raises(ValueError, match=r"must be \(rows, longest\) integers, got torch.bool"):
        SparseTargets.from_indices(torch.tensor([[False, True]]))
    assert len(SparseTargets.from_indices(torch.zeros(0, 3, dtype=torch.long)).col) == 0
    for listed in ([[0, 1, -1, -1]], [[0, 1]], [[0, 1, 2]]):
        assert SparseTargets.from_indices(torch.tensor(listed)).col.tolist()[:2] == [0, 1]
    for targets in (torch.eye(3).to_sparse_csr(), SparseTargets.from_indices([[0], [1], [2]])):
        with pytest.raises(ValueError, match="ignore_index=0 would ignore each label"):
            multilabel_loss(torch.zeros(3, 3), targets, "bce", ignore_index=0)
