"""The Triton executor against the eager one: every loss, target, dtype and odd size.

On a GPU where there is one. Else `test_triton_interpreter.py` runs this file and `test_triton_kernels.py` in a process
whose Triton interprets its kernels on the CPU, a smaller choice of cases.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

import lopsided
from lopsided import SparseTargets, linear_loss
from lopsided.compute import eager
from lopsided.compute.triton import run as triton
from lopsided.losses import CATALOG, Formula, formula
from lopsided.nn.functional import multilabel_loss
from lopsided.targets import Supervision
from tests.batches import batch, check_nan_is_seen_unless_masked, said
from tests.compute.test_native import BUDGET
from tests.variants import VARIANTS, every_variant, example

GPU = torch.cuda.is_available() and not isinstance(triton.library(), str)
DEVICE = "cuda" if GPU else "cpu"
WHY = triton.library() if isinstance(triton.library(), str) else "no GPU; see test_triton_interpreter.py"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPU and not triton.is_interpreted(), reason=str(WHY)),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # of numpy, for what selects then throw away
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),  # dynamo's own
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SOME = ["asl", "apl", "zlpr", "two_way", "bp_mll", "softmax", "hinge_abl", "decoupled", "ncrl"]
NAMES = list(CATALOG) if GPU else SOME
SIZES = [1, 15, 16, 17, 1023, 1024, 1025, 40_000] if GPU else [1, 17, 130]


def to(labels: Supervision, device: str) -> Supervision:
    return labels.with_tensors([None if tensor is None else tensor.to(device) for tensor in labels.tensors])


def compare(loss: Formula, z: Tensor, labels: Supervision) -> None:
    """Against the eager executor in float64, at the same logits; into memory full of NaN."""
    value_budget, gradient_budget = BUDGET[z.dtype]
    if z.dtype == torch.bfloat16 and triton.is_interpreted():
        gradient_budget *= 2  # the interpreter cuts bits off where a GPU rounds
    exact = z.detach().double().requires_grad_()
    expected = eager.rows(loss, exact, labels).values
    (expected_grad,) = torch.autograd.grad(expected.sum(), exact)
    out = torch.full(z.shape, torch.nan, dtype=z.dtype, device=DEVICE)
    value, grad = triton.rows(loss, z.to(DEVICE), to(labels, DEVICE), scale=0.5, out=out)[:2]
    assert grad is not None
    assert grad.data_ptr() == out.data_ptr()
    assert value.dtype == torch.float32
    assert ((2 * value.cpu() - expected).abs() <= value_budget * expected.abs().clamp_min(1)).all()
    room = gradient_budget * expected_grad.abs().max().clamp_min(0.1)
    assert ((2 * grad.double().cpu() - expected_grad).abs() <= room).all()
    alone, nothing = triton.rows(loss, z.to(DEVICE), to(labels, DEVICE), with_gradient=False)[:2]
    assert nothing is None
    torch.testing.assert_close(alone, 2 * value, rtol=value_budget, atol=value_budget)  # its tile may be another


@every_variant
def test_every_loss_and_dtype(spec: str) -> None:
    z, y = batch(6, 1100 if GPU else 70)
    y[0], y[1] = 0, 1
    soft = torch.rand(z.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for dtype in DTYPES if GPU else [DTYPES[VARIANTS.index(spec) % 3]]:
        for targets in (y.byte(), soft):
            compare(formula(spec), z.to(dtype), Supervision(targets))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("labels", SIZES)
def test_every_kind_of_labels_and_odd_sizes(name: str, labels: int) -> None:
    z, y = batch(3, labels)
    ways = said(z, y)
    for way in ways if GPU else ways[SIZES.index(labels) + NAMES.index(name) % 2 :: 4]:
        compare(formula(name), z.float(), way)


@pytest.mark.parametrize("name", ["asl", "lsep", "atl", "decoupled", "hinge_abl", "ncrl"])
def test_rows_in_parts_and_rows_in_tiles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of a row spread over programs, the last tile of each uneven; tiles of several rows, the last uneven."""
    monkeypatch.setattr(triton, "_SPAN", 96)
    monkeypatch.setattr(triton, "TILES", (triton.Tile(32, 1),))
    for rows, labels in ((2, 250), (5, 7)):
        z, y = batch(rows, labels)
        for way in (Supervision(y), said(z, y)[-2]):
            compare(formula(name), z.float(), way)


