"""The C library against the eager executor: every loss, target, dtype and odd size."""

import dataclasses
import itertools
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

import lopsided
from lopsided import SparseTargets
from lopsided.compute import eager
from lopsided.compute.graph import printed_sides
from lopsided.compute.native import run as native
from lopsided.losses import CATALOG, Curve, Formula, NoneClass, Sum, formula
from lopsided.losses.curves import Values, polynomial_negative
from lopsided.targets import Supervision
from tests.batches import batch, check_nan_is_seen_unless_masked, said
from tests.variants import VARIANTS, every_variant

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(isinstance(native.library(), str), reason=f"no C library: {native.library()}")

# largest error of a value, relative, and of a gradient, relative to the largest of its row or matrix
BUDGET = {torch.float64: (1e-12, 1e-12), torch.float32: (6e-6, 3e-6), torch.bfloat16: (6e-6, 4e-3)}
BUDGET[torch.float16] = (6e-6, 6e-4)
MORE_SIZES = [pytest.param(size, marks=pytest.mark.slow) for size in (1, 15, 16, 255, 256, 257, 511, 512, 1030)]


def compare(loss: Formula, z: Tensor, labels: Supervision) -> None:
    """Against the eager executor in float64, at the same logits."""
    value_budget, gradient_budget = BUDGET[z.dtype]
    exact = z.detach().double().requires_grad_()
    expected = eager.rows(loss, exact, labels).values
    (expected_grad,) = torch.autograd.grad(expected.sum(), exact)
    value, grad = native.rows(loss, z, labels)[:2]
    assert grad is not None
    assert grad.dtype == z.dtype
    assert value.dtype == torch.promote_types(z.dtype, torch.float32)
    assert ((value - expected).abs() <= value_budget * expected.abs().clamp_min(1)).all()
    room = gradient_budget * expected_grad.abs().max().clamp_min(0.1)
    assert ((grad.double() - expected_grad).abs() <= room).all()
    alone, nothing = native.rows(loss, z, labels, with_gradient=False)[:2]
    assert nothing is None
    assert torch.equal(alone, value)


