"""The short way through the C library: all that it serves is as by the eager executor, and the rest is left."""

import pytest
import torch
from torch import Tensor

import lopsided
from lopsided.compute import eager
from lopsided.compute.fast_path import fast_loss
from lopsided.compute.native import run as native
from lopsided.compute.reduce import Problem, evaluate
from lopsided.losses import CATALOG, formula
from lopsided.targets import SparseTargets, Supervision
from tests.batches import batch, said
from tests.compute.test_native import BUDGET

pytestmark = pytest.mark.skipif(isinstance(native.library(), str), reason=f"no C library: {native.library()}")

SERVED = (torch.float64, torch.float32, torch.bfloat16)
REDUCTIONS = ("none", "sum", "batchmean", "mean")


def compare(spec: str, z: Tensor, labels: Supervision, reduction: str, row_weight: Tensor | None = None) -> bool:
    """Against the eager executor in float64, at the same logits; returns whether the batch was served."""
    loss, leaf = formula(spec), z.detach().clone().requires_grad_()
    value = fast_loss(leaf, labels, row_weight, loss, reduction)
    if value is None:
        return False
    exact = z.detach().double().requires_grad_()
    expected = evaluate(eager, exact, Problem(loss, labels, row_weight, reduction))
    share = torch.linspace(1, 2, value.numel()).view(value.shape)  # of what comes from above
    (value * share).sum().backward()
    (expected * share).sum().backward()
    value_budget, gradient_budget = BUDGET[z.dtype]
    gradient_budget *= 1 + formula(spec).pool.transposed  # two gradients, each rounded
    assert ((value - expected).abs() <= value_budget * expected.abs().clamp_min(1)).all()
    assert leaf.grad is not None
    assert exact.grad is not None
    assert leaf.grad.dtype == z.dtype
    error = (leaf.grad.double() - exact.grad).abs().max()
    assert error <= 2 * gradient_budget * exact.grad.abs().max() + 1e-9
    return True


@pytest.mark.parametrize("dtype", SERVED)
@pytest.mark.parametrize(
    "size", [(9, 7), *(pytest.param(size, marks=pytest.mark.slow) for size in ((5, 80), (3, 600)))], ids=str
)
@pytest.mark.parametrize(
    "spec",
    [
        *("asl", "zlpr", "lsep", "softmax", "bp_mll", "two_way"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("atl", "mean_sat", "decoupled", "ncrl")),
    ],
)
def test_whatever_is_said_of_the_labels_and_however_it_is_reduced(
    spec: str, size: tuple[int, int], dtype: torch.dtype
) -> None:
    z, y = batch(*size)
    y[1] = 0
    for labels in said(z, y):
        contiguous = labels.with_tensors([None if each is None else each.contiguous() for each in labels.tensors])
        for reduction in ("sum", "mean") if formula(spec).pool.transposed else REDUCTIONS:
            assert compare(spec, z.to(dtype), contiguous, reduction)


@pytest.mark.parametrize("dtype", SERVED)
@pytest.mark.parametrize("spec", ["bce", "zlpr", "bp_mll", "hinge_abl"])
def test_rows_have_weights(spec: str, dtype: torch.dtype) -> None:
    for size in ((9, 7), (3, 600)):
        z, y = batch(*size)
        weight = torch.linspace(0, 3, len(z))
        for reduction in REDUCTIONS:
            for labels in (Supervision(y), Supervision(y, mask=y.roll(1) == 0)):
                assert compare(spec, z.to(dtype), labels, reduction, weight)


def test_a_row_without_a_known_label_is_not_counted() -> None:
    z, y = batch(6, 40)
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[2] = False
    for spec in CATALOG:
        for labels in (Supervision(y, mask=mask), Supervision(y.masked_fill(~mask, torch.nan))):
            assert compare(spec, z.float(), labels, "mean")
        nothing = fast_loss(z.float(), Supervision(y, mask=mask & False), None, formula(spec), "mean")
        assert nothing == 0


