"""The head without logits, against the same loss of logits that are held."""

import warnings
import weakref
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lopsided
from lopsided import LinearHead, SparseTargets, linear_loss
from lopsided.compute import onednn as products
from lopsided.compute.native import run as native
from lopsided.losses import CATALOG, closed_form, formula
from tests.batches import batch
from tests.variants import VARIANTS, every_variant

ROOT = Path(__file__).parents[2]
needs_library = pytest.mark.skipif(isinstance(native.library(), str), reason="the C library is not built")
BACKENDS = [pytest.param("native", marks=needs_library), "streamed"]
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def every_way(argument: str, specs: Iterable[str]) -> pytest.MarkDecorator:
    """Each loss by each backend."""
    marks = {"native": [needs_library], "streamed": []}
    ways = [pytest.param(spec, backend, marks=marks[backend]) for spec in specs for backend in marks]
    return pytest.mark.parametrize((argument, "backend"), ways)


def head(rows: int, features: int, labels: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(labels)
    shapes = (rows, features), (labels, features), (labels,)
    hidden, weight, bias = (torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes)
    return hidden, weight, bias


def listed(y: Tensor) -> SparseTargets:
    return SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in y])


def kinds(y: Tensor) -> dict[str, Tensor | SparseTargets]:
    """The same positives, said in every way; soft ones and unknown ones among them."""
    generator = torch.Generator().manual_seed(0)
    soft = torch.rand(len(listed(y).col), generator=generator)
    soft[::4] = torch.nan
    unsorted = SparseTargets(listed(y).crow, listed(y).col.flip(0)) if len(y) == 1 else listed(y)
    return {
        "dense": y,
        "unknown": y.masked_fill(torch.rand(y.shape, generator=generator) < 0.2, torch.nan),
        "sparse": unsorted,
        "soft": SparseTargets(listed(y).crow, listed(y).col, soft),
    }


def both(arguments: tuple[Any, ...], options: dict[str, Any], **ours: Any) -> None:
    """Value and all gradients as with the logits."""
    upstream = torch.tensor(1.7, dtype=arguments[0].dtype)
    if options.get("reduction") == "none":
        upstream = torch.linspace(-1, 2, len(arguments[0]), dtype=arguments[0].dtype)
    found = []
    for more in ({"backend": "eager"}, ours):
        given: dict[str, Any] = options | more
        value = linear_loss(*arguments, **given)
        found.append((value, *torch.autograd.grad(value, [a for a in arguments[:3] if a is not None], upstream)))
    for expected, ours_ in zip(*found, strict=True):
        torch.testing.assert_close(ours_, expected)


@pytest.mark.slow
@every_way("spec", VARIANTS)
def test_every_loss_and_kind_of_targets(spec: str, backend: str) -> None:
    y = batch(6, 70, 0.05)[1]
    y[2] = 0
    for targets, reduction in product(kinds(y).values(), ("mean", "sum", "batchmean", "none")):
        if "two_way" not in spec or reduction != "none":
            both((*head(6, 5, 70), targets, spec), {"reduction": reduction}, backend=backend, chunk=32)


@every_way("name", CATALOG)
def test_weights_masks_and_smoothing(name: str, backend: str) -> None:
    z, y = batch(6, 70, 0.05)
    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"mask": torch.rand(z.shape, generator=generator) < 0.8, "label_smoothing": 0.1}
    options |= {"label_weight": torch.rand(70, generator=generator), "pos_weight": torch.rand(70, generator=generator)}
    if name != "two_way":
        options["row_weight"] = torch.rand(6, generator=generator)
    for targets in (y, listed(y)):
        for reduction in ("mean", "batchmean"):
            both((*head(6, 5, 70), targets, name), options | {"reduction": reduction}, backend=backend, chunk=32)
    both((*head(6, 5, 70), y.long().masked_fill(z > 5, -1), name), {"ignore_index": -1}, backend=backend, chunk=32)


@pytest.mark.slow
@every_way("name", CATALOG)
def test_gradients_by_differences(name: str, backend: str) -> None:
    smooth = name + "(detach_focus=False)" if name in ("asl", "apl") else name
    for kind, targets in kinds(batch(3, 7, 0.3)[1]).items():
        for reduction in ("mean",) if name == "two_way" or kind in ("unknown", "soft") else ("mean", "none"):

            def function(*leaves: Tensor, t: Any = targets, r: str = reduction) -> Tensor:
                hidden, weight, bias = leaves
                return linear_loss(hidden, weight, bias, t, smooth, reduction=r, backend=backend, chunk=3)

            assert torch.autograd.gradcheck(function, head(3, 2, 7))