@every_variant
@pytest.mark.parametrize("dtype", BUDGET)
def test_every_loss_and_dtype(spec: str, dtype: torch.dtype) -> None:
    z, y = batch(6, 1100)
    y[0], y[1] = 0, 1
    soft = torch.rand(z.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for targets in (y, soft):
        compare(formula(spec), z.to(dtype), Supervision(targets))


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("labels", [17, 513, *MORE_SIZES])
def test_every_kind_of_labels_and_odd_sizes(name: str, labels: int) -> None:
    z, y = batch(5, labels)
    for way in said(z, y):
        # a weight of 1e-46, which float32 has not, is all that its mean has where the true positives have none
        tiny = name == "hinge_abl" and 0 < way.label_smoothing < 1e-40
        for dtype in (torch.float64,) if tiny else (torch.float32, torch.float64):
            compare(formula(name), z.to(dtype), way)


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("labels", [40, 1030])
def test_targets_that_are_all_0_or_1_but_for_one(name: str, labels: int) -> None:
    """Tiles without that one take a shorter way: both in one row, and in rows that share a tile."""
    z, y = batch(5, labels)
    y[0, 1], y[1, labels - 2], y[2, labels // 2], y[3, 0] = 0.5, -0.0, 1e-40, torch.nan
    for dtype in (torch.float32, torch.float64):
        compare(formula(name), z.to(dtype), Supervision(y.to(dtype)))
    assert not native.rows(formula(name), z.float(), Supervision((y > 0.4).byte())).needs_check
    assert native.rows(formula(name), z.float(), Supervision((y > 0.4).byte() * 2)).needs_check
    y[4, labels - 1] = 1 + 1e-6
    assert native.rows(formula(name), z[4:].float(), Supervision(y[4:].float())).needs_check


def test_a_row_without_a_part_in_the_loss_has_no_gradient_whatever_its_logits() -> None:
    z = torch.zeros(2, 600)
    z[0, 3], z[1, 590] = torch.nan, torch.nan
    for labels, name in itertools.product((40, 600), ("softmax", "decoupled")):
        value, grad = native.rows(formula(name), z[:, -labels:], Supervision(torch.zeros(2, labels)))[:2]
        assert grad is not None
        assert not value.any()
        assert not grad.any()


@pytest.mark.parametrize("name", [name for name in CATALOG if not formula(name).pool.per_label])
@pytest.mark.parametrize("labels", [40, 600])
def test_a_row_whose_only_positive_is_subnormal(name: str, labels: int) -> None:
    y = torch.zeros(2, labels)
    y[0, 3] = 1e-39
    compare(formula(name), torch.full((2, labels), 95.0), Supervision(y))


def test_subnormal_targets_are_0_where_the_processor_flushes_them() -> None:
    for dtype, tiny in ((torch.float32, 1e-40), (torch.float64, 1e-310)):
        z, y = torch.zeros(2, 40, dtype=dtype), torch.zeros(2, 40, dtype=dtype)
        expected = native.rows(formula("zlpr"), z, Supervision(y))[1]
        y[1, 3] = tiny
        if not torch.set_flush_denormal(True):
            pytest.skip("this processor does not flush")
        try:
            found = native.rows(formula("zlpr"), z, Supervision(y))[1]
        finally:
            torch.set_flush_denormal(False)
        assert torch.equal(found, expected)  # type: ignore[arg-type]


@every_variant
def test_shapes_and_strides(spec: str) -> None:
    loss = formula(spec)
    z, y = batch(6, 40)
    whole, grad = native.rows(loss, z, Supervision(y))[:2]
    assert grad is not None
    cases = {
        "leading dimensions": (z.view(2, 3, 40), y.view(2, 3, 40)),
        "one row": (z[2], y[2]),
        "transposed": (z.T.contiguous().T, y.T.contiguous().T),
        "every second column of a wider matrix": (torch.repeat_interleave(z, 2, 1)[:, ::2], y),
        "rows of a wider matrix": (torch.cat([z, z], 1)[:, :40], torch.cat([y, y], 1)[:, :40]),
        "no rows": (z[:0], y[:0]),
    }
    for logits, targets in cases.values():
        value, gradient = native.rows(loss, logits, Supervision(targets))[:2]
        assert gradient is not None
        assert value.shape == logits.shape[:-1]
        assert gradient.shape == logits.shape
        picked = whole[2] if logits.ndim == 1 else whole[: value.numel()].view(value.shape)
        torch.testing.assert_close(
            value, picked, rtol=1e-14, atol=1e-14
        )  # rows that share a tile are added up in another order
    expanded = z[:1].expand(6, 40)
    compare(loss, expanded, Supervision(y))


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("dtype", BUDGET)
def test_finite_for_every_finite_logit(name: str, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max / 4
    points = [0.0, 1e-4, 0.5, 3, 10, 17, 20, 60, 88, 104, 710, 1e4, 6e4, largest]
    z = torch.tensor([[x * sign] for x in points for sign in (1, -1)], dtype=dtype)
    for target in (0.0, 1.0, 0.3):
        value, grad = native.rows(formula(name), z, Supervision(torch.full(z.shape, target)))[:2]
        assert grad is not None
        assert value.isfinite().all()
        assert grad.isfinite().all()


@pytest.mark.parametrize("name", ["bce", "mean_sat", "hinge_abl", "atl"])
@pytest.mark.parametrize("labels", [4, 600])
def test_infinite_logits_cost_nothing_on_the_right_side_and_no_end_on_the_wrong_one(name: str, labels: int) -> None:
    """Also more than one of them: none is taken from another."""
    y = torch.zeros(2, labels)
    y[:, :2] = 1
    for dtype in (torch.float32, torch.float64):
        z = torch.where(y > 0, torch.inf, -torch.inf).to(dtype)
        z[1] = -z[1]
        value, grad = native.rows(formula(name), z, Supervision(y))[:2]
        assert grad is not None
        assert value.tolist() == [0, torch.inf]
        assert not grad[0].any()
        assert (grad[1, :2] < 0).all()
        assert (grad[1, 2:] > 0).all()


@pytest.mark.parametrize("name", CATALOG)
def test_nan_logits_are_seen_unless_masked(name: str) -> None:
    z, y = batch(4, 30)
    y[:, :2] = torch.tensor([1.0, 0.0])
    z = z.float()
    z[1, 3] = torch.nan
    check_nan_is_seen_unless_masked(native.rows, formula(name), z, y)
    listed = SparseTargets.from_indices([[0], [1, 3], [0], [0, 1]])
    masked, grad = native.rows(formula(name), z, Supervision.of(listed, mask=~z.isnan()))[:2]
    assert grad is not None
    assert masked.isfinite().all()
    assert grad.isfinite().all()


@pytest.mark.parametrize("name", CATALOG)
def test_threads_and_repetitions_give_the_same_bits(name: str) -> None:
    z, y = batch(64, 700, density=0.02)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(native.rows(formula(name), z.float(), Supervision(y))[:2])
    finally:
        torch.set_num_threads(before)
    for value, grad in results[1:]:
        assert torch.equal(value, results[0][0])
        assert grad is not None
        assert torch.equal(grad, results[0][1])  # type: ignore[arg-type]


def test_python_threads_do_not_disturb_each_other() -> None:
    z, y = batch(40, 900)
    expected = {name: native.rows(formula(name), z, Supervision(y))[:2] for name in CATALOG}
    wrong: list[str] = []

    def work(name: str) -> None:
        for _ in range(10):
            value, grad = native.rows(formula(name), z, Supervision(y))[:2]
            if not (torch.equal(value, expected[name][0]) and torch.equal(grad, expected[name][1])):  # type: ignore[arg-type]
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in CATALOG]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_sixteen_bit_conversions_are_torchs() -> None:
    """Every float16 and bfloat16 logit, and gradients of every size, rounded as torch rounds."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        z = bits.view(dtype)
        z = z[z.isfinite() & (z.abs() < 1e30)][:, None]
        value, grad = native.rows(formula("bce"), z, Supervision(torch.zeros(z.shape)))[:2]
        wide, wide_grad = native.rows(formula("bce"), z.float(), Supervision(torch.zeros(z.shape)))[:2]
        assert grad is not None
        assert wide_grad is not None
        assert torch.equal(value, wide)
        assert torch.equal(grad, wide_grad.to(dtype))


@pytest.mark.parametrize("gamma", [0.3, 0.5, 1, 2, 3, 5, 6, 7, 8, 8.5, 9, 12])
@pytest.mark.parametrize("detach", [False, True])
def test_every_exponent(gamma: float, detach: bool) -> None:
    z, y = batch(3, 600)
    for clip in (0.0, 0.05, 0.5):
        compare(CATALOG["asl"](gamma, gamma, clip, detach), z.float(), Supervision(y))


def test_curves_of_ones_own_are_refused_with_a_reason() -> None:
    def mine(z: Tensor) -> Values:
        return polynomial_negative(z)

    loss = Formula(Curve(mine), Curve(polynomial_negative), Sum())
    assert native.refusal(loss, torch.zeros(2, 3)) == f"it has no loop for {loss}"
    many = formula(f"apl(alphas=({', '.join(['0.1'] * 9)}))")
    assert "no loop for apl" in str(native.refusal(many, torch.zeros(2, 3)))
    doubled = Formula(formula("zlpr(scale=2)").positive, formula("zlpr(scale=2)").negative, NoneClass())
    assert "no loop for exponent" in str(native.refusal(doubled, torch.zeros(2, 3)))
    assert [spec for spec in VARIANTS if native.refusal(formula(spec), torch.zeros(2, 3)) is not None] == []


def test_a_curve_that_the_library_does_not_have_yet_is_left_to_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = printed_sides(formula("bce"))
    assert sides is not None
    monkeypatch.setattr(native, "printed_sides", lambda _: (sides[0], sides[1]._replace(name="not_printed_yet")))
    assert native.template.__wrapped__(formula("bce")) is None


# not two_way: its other half compares rows, and six matrices of one row are not a matrix of six
@pytest.mark.parametrize("name", [name for name in CATALOG if name != "two_way"])
@pytest.mark.parametrize("reduction", ["mean", "batchmean", "sum"])
def test_the_short_way_for_plain_batches_is_the_long_way(name: str, reduction: str) -> None:
    """The same batch as a matrix, which takes the short way, and with one more dimension, which does not."""
    z, y = batch(6, 40)
    module = lopsided.MultiLabelLoss(name, reduction=reduction)
    for dtype in BUDGET:
        for targets in (y.to(dtype), y.bool(), y.byte()):
            results = []
            for shape in ((6, 40), (6, 1, 40)):
                leaf = z.to(dtype, copy=True).requires_grad_()
                value = module(leaf.view(shape), targets.view(shape))
                (value * 3).backward()
                results.append((value, leaf.grad))
            torch.testing.assert_close(*results)


def test_hooks_that_read_what_is_saved_find_the_gradient() -> None:
    z, y = batch(4, 300)
    leaf = z.float().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(Tensor.clone, lambda kept: kept):
        value = lopsided.BinaryCrossEntropyLoss()(leaf, y.float())
    value.backward()
    expected = z.requires_grad_()
    torch.nn.functional.binary_cross_entropy_with_logits(expected, y).backward()
    torch.testing.assert_close(leaf.grad, expected.grad, check_dtype=False)


@pytest.mark.slow
def test_hooks_are_respected_where_torch_does_not_tell_of_them() -> None:
    """Before torch 2.8 it has no such function."""
    program = """
import torch
if hasattr(torch._C._autograd, '_top_saved_tensors_default_hooks'):  # torch 2.6 has it not
    del torch._C._autograd._top_saved_tensors_default_hooks
import lopsided
z, y = torch.randn(4, 300, requires_grad=True), (torch.rand(4, 300) < 0.1).float()
with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda kept: kept):
    lopsided.BinaryCrossEntropyLoss()(z, y).backward()
found, z.grad = z.grad, None
torch.nn.functional.binary_cross_entropy_with_logits(z, y).backward()
torch.testing.assert_close(found, z.grad)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_default_device_is_not_that_of_the_value(dtype: torch.dtype) -> None:
    z, y = batch(4, 300)
    expected = lopsided.BinaryCrossEntropyLoss()(z.to(dtype), y.float())
    with torch.device("meta"):
        value = lopsided.BinaryCrossEntropyLoss()(z.to(dtype), y.float())
    assert torch.equal(value, expected)


def test_unknown_labels_are_found_on_the_way() -> None:
    """A NaN changes what the mean divides by, which is not known before all targets were read."""
    z, y = batch(7, 600)
    holes = y.masked_fill(torch.rand(y.shape, generator=torch.Generator().manual_seed(2)) < 0.3, torch.nan)
    for name in ("asl", "zlpr"):
        for reduction in ("mean", "batchmean", "sum", "none"):
            for targets in (holes, y):
                found = [
                    lopsided.MultiLabelLoss(name, reduction=reduction, backend=backend)(z, targets)
                    for backend in ("native", "eager")
                ]
                torch.testing.assert_close(*found)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_step_takes_no_more_memory_than_its_gradient() -> None:
    result = subprocess.run([sys.executable, ROOT / "tests/peak.py"], capture_output=True, text=True, check=False)
    if "clear_refs" in result.stderr:
        pytest.skip("the peak cannot be reset here")
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) <= 2 << 20


