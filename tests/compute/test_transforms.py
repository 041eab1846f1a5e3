"""What torch does with functions: vmap, torch.func, forward mode, batched gradients, traces, fake and meta tensors."""

import pytest
import torch
import torch.autograd.forward_ad as forward_mode
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.flop_counter import FlopCounterMode

import lopsided
from lopsided.compute.native import run as native
from lopsided.losses import CATALOG
from lopsided.nn.functional import multilabel_loss
from tests.variants import example

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),  # of torch's own code
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),  # shapes are constants of a trace
]

SOME = ["bce", "asl", "zlpr", "softmax", "lsep", "two_way"]
EXPLICIT = ["native", "streamed"]


def batch() -> tuple[Tensor, Tensor]:
    z, y = example()
    return z.double(), (y > 0.5).double()


def own_gradient(z: Tensor, y: Tensor, name: str) -> Tensor:
    leaf = z.clone().requires_grad_()
    return torch.autograd.grad(multilabel_loss(leaf, y, name, backend="eager"), leaf)[0]


@pytest.mark.parametrize("name", SOME)
def test_forward_mode_is_the_gradient_times_the_direction(name: str) -> None:
    z, y = batch()
    direction = torch.randn_like(z)
    expected = (own_gradient(z, y, name) * direction).sum()
    value, tangent = torch.func.jvp(lambda z: multilabel_loss(z, y, name), (z,), (direction,))[:2]
    torch.testing.assert_close(tangent, expected)
    torch.testing.assert_close(value, multilabel_loss(z, y, name))
    with forward_mode.dual_level():
        dual = multilabel_loss(forward_mode.make_dual(z, direction), y, name)
        torch.testing.assert_close(forward_mode.unpack_dual(dual).tangent, expected)


@pytest.mark.parametrize("name", SOME)
def test_gradients_of_single_rows(name: str) -> None:
    z, y = batch()
    each = torch.func.vmap(torch.func.grad(lambda z, y: multilabel_loss(z[None], y[None], name)))(z, y)
    for row in range(len(z)):
        torch.testing.assert_close(each[row], own_gradient(z[row : row + 1], y[row : row + 1], name)[0])


@pytest.mark.parametrize("name", SOME)
def test_hessians(name: str) -> None:
    z, y = (tensor[:2, :4].contiguous() for tensor in batch())
    expected = torch.autograd.functional.hessian(lambda z: multilabel_loss(z, y, name, backend="eager"), z)
    torch.testing.assert_close(torch.func.hessian(lambda z: multilabel_loss(z, y, name))(z), expected)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("backend", ["auto", "eager", "streamed"])
def test_batched_gradients(reduction: str, backend: str) -> None:
    z, y = batch()
    leaf = z.clone().requires_grad_()
    value = multilabel_loss(leaf, y, "asl", reduction=reduction, backend=backend)
    factors = torch.randn(3, *value.shape, dtype=value.dtype)
    factors[0] = 1
    (together,) = torch.autograd.grad(value, leaf, factors, is_grads_batched=True, retain_graph=True)
    for factor, found in zip(factors, together, strict=True):
        torch.testing.assert_close(found, torch.autograd.grad(value, leaf, factor, retain_graph=True)[0])