@every_backend
def test_empty_batches_and_single_labels(backend: str) -> None:
    for labels, rows in ((90, 0), (1, 3), (1, 0)):
        hidden, weight, bias = head(rows, 5, labels)
        y = torch.zeros(rows, labels)
        for targets in (y, SparseTargets.from_indices([[0]] * rows)):
            for options in (
                {},
                {"mask": torch.zeros(rows, labels, dtype=torch.bool)},
                {"label_weight": torch.ones(rows, labels)},
            ):
                both((hidden, weight, bias, targets, "asl"), options, backend=backend)
                both((hidden, weight, bias, targets, "zlpr"), options, backend=backend)


@pytest.mark.slow
@every_way("name", CATALOG)
def test_neither_chunk_nor_order_of_labels_matters(name: str, backend: str) -> None:
    arguments, y = head(8, 16, 1000, torch.float32), batch(8, 1000, 0.01)[1]
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    value = linear_loss(*arguments, listed(y), name, backend=backend)
    gradients = torch.autograd.grad(value, arguments)
    for chunk in (1, 7, 999, 5000):
        again = linear_loss(*arguments, listed(y), name, chunk=chunk, backend=backend)
        for found, expected in zip((again, *torch.autograd.grad(again, arguments)), (value, *gradients), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-6 * expected.abs().max().item())
    hidden, weight, bias = arguments
    turned = linear_loss(hidden, weight[order], bias[order], listed(y[:, order]), name, backend=backend)
    torch.testing.assert_close(turned, value, rtol=1e-6, atol=1e-6)


def test_leading_dimensions_and_no_bias() -> None:
    hidden, weight, _ = head(6, 5, 70)
    y = batch(6, 70, 0.05)[1]
    both((hidden, weight, None, y, "zlpr"), {})
    cube = linear_loss(hidden.view(2, 3, 5), weight, None, y.view(2, 3, 70), "asl", reduction="none")
    flat = linear_loss(hidden, weight, None, y, "asl", reduction="none")
    torch.testing.assert_close(cube.flatten(), flat)


def test_a_second_backward_and_partial_gradients() -> None:
    hidden, weight, bias = head(6, 5, 70)
    value = linear_loss(hidden, weight, bias, listed(batch(6, 70, 0.05)[1]))
    first = torch.autograd.grad(value, weight, retain_graph=True)[0].clone()
    torch.testing.assert_close(torch.autograd.grad(2 * value, weight)[0], 2 * first)
    for frozen in (hidden, weight, bias):
        frozen.requires_grad_(False).grad = None
        value = linear_loss(hidden, weight, bias, listed(batch(6, 70, 0.05)[1]))
        value.backward()
        assert frozen.grad is None
        frozen.requires_grad_()
    with pytest.raises(RuntimeError, match="backend='eager'"):
        torch.autograd.grad(linear_loss(hidden, weight, bias, batch(6, 70)[1]), hidden, create_graph=True)
    with torch.no_grad():
        assert not linear_loss(hidden, weight, bias, batch(6, 70)[1]).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["asl", "zlpr"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    hidden, weight, bias = (leaf.detach().to(dtype).requires_grad_() for leaf in head(16, 32, 500, torch.float32))
    targets = listed(batch(16, 500, 0.01)[1])
    exact = linear_loss(hidden.double(), weight.double(), bias.double(), targets, name).detach()
    value = linear_loss(hidden, weight, bias, targets, name)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=1e-2, atol=0)
    halves = hidden, weight, bias
    wide = [half.detach().double().requires_grad_() for half in halves]
    found = torch.autograd.grad(65536 * value, halves)  # as a loss scaler does: without, most would be 0 in float16
    expected = torch.autograd.grad(65536 * linear_loss(wide[0], wide[1], wide[2], targets, name), wide)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        assert (one - other).norm() < (2e-3 if dtype == torch.float16 else 2e-2) * other.norm()


def test_autocast_multiplies_in_its_dtype() -> None:
    arguments = head(16, 32, 500, torch.float32)
    targets = listed(batch(16, 500, 0.01)[1])
    with torch.autocast("cpu", torch.bfloat16):
        value = linear_loss(*arguments, targets)
        inside = linear_loss(*arguments, targets, backend="eager")
    torch.testing.assert_close(value, inside, rtol=1e-2, atol=0)
    gradients = torch.autograd.grad(value, arguments)
    assert [gradient.dtype for gradient in gradients] == [torch.float32] * 3
    for found, expected in zip(
        gradients, torch.autograd.grad(linear_loss(*arguments, targets), arguments), strict=True
    ):
        assert (found - expected).norm() < 0.02 * expected.norm()