@pytest.mark.parametrize("name", ["asl", "zlpr"])
def test_shapes_and_strides(name: str) -> None:
    loss = formula(name)
    z, y = (tensor.float().to(DEVICE) for tensor in batch(6, 40))
    whole, grad = triton.rows(loss, z, Supervision(y))[:2]
    assert grad is not None
    cases = {
        "leading dimensions": (z.view(2, 3, 40), y.view(2, 3, 40)),
        "one row": (z[2], y[2]),
        "transposed": (z.T.contiguous().T, y.T.contiguous().T),
        "every second column of a wider matrix": (torch.repeat_interleave(z, 2, 1)[:, ::2], y),
        "rows of a wider matrix": (torch.cat([z, z], 1)[:, :40], torch.cat([y, y], 1)[:, :40]),
        "dimensions in another order": (z.view(2, 3, 40).mT.contiguous().mT, y.view(2, 3, 40)),
        "no rows": (z[:0], y[:0]),
    }
    for logits, targets in cases.values():
        value, gradient = triton.rows(loss, logits, Supervision(targets))[:2]
        assert gradient is not None
        assert value.shape == logits.shape[:-1]
        assert gradient.shape == logits.shape
        assert gradient.is_contiguous()
        picked, slopes = (whole[2], grad[2]) if logits.ndim == 1 else (whole, grad)
        torch.testing.assert_close(value.flatten(), picked.flatten()[: value.numel()])
        torch.testing.assert_close(gradient.flatten(), slopes.flatten()[: gradient.numel()])
    compare(loss, z[:1].cpu().expand(6, 40), Supervision(y.cpu()))


@pytest.mark.parametrize("name", NAMES)
def test_finite_for_every_finite_logit(name: str) -> None:
    for dtype in DTYPES:
        largest = torch.finfo(dtype).max / 4
        points = [0.0, 1e-4, 0.5, 3, 10, 17, 20, 60, 88, 104, 710, 1e4, 6e4, largest]
        z = torch.tensor([[x * sign] for x in points for sign in (1, -1)], dtype=dtype, device=DEVICE)
        for target in (0.0, 1.0, 0.3):
            value, grad = triton.rows(formula(name), z, Supervision(torch.full_like(z, target)))[:2]
            assert grad is not None
            assert value.isfinite().all()
            assert grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_nan_logits_are_seen_unless_masked(name: str) -> None:
    z, y = (tensor.float().to(DEVICE) for tensor in batch(4, 30))
    y[:, :2] = torch.tensor([1.0, 0.0])
    z[1, 3] = torch.nan
    for targets in (y, y.byte()):
        check_nan_is_seen_unless_masked(triton.rows, formula(name), z, targets)


@pytest.mark.parametrize("name", ["atl", "mean_sat", "hinge_abl"])
def test_infinite_logits_cost_nothing_on_the_right_side_and_no_end_on_the_wrong_one(name: str) -> None:
    y = torch.tensor([[1, 1, 0, 0]] * 2, device=DEVICE)
    z = torch.where(y > 0, torch.inf, -torch.inf)
    z[1] = -z[1]
    value, grad = triton.rows(formula(name), z, Supervision(y))[:2]
    assert grad is not None
    assert value.tolist() == [0, torch.inf]
    assert not grad[0].any()
    assert (grad[1, :2] < 0).all()
    assert (grad[1, 2:] > 0).all()