def test_masks_and_weights_are_followed_too() -> None:
    z, y = batch()
    mask, weight = torch.rand(z.shape) < 0.7, torch.rand(z.shape[1], dtype=z.dtype)

    def loss(z: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        return multilabel_loss(z, y, "asl", mask=mask, weight=weight, label_smoothing=0.1)

    each = torch.func.vmap(loss)(z, y, mask)
    torch.testing.assert_close(each, torch.stack([loss(*row) for row in zip(z, y, mask, strict=True)]))


@pytest.mark.parametrize("backend", EXPLICIT)
def test_an_explicit_backend_refuses_what_it_cannot_follow(backend: str) -> None:
    z, y = batch()

    def loss(z: Tensor) -> Tensor:
        return multilabel_loss(z, y, "asl", backend=backend)

    with pytest.raises(RuntimeError, match=f"backend='{backend}' cannot run: .*backend='auto' takes another"):
        torch.func.jvp(loss, (z,), (z,))
    with pytest.raises(RuntimeError, match=f"backend='{backend}' cannot run"):
        torch.func.grad(loss)(z)
    with pytest.raises(RuntimeError, match=f"backend='{backend}' cannot run"):
        make_fx(loss)(z)
    with forward_mode.dual_level(), pytest.raises(RuntimeError, match=f"backend='{backend}' cannot run"):
        loss(forward_mode.make_dual(z, z))
    with pytest.raises(RuntimeError, match=f"backend='{backend}' cannot run"):
        torch.jit.trace(loss, (z,), check_trace=False)


def test_tangents_of_targets_and_weights_are_refused() -> None:
    z, y = batch()
    with forward_mode.dual_level():
        with pytest.raises(ValueError, match="targets require grad"):
            multilabel_loss(z, forward_mode.make_dual(y, y), "asl")
        with pytest.raises(ValueError, match="pos_weight require grad"):
            multilabel_loss(z, y, "asl", pos_weight=forward_mode.make_dual(y[0], y[0]))


@pytest.mark.parametrize("name", SOME)
def test_a_trace_is_a_function_of_the_logits(name: str) -> None:
    z, y = batch()
    criterion = lopsided.MultiLabelLoss(name)
    traced = torch.jit.trace(lambda z: criterion(z, y), (z,), check_trace=False)
    torch.testing.assert_close(traced(2 * z), criterion(2 * z, y))
    torch.testing.assert_close(make_fx(lambda z: criterion(z, y))(z)(2 * z), criterion(2 * z, y))


@pytest.mark.parametrize("name", CATALOG)
def test_fake_tensors_have_the_shape_of_the_loss(name: str) -> None:
    criterion = lopsided.MultiLabelLoss(name)
    with FakeTensorMode():
        z = torch.randn(6, 7, requires_grad=True)
        value = criterion(z, torch.ones(6, 7))
        value.backward()
    assert isinstance(value, FakeTensor)
    assert value.shape == ()
    assert z.grad is not None
    assert z.grad.shape == z.shape


def test_modes_that_only_look_see_the_same_value() -> None:
    z, y = batch()
    for backend in ("auto", "streamed", "eager", *([] if isinstance(native.library(), str) else ["native"])):
        with FlopCounterMode(display=False):
            value = multilabel_loss(z, y, "bce", backend=backend)
        torch.testing.assert_close(value, binary_cross_entropy_with_logits(z, y))


@pytest.mark.parametrize("name", CATALOG)
def test_modules_are_made_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        criterion = lopsided.MultiLabelLoss(name)
        head = lopsided.LinearHead(4, 9, name, prior=0.1)
        fresh = lopsided.losses.formula(f"{name}()" if name in CATALOG else name)
    assert fresh == criterion.formula
    assert head.weight.is_meta
    z, y = batch()
    torch.testing.assert_close(criterion(z, y), lopsided.MultiLabelLoss(name)(z, y))
    assert criterion(z.to("meta"), y.to("meta")).is_meta


def test_thresholds_and_posteriors_do_not_depend_on_the_default_device() -> None:
    z, _ = batch()
    for criterion in (lopsided.AsymmetricLoss(), lopsided.FocalLoss(gamma=1.23), lopsided.ZLPRLoss()):
        with torch.device("meta"):
            threshold = criterion.decision_threshold()
            posterior = None if criterion.formula == lopsided.losses.formula("zlpr") else criterion.posterior(z)
        torch.testing.assert_close(threshold, criterion.decision_threshold())
        if posterior is not None:
            torch.testing.assert_close(posterior, criterion.posterior(z))
    with torch.device("meta"):
        assert lopsided.losses.closed_form.discarding_point(lopsided.losses.formula("asl")) > 2