@pytest.mark.parametrize("spec", ["asl", "lsep", "two_way"])
def test_bits_do_not_depend_on_the_number_of_threads(spec: str) -> None:
    z, y = batch(300, 80)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        leaf = z.float().requires_grad_()
        value = fast_loss(leaf, Supervision(y, mask=y.roll(1) == 0), None, formula(spec), "mean")
        assert value is not None
        value.backward()
        found.append((value, leaf.grad))
    torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


def test_what_is_not_served_is_left() -> None:
    z, y = torch.randn(4, 300), (torch.rand(4, 300) < 0.1).float()
    across = y.T.contiguous().T
    trained = y.clone().requires_grad_()
    bce, two_way = formula("bce"), formula("two_way")
    assert fast_loss(z, Supervision(y), None, bce, "mean") is not None
    others: list[tuple[Tensor, Supervision, Tensor | None]] = [
        (z.T.contiguous().T, Supervision(y), None),
        (z, Supervision(across), None),
        (z, Supervision(y[:2]), None),
        (z[:0], Supervision(y[:0]), None),
        (z.half(), Supervision(y), None),
        (torch.nn.Parameter(z), Supervision(y), None),
        (z, Supervision(trained), None),
        (z.to("meta"), Supervision(y.to("meta")), None),
        (z, Supervision(y, mask=y), None),
        (z, Supervision(y, mask=(y == 0)[:2]), None),
        (z, Supervision(y, weight=trained), None),
        (z, Supervision(y, weight=y[:, 0]), None),
        (z, Supervision(y, pos_weight=y), None),
        (z, Supervision(y), y[0]),
        (z, Supervision(y, weight=y * 1j), None),
        (z, Supervision(y, pos_weight=y[0] * 1j), None),
        (z, Supervision(y), y[:, 0] * 1j),
        (z, Supervision.of(SparseTargets(torch.arange(5), torch.arange(4), torch.ones(4) * 1j)), None),
        (z, Supervision.of(SparseTargets.from_indices([[0]])), None),
        (z, Supervision.of(SparseTargets(torch.arange(5), torch.arange(4), num_labels=3)), None),
    ]
    for logits, labels, row_weight in others:
        assert fast_loss(logits, labels, row_weight, bce, "mean") is None
    assert fast_loss(z, Supervision(y), None, two_way, "none") is None
    assert fast_loss(z, Supervision(y), None, two_way, "batchmean") is None
    assert fast_loss(z, Supervision(y), y[:, 0], two_way, "sum") is None


def test_wrong_values_are_named_and_those_behind_a_mask_are_not() -> None:
    z, y = torch.randn(4, 300), (torch.rand(4, 300) < 0.1).float()
    bce = formula("bce")
    y[0, 0] = 1
    for wrong in (y - 1, y * 2):
        with pytest.raises(ValueError, match=r"targets must lie in \[0, 1\]"):
            fast_loss(z, Supervision(wrong), None, bce, "mean")
    behind = fast_loss(z, Supervision(y * 2, mask=y == 0), None, bce, "mean")
    expected = lopsided.MultiLabelLoss("bce", backend="eager")(z, y, y == 0)
    torch.testing.assert_close(behind, expected)
    with pytest.raises(ValueError, match="pos_weight must be finite and not negative"):
        fast_loss(z, Supervision(y, pos_weight=y[0] * torch.inf), None, bce, "mean")
    with pytest.raises(ValueError, match="weight must be finite and not negative"):
        fast_loss(z, Supervision(y, weight=-y), None, bce, "mean")
    with pytest.raises(ValueError, match="row_weight must be finite and not negative"):
        fast_loss(z, Supervision(y), torch.tensor([1.0, 1, 1, torch.nan]), bce, "mean")
    for col in (300, -1):
        with pytest.raises(ValueError, match=r"label indices must lie in \[0, 300\)"):
            fast_loss(z, Supervision.of(SparseTargets(torch.arange(5), torch.tensor([0, 1, 2, col]))), None, bce, "sum")