def test_infinite_logits_on_the_right_side_cost_nothing() -> None:
    z = torch.tensor([[torch.inf, -torch.inf, 0.5]], device=DEVICE)
    y = torch.tensor([[1, 0, 1]], device=DEVICE)
    for targets in (y, y.float()):
        value, grad = triton.rows(formula("bce"), z, Supervision(targets))[:2]
        assert grad is not None
        torch.testing.assert_close(value, torch.nn.functional.softplus(torch.tensor([-0.5], device=DEVICE)))
        assert grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0.3, 1, 2, 3, 5, 6, 7, 8, 8.5] if GPU else [0.3, 5, 6, 7, 8])
def test_every_exponent(gamma: float) -> None:
    z, y = batch(3, 64)
    compare(CATALOG["asl"](gamma, gamma, 0.05, False), z.float(), Supervision(y))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inplace", [False, True])
def test_gradients_of_every_reduction_and_factor(dtype: torch.dtype, inplace: bool) -> None:
    z, y = (tensor.to(DEVICE) for tensor in batch(4, 30))
    holes = y.masked_fill(z > 5, torch.nan)
    for name in ("asl", "lsep") if GPU else ("asl",):
        for targets, reduction in ((y.byte(), "sum"), (holes, "mean"), (y.byte(), "none")):
            for factor in (1.0, -2.5):
                found = []
                for backend, over in (("triton", inplace), ("eager", False)):
                    leaf = z.to(dtype).requires_grad_()
                    value = multilabel_loss(leaf * 1, targets, name, reduction=reduction, backend=backend, inplace=over)
                    (factor * value).sum().backward()
                    found.append((value.detach(), leaf.grad))
                torch.testing.assert_close(*found)


def test_the_gradient_lies_over_the_logits_on_request() -> None:
    z, y = torch.randn(4, 30, device=DEVICE), torch.ones(4, 30, device=DEVICE)
    leaf = z.clone().requires_grad_()
    logits = leaf * 1
    value = multilabel_loss(logits, y, "bce", reduction="sum", backend="triton", inplace=True)
    torch.testing.assert_close(logits.detach(), torch.sigmoid(z) - 1)
    value.backward(retain_graph=True)
    torch.testing.assert_close(leaf.grad, torch.sigmoid(z) - 1)
    with pytest.raises(RuntimeError, match="inplace=True has written the gradient over the logits"):
        value.backward()
    with pytest.raises(ValueError, match="logits that are a leaf"):
        multilabel_loss(leaf, y, "bce", inplace=True)
    for view, dim in (
        (z.clone()[:2].requires_grad_(), -1),
        (leaf.view(2, 2, 30), -1),
        (leaf[:2], -1),
        (leaf.view(4, 30, 1), 1),
    ):
        with pytest.raises(ValueError, match="logits that are a leaf"):
            multilabel_loss(view, torch.ones_like(view).detach(), "bce", backend="triton", inplace=True, label_dim=dim)
    assert torch.equal(leaf.detach(), z)
    squashed = torch.tanh(leaf)  # needs its result to go back
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        multilabel_loss(squashed, y, "bce", backend="triton", inplace=True).backward()


def test_backward_twice_through_a_kept_graph() -> None:
    z, y = (tensor.float().to(DEVICE) for tensor in batch(4, 30))
    leaf = z.requires_grad_()
    value = 3 * multilabel_loss(leaf, y, "asl", backend="triton")
    (first,) = torch.autograd.grad(value, leaf, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(value, leaf)
    torch.testing.assert_close(second, kept)
    assert torch.equal(first, kept)


def test_second_derivatives_are_refused() -> None:
    z, y = (tensor.float().to(DEVICE) for tensor in batch(4, 30))
    for reduction in ("mean", "none"):
        value = multilabel_loss(z.requires_grad_(), y, "asl", backend="triton", reduction=reduction)
        with pytest.raises(RuntimeError, match="only the eager executor has second derivatives: pass backend='eager'"):
            torch.autograd.grad(value.sum(), z, create_graph=True)


def test_gradients_of_half_floats_are_not_lost_before_a_loss_scaler_comes() -> None:
    leaf = torch.linspace(-12, -8, 400, device=DEVICE).view(4, -1).half().requires_grad_()
    (multilabel_loss(leaf, torch.zeros_like(leaf).detach(), "bce", backend="triton") * 65536).backward()
    expected = torch.sigmoid(leaf.detach().float()) * 65536 / leaf.numel()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad.float(), expected, rtol=2e-2, atol=1e-7)