def test_more_entries_than_labels_are_no_more_labels() -> None:
    """A row may list a label any number of times; the last counts."""
    many = SparseTargets(
        torch.tensor([0, 4000]), torch.ones(4000, dtype=torch.long), torch.tensor([1.0, 0]).repeat(2000)
    )
    for loss in ("asl", "zlpr"):
        compare(formula(loss), torch.randn(1, 6), Supervision.of(many))


def test_the_default_device_is_left_alone() -> None:
    z, y = torch.randn(4, 30), torch.ones(4, 30)
    expected = lopsided.AsymmetricLoss()(z, y)
    with torch.device("meta"):
        assert torch.equal(lopsided.AsymmetricLoss()(z, y), expected)


def test_gradients_of_half_floats_are_not_lost_before_a_loss_scaler_comes() -> None:
    z = torch.linspace(-12, -8, 40_000).view(40, -1)
    y = torch.zeros_like(z)
    leaf = z.half().requires_grad_()
    (lopsided.BinaryCrossEntropyLoss()(leaf, y) * 65536).backward()
    assert leaf.grad is not None
    expected = torch.sigmoid(leaf.detach().float()) * 65536 / z.numel()
    torch.testing.assert_close(leaf.grad.float(), expected, rtol=2e-2, atol=1e-7)


def test_what_is_recorded_otherwise_is_left_to_the_eager_executor() -> None:
    z, y = torch.randn(4, 30), torch.ones(4, 30)
    loss = lopsided.AsymmetricLoss()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(lambda z: loss(z, y), (z,))
    torch.testing.assert_close(traced(z + 1), loss(z + 1, y))


def test_a_changed_loss_is_not_taken_for_the_one_it_was_made_from() -> None:
    changed = dataclasses.replace(formula("asl"), negative=Curve(polynomial_negative))
    assert changed.name == ""
    odd = Formula(changed.positive, Curve(polynomial_negative, (("constant", 0.5),)), Sum())
    assert "no loop" in str(native.refusal(odd, torch.zeros(2, 3)))
