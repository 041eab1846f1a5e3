"""`lopsided doctor`, and life without the C library."""

import sys
from collections.abc import Iterator

import pytest
import torch

import lopsided
from lopsided.__main__ import main
from lopsided.compute.native import run as native
from lopsided.jobs.doctor import findings
from lopsided.jobs.threads import how_they_wait, wait_asleep
from lopsided.losses import CATALOG, formula
from lopsided.nn.functional import multilabel_loss
from tests.variants import example

WHY = "the C library was not built, for want of a compiler at installation"


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    native.template.cache_clear()
    monkeypatch.setattr(native, "library", lambda: WHY)
    yield
    native.template.cache_clear()


@pytest.mark.skipif(isinstance(native.library(), str), reason=str(native.library()))
def test_says_what_is_active(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert str(native.library()._name) in "".join(printed.split()), "a long path is not cut"  # type: ignore[union-attr]
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["doctor"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for text in (how_they_wait(), lopsided.__version__, torch.__version__, "native on the CPU", "backend='eager'"):
        assert text in said
    assert findings()["native losses"] == ", ".join(CATALOG)
    assert findings()["threads"].startswith(str(torch.get_num_threads()))


@pytest.mark.parametrize(
    ("given", "loaded", "said"),
    [
        ({}, False, "threads wait as OMP_WAIT_POLICY=PASSIVE says"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, False, "threads wait as OMP_WAIT_POLICY=ACTIVE says"),
        ({"GOMP_SPINCOUNT": "100"}, False, "threads wait as GOMP_SPINCOUNT=100 says"),
        ({}, True, "threads wait busily, as OpenMP's do by default"),
    ],
)
def test_threads_wait_asleep_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], loaded: bool, said: str
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.setenv(name, "none")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    if not loaded:
        monkeypatch.delitem(sys.modules, "torch")
    wait_asleep()
    assert how_they_wait() == said


@pytest.mark.usefixtures("without_library")
def test_says_why_it_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert WHY in said
    assert "install a C compiler" in said


@pytest.mark.usefixtures("without_library")
@pytest.mark.parametrize("name", CATALOG)
def test_everything_works_without_it(name: str) -> None:
    z, y = example()
    torch.testing.assert_close(multilabel_loss(z, y, name), multilabel_loss(z, y, name, backend="eager"))
    with pytest.raises(RuntimeError, match=f"backend='native' cannot run: {WHY}; backend='auto' takes another"):
        multilabel_loss(z, y, name, backend="native")


@pytest.mark.skipif(isinstance(native.library(), str), reason=str(native.library()))
def test_a_backend_that_is_asked_for_runs_or_says_why() -> None:
    z, y = example()
    for name in CATALOG:
        one, other = (multilabel_loss(z, y, name, backend=backend) for backend in ("native", "auto"))
        assert one == other
        torch.testing.assert_close(one, multilabel_loss(z, y, name, backend="eager"))
    with pytest.raises(ValueError, match="backend must be one of auto, eager, streamed, native, triton; got 'cuda'"):
        multilabel_loss(z, y, "asl", backend="cuda")
    with pytest.raises(RuntimeError, match="it serves the CPU, and the logits are on meta"):
        multilabel_loss(z.to("meta"), y.to("meta"), "asl", backend="native")


@pytest.mark.skipif(isinstance(native.library(), str), reason=str(native.library()))
def test_second_derivatives_are_refused_with_the_way_out() -> None:
    z, y = example()
    z.requires_grad_()
    for reduction in ("mean", "none"):
        value = multilabel_loss(z, y, "asl", reduction=reduction)
        with pytest.raises(RuntimeError, match="only the eager executor has second derivatives: pass backend='eager'"):
            torch.autograd.grad(value.sum(), z, create_graph=True)
    (grad,) = torch.autograd.grad(multilabel_loss(z, y, "asl", backend="eager"), z, create_graph=True)
    torch.autograd.grad(grad.square().sum(), z)


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "batchmean"])
def test_gradients_of_every_reduction_and_factor(name: str, reduction: str) -> None:
    """The scale is folded into the native gradient; what comes from above is multiplied."""
    if formula(name).pool.transposed and reduction == "none":
        return
    z, y = example()
    for factor in (1.0, -2.5):
        grads = []
        for backend in ("auto", "eager"):
            leaf = z.clone().requires_grad_()
            value = multilabel_loss(leaf, y, name, reduction=reduction, backend=backend)
            (factor * value).sum().backward()
            grads.append(leaf.grad)
        torch.testing.assert_close(*grads)


def test_backward_twice_through_a_kept_graph() -> None:
    z, y = example()
    z.requires_grad_()
    value = multilabel_loss(z, y, "asl")
    value.backward(retain_graph=True)
    assert z.grad is not None
    first = z.grad.clone()
    z.grad.zero_()  # must not reach what is kept for the next time
    value.backward()
    torch.testing.assert_close(z.grad, first)