@pytest.mark.parametrize("name", ["asl", "zlpr", "softmax", "decoupled", "hinge_abl", "ncrl"])
def test_a_head_in_chunks(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(shape, generator=generator).to(DEVICE) for shape in ((4, 5), (70, 5)))
    y = batch(4, 70, 0.05)[1].to(DEVICE)
    listed = SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in y]).to(DEVICE)
    for targets, reduction in ((y, "mean"), (listed, "none")):
        found = []
        for backend in ("triton", "eager"):
            h, w = (leaf.clone().requires_grad_() for leaf in (hidden, weight))
            value = linear_loss(h, w, None, targets, name, reduction=reduction, backend=backend, chunk=32)
            found.append((value.detach(), *torch.autograd.grad(3 * value.sum(), (h, w))))
        torch.testing.assert_close(*found)


def test_rescaling() -> None:
    x = torch.randn(5000, device=DEVICE)
    for factor in (1.0, -2.5):
        found = triton.rescale_(x.clone(), torch.tensor(factor, device=DEVICE))
        torch.testing.assert_close(found, x * factor)


@pytest.mark.parametrize("name", ["asl", "zlpr"])
def test_inside_a_compiled_graph(name: str) -> None:
    z, y = (tensor.float().to(DEVICE) for tensor in example())
    listed = SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in y]).to(DEVICE)
    module = lopsided.MultiLabelLoss(name, label_smoothing=0.1, reduction="none", backend="triton")
    seen: list[str] = []

    def look(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    torch.compiler.reset()
    torch.compile(module, fullgraph=True, backend=look)(z, y)
    assert "lopsided.rows" in seen
    compiled = torch.compile(lambda z, y: module(z, y).square().sum(), fullgraph=True, backend="aot_eager")
    for targets in (y, listed):
        found = []
        for function in (compiled, lambda z, t: module(z, t).square().sum()):
            leaf = z.clone().requires_grad_()
            value = function(leaf, targets)
            value.backward()
            found.append((value.detach(), leaf.grad))
        torch.testing.assert_close(*found)


def test_the_operators_keep_their_promises() -> None:
    """Schema, fake and autograd registration, as torch itself examines them."""
    z, y = (tensor.float().to(DEVICE) for tensor in example())
    said = y, *[None] * 5, 0.1, None, "asl", "triton"
    torch.library.opcheck(torch.ops.lopsided.rows.default, (z.clone().requires_grad_(), *said, False))
    torch.library.opcheck(torch.ops.lopsided.gradient.default, (torch.rand(len(z), device=DEVICE), z, *said))


def test_what_it_does_not_serve_is_said() -> None:
    z, y = (tensor.float().to(DEVICE) for tensor in example())
    with pytest.raises(RuntimeError, match=r"it has no kernel for torch.float64 logits; backend='auto' takes another"):
        multilabel_loss(z.double(), y, "asl", backend="triton")
    with pytest.raises(RuntimeError, match="it has no kernel for apl"):
        multilabel_loss(z, y, f"apl(alphas=({', '.join(['0.1'] * 9)}))", backend="triton")
    with pytest.raises(RuntimeError, match="it serves GPUs, and the logits are on meta"):
        multilabel_loss(z.to("meta"), y.to("meta"), "asl", backend="triton")