def test_wrong_inputs_are_named() -> None:
    hidden, weight, bias = head(6, 5, 70)
    y = batch(6, 70)[1]
    with pytest.raises(ValueError, match=r"hidden must be .* got \(6, 4\) and \(70, 5\)"):
        linear_loss(hidden[:, :4], weight, bias, y)
    with pytest.raises(ValueError, match=r"bias must have shape \(70,\)"):
        linear_loss(hidden, weight, bias[:3], y)
    with pytest.raises(ValueError, match="targets have shape"):
        linear_loss(hidden, weight, bias, y[:, :7])
    with pytest.raises(ValueError, match="label indices must lie in"):
        linear_loss(hidden, weight, bias, SparseTargets.from_indices([[70]] * 6))
    with pytest.raises(ValueError, match="chunk must be a positive number"):
        linear_loss(hidden, weight, bias, y, chunk=0)
    with pytest.raises(ValueError, match="compares rows"):
        linear_loss(hidden, weight, bias, y, "two_way", reduction="none")
    with pytest.raises(TypeError, match="hidden must be a floating point"):
        linear_loss(hidden.long(), weight, bias, y)
    with pytest.raises(TypeError, match="weight must be a floating point"):
        linear_loss(hidden, None, bias, y)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bias must be a floating point"):
        linear_loss(hidden, weight, bias.long(), y)
    with pytest.raises(ValueError, match=r"label_weight must have shape \(6, 70\) or \(70,\), got \(3,\)"):
        linear_loss(hidden, weight, bias, y, label_weight=torch.ones(3))
    with pytest.raises(ValueError, match=r"label_weight must have shape \(70,\)"):
        LinearHead(5, 70, label_weight=torch.ones(3))
    with pytest.raises(ValueError, match="hidden must be"):
        linear_loss(hidden[:, :4], weight, bias, y, backend="eager")
    with pytest.raises(ValueError, match="k must be a whole number"):
        LinearHead(5, 70).predict_topk(hidden.float(), 2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hidden must be"):
        LinearHead(6, 70).predict_topk(hidden.float(), 2)
    for wrong in ({"chunk": 0}, {"backend": "x"}, {"in_features": 0}):
        with pytest.raises(ValueError, match=r"chunk|backend|in_features"):
            LinearHead(**({"in_features": 5, "num_labels": 70} | wrong))


def test_what_was_said_may_not_change_before_backward_nor_outlive_it() -> None:
    hidden, weight, bias = head(6, 5, 70)
    for backend in ("auto", "eager"):
        y = batch(6, 70, 0.05)[1]
        value = linear_loss(hidden, weight, bias, y, reduction="none", backend=backend).sum()
        y.zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()
    y = batch(6, 70, 0.05)[1]
    watched = weakref.ref(y)
    value = linear_loss(hidden, weight, bias, y, reduction="none").sum()
    value.backward()
    del y
    assert watched() is None


def test_the_module_keeps_what_it_is_told() -> None:
    torch.manual_seed(0)
    module = LinearHead(5, 70, "bce", pos_weight=torch.full((70,), 2.0), label_smoothing=0.1, reduction="sum")
    hidden, y = torch.randn(6, 5), batch(6, 70, 0.05)[1]
    criterion = lopsided.MultiLabelLoss("bce", pos_weight=torch.full((70,), 2.0), label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(module(hidden, y), criterion(module.logits(hidden), y))
    assert "pos_weight" in module.state_dict()
    assert module.weight.abs().max() <= 5**-0.5
    for name, start in (
        ("bce", -4.59512),
        ("asl", float(closed_form.decision_threshold(formula("asl"), 0.01))),
        ("lsep", 0.0),
    ):
        bias = LinearHead(5, 70, name, prior=0.01).bias
        assert bias is not None
        torch.testing.assert_close(bias.detach(), torch.full((70,), start))


@pytest.mark.parametrize("spec", ["bce", "asl", "hill", "zlpr"])
def test_biases_start_where_the_shares_settle(spec: str) -> None:
    """A prior, a weight and smoothing of each label: there no gradient pulls a label that is positive so often."""
    prior, weight = torch.tensor([0.5, 0.01, 0.2, 1e-4]), torch.tensor([1.0, 4.0, 0.5, 2.0])
    head = LinearHead(3, 4, spec, prior=prior, pos_weight=weight, label_smoothing=0.1)
    assert head.bias is not None
    for label in range(4):  # each alone in its row, since labels of zlpr are coupled
        criterion = lopsided.MultiLabelLoss(spec, pos_weight=weight[label].view(1), label_smoothing=0.1)
        z = head.bias[label].detach().view(1, 1).requires_grad_()
        (grad,) = torch.autograd.grad(criterion(z, prior[label].view(1, 1)), z)
        assert grad.abs().item() < 1e-6


def test_where_no_share_settles_the_bias_starts_at_a_number() -> None:
    starts = (("asl", 0.96, 5.0), ("hill(margin=2)", 0.2, 0.0), ("lsep", 0.2, 0.0), ("bce", 1e-12, -20.0))
    for spec, share, start in starts:
        bias = LinearHead(3, 4, spec, prior=share).bias
        assert bias is not None
        assert bias.tolist() == [start] * 4, spec
    priors: list[float | Tensor] = [1.0, 0.0, torch.tensor([0.2, 0.0, 0.3]), torch.full((3,), torch.nan)]
    for prior in priors:
        with pytest.raises(ValueError, match=r"prior must lie in \(0, 1\)"):
            LinearHead(5, 3, prior=prior)
    with pytest.raises(ValueError, match="needs a bias"):
        LinearHead(5, 3, prior=0.1, bias=False)
    with pytest.raises(ValueError, match=r"must be a number or have shape \(3,\), got \(2,\)"):
        LinearHead(5, 3, prior=torch.tensor([0.1, 0.2]))


@every_variant
def test_batchmean_counts_the_rows_that_know_a_label(spec: str) -> None:
    hidden, weight = torch.randn(5, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    y = (torch.rand(5, 6) < 0.4).double()
    y[1:3], y[4, 0] = torch.nan, torch.nan
    y[3] = 0  # known, and without a positive
    expected = lopsided.functional.multilabel_loss(hidden @ weight.T, y, spec, reduction="batchmean")
    torch.testing.assert_close(linear_loss(hidden, weight, None, y, spec, reduction="batchmean", chunk=4), expected)


def test_row_weights_do_not_lower_the_precision() -> None:
    hidden = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight, y = torch.randn(7, 3, dtype=torch.float64), torch.rand(5, 7) < 0.4
    row_weight = torch.tensor([0.1, 0.3, 0.7, 0.9, 0.2])
    ways = (
        linear_loss(hidden, weight, None, y, "bce", row_weight=row_weight),
        lopsided.functional.multilabel_loss(hidden @ weight.T, y, "bce", row_weight=row_weight),
    )
    (ours,), (expected,) = (torch.autograd.grad(value, hidden) for value in ways)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)


def test_topk_breaks_ties_by_label() -> None:
    generator = torch.Generator().manual_seed(0)
    module = LinearHead(3, 500, bias=False, chunk=64)
    with torch.no_grad():
        module.weight.copy_(torch.randint(-1, 2, (500, 3), generator=generator))  # many equal logits
    hidden = torch.randint(-1, 2, (40, 3), generator=generator).float()
    expected = module.logits(hidden).sort(dim=1, descending=True, stable=True)
    for k in (1, 5, 63, 500):
        scores, labels = module.predict_topk(hidden, k)
        assert torch.equal(scores, expected.values[:, :k])
        assert torch.equal(labels, expected.indices[:, :k])
    cube = module.predict_topk(hidden.view(4, 10, 3), 2)[1]
    assert torch.equal(cube.view(40, 2), expected.indices[:, :2])
    with pytest.raises(ValueError, match="between 1 and the 500 labels"):
        module.predict_topk(hidden, 501)


def test_topk_gives_posteriors_on_request() -> None:
    weights = torch.linspace(1, 5, 50)
    module = LinearHead(4, 50, "asl", pos_weight=weights, label_smoothing=0.1)
    hidden = torch.randn(3, 4)
    scores, labels = module.predict_topk(hidden, 5)
    found, same = module.predict_topk(hidden, 5, posterior=True)
    expected = closed_form.posterior(formula("asl"), scores, weights[labels], 0.1)
    assert torch.equal(same, labels)
    assert torch.equal(found, expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo looks at it itself
def test_inside_torch_compile_the_head_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    body, module = torch.nn.Linear(4, 6), LinearHead(6, 300, "zlpr")
    x, targets = torch.randn(5, 4), listed(batch(5, 300, 0.02)[1])

    def step(x: Tensor) -> Tensor:
        value: Tensor = module(body(x).relu(), targets)
        return value

    expected = step(x)
    found = torch.compile(step, backend="eager")(x)
    assert torch.equal(found, expected)
    for one, other in zip(*(torch.autograd.grad(v, body.weight) for v in (found, expected)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="this torch has no such setting")
def test_onednn_products_are_as_exact_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(512, 512, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with lopsided.onednn_products() as active:
            assert (torch.backends.mkldnn.matmul.fp32_precision == "bf16") == active  # type: ignore[attr-defined]
            assert (a @ b - exact).abs().max() < 1e-5 * exact.abs().max()
    monkeypatch.setattr(products, "_is_exact", lambda: False)
    switch = lopsided.onednn_products()
    with pytest.warns(UserWarning, match="stay as they were"):
        active = switch.__enter__()
    assert not active
    assert torch.backends.mkldnn.matmul.fp32_precision == before  # type: ignore[attr-defined]
