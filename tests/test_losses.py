"""Every loss of the catalog, in every published variant, against independent values and against its properties."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

import lopsided
from lopsided.functional import multilabel_loss
from lopsided.losses import CATALOG, Loss
from tests import oracle

ASL = {"gamma_neg": 4, "gamma_pos": 0, "clip": 0.05}
APL = ASL | {"epsilon_pos": 1.0, "epsilon_neg": 0.0, "epsilon_pos_pow": -2.5}

# spec -> the same loss in the oracle
VARIANTS: dict[str, dict[str, Any]] = {
    "bce": {},
    "focal": {"gamma_neg": 2, "gamma_pos": 2},
    "focal(gamma=0.5)": {"gamma_neg": 0.5, "gamma_pos": 0.5},
    "focal(gamma=3.7, detach_focus=True)": {"gamma_neg": 3.7, "gamma_pos": 3.7, "detach_focus": True},
    "asl": ASL | {"detach_focus": True},
    "asl(detach_focus=False)": ASL,
    "asl(gamma_pos=1)": ASL | {"gamma_pos": 1, "detach_focus": True},
    "asl(gamma_neg=0, clip=0.2)": {"clip": 0.2},
    "asl(gamma_neg=7, clip=0)": {"gamma_neg": 7, "detach_focus": True},
    "asl(gamma_neg=0.3, gamma_pos=0.3, detach_focus=False)": {"gamma_neg": 0.3, "gamma_pos": 0.3, "clip": 0.05},
    "asl(gamma_neg=9, gamma_pos=1.3, clip=0.2, detach_focus=False)": {"gamma_neg": 9, "gamma_pos": 1.3, "clip": 0.2},
    "apl": APL | {"detach_focus": True},
    "apl(detach_focus=False)": APL,
    "apl(epsilon_neg=1)": APL | {"epsilon_neg": 1, "detach_focus": True},
    "apl(gamma_neg=2, gamma_pos=1, clip=0, epsilon_pos=-1, epsilon_neg=0.5, epsilon_pos_pow=0, detach_focus=False)": {
        "gamma_neg": 2,
        "gamma_pos": 1,
        "epsilon_pos": -1,
        "epsilon_neg": 0.5,
    },
    "apl(gamma_neg=0, epsilon_neg=-0.5, clip=0.1)": APL | {"gamma_neg": 0, "epsilon_neg": -0.5, "clip": 0.1},
    "zlpr": {},
}
DERIVATIVES = [spec for spec, settings in VARIANTS.items() if "detach_focus" not in settings]
every_variant = pytest.mark.parametrize("spec", VARIANTS)
every_derivative = pytest.mark.parametrize("spec", DERIVATIVES)


def expected(spec: str, y: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda z: oracle.zlpr(z, y) if spec == "zlpr" else oracle.asymmetric_polynomial(z, y, **VARIANTS[spec])


def rows(spec: str, y: Tensor, mask: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    return lambda z: multilabel_loss(z, y, lopsided.loss(spec), mask=mask, reduction="none")


def example(soft: bool = False, labels: int = 9) -> tuple[Tensor, Tensor]:
    """Float64 logits from -8 to 8 and targets with an all-negative and an all-positive row."""
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(6, labels, generator=generator, dtype=torch.float64) * 16 - 8
    y = torch.rand(6, labels, generator=generator, dtype=torch.float64)
    y = y if soft else (y < 0.3).double()
    y[0], y[1] = 0, 1
    assert z.min() < -6 < 6 < z.max()
    assert y[2:].std() > 0.1
    return z, y


def test_the_variants_cover_the_catalog() -> None:
    assert {spec.partition("(")[0] for spec in VARIANTS} == set(CATALOG)


@every_variant
@pytest.mark.parametrize("soft", [False, True])
def test_value_and_gradient_equal_the_textbook(spec: str, soft: bool) -> None:
    z, y = example(soft)
    torch.testing.assert_close(rows(spec, y)(z), expected(spec, y)(z), rtol=1e-11, atol=1e-11)
    ours, theirs = oracle.gradient(rows(spec, y), z), oracle.gradient(expected(spec, y), z)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


def vector_loss(case: dict[str, Any]) -> Loss:
    names = {"disable_torch_grad_focal_loss": "detach_focus"}
    settings = {names.get(key, key): value for key, value in case["kwargs"].items() if key != "eps"}
    name = next(name for mark, name in (("/ASL", "asl"), ("/APL", "apl"), ("bert4keras", "zlpr")) if mark in case["fn"])
    return CATALOG[name](**settings)


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


@every_derivative
@pytest.mark.parametrize("soft", [False, True])
def test_slopes_are_derivatives_twice(spec: str, soft: bool) -> None:
    z, y = example(soft, labels=4)
    z.requires_grad_()
    mask = torch.rand(z.shape, generator=torch.Generator().manual_seed(1)) < 0.8
    assert torch.autograd.gradcheck(rows(spec, y, mask), z)
    assert torch.autograd.gradgradcheck(rows(spec, y, mask), z)


@every_variant
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_for_every_finite_logit(spec: str, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    points = [0.0, 1e-4, 0.5, 3, 10, 17, 20, 60, 88, 104, 710, 1e4, 6e4, largest]
    z = torch.tensor([[x * sign] for x in points for sign in (1, -1)], dtype=dtype, requires_grad=True)
    for y in (torch.zeros_like(z), torch.ones_like(z), torch.full_like(z, 0.3)):
        value = rows(spec, y.detach())(z)
        (grad,) = torch.autograd.grad(value.sum(), z)
        assert value.isfinite().all()
        assert grad.isfinite().all()
        assert value.dtype == (torch.float32 if dtype.itemsize == 2 else dtype)
        assert grad.dtype == dtype


@pytest.mark.parametrize("gamma", [0, 0.3, 0.5, 1, 4])
@pytest.mark.parametrize("clip", [0, 0.001, 0.05])
def test_finite_for_every_gamma(gamma: float, clip: float) -> None:
    z = torch.tensor([[-1e4, -60, -2.9444, -1, 0, 1, 20, 1e4]], requires_grad=True)
    for y in (torch.zeros_like(z), torch.ones_like(z)):
        loss = CATALOG["asl"](gamma, gamma, clip, detach_focus=False)
        value = multilabel_loss(z, y, loss)
        (grad,) = torch.autograd.grad(value, z)
        assert value.isfinite()
        assert grad.isfinite().all()


POINTS = [-700, -90, -50, -20.5, -8, -2.9, -1, -0.01, 0, 0.3, 2, 9, 16.7, 20.5, 37, 90, 700]


def exact(spec: str, z: float, y: int) -> tuple[float, float]:
    """Value and slope of a label alone, by mpmath."""
    settings: dict[str, Any] = dict(VARIANTS[spec])
    detach = settings.pop("detach_focus", False)
    with mpmath.workdps(400):  # 1 - p and its powers at |z| = 700
        margin = mpmath.mpf(settings.get("clip", 0))

        def parts(z: Any) -> tuple[Any, Any]:
            p = 1 / (1 + mpmath.exp(-z))
            if y:
                first, second = settings.get("epsilon_pos", 0), mpmath.mpf(settings.get("epsilon_pos_pow", 0))
                return (1 - p) ** settings.get("gamma_pos", 0), -mpmath.log(p) - first * (1 - p) - second / 2 * (
                    1 - p
                ) ** 2
            r = max(p - margin, mpmath.mpf(0))
            return r ** settings.get("gamma_neg", 0), -mpmath.log(1 - r) - settings.get("epsilon_neg", 0) * (1 - r)

        at = mpmath.mpf(z)
        focus, base = parts(at)
        step = mpmath.mpf(10) ** -40
        (focus_up, base_up), (focus_down, base_down) = parts(at + step), parts(at - step)
        if detach:
            slope = focus * (base_up - base_down) / (2 * step)
        else:
            slope = (focus_up * base_up - focus_down * base_down) / (2 * step)
        return float(focus * base), float(slope)


@pytest.mark.parametrize("spec", [spec for spec in VARIANTS if spec != "zlpr"])
def test_accuracy_against_mpmath(spec: str) -> None:
    """Small numbers are held to the largest of the row: near a margin or a change of sign only that can be exact."""
    for dtype, unit in ((torch.float64, 2.0**-53), (torch.float32, 2.0**-24)):
        z = torch.tensor(POINTS, dtype=dtype)[:, None]
        for y in (0, 1):
            expected = torch.tensor([exact(spec, point, y) for point in z.squeeze(1).tolist()], dtype=torch.float64)
            targets = torch.full_like(z, y)
            value, slope = rows(spec, targets)(z).double(), oracle.gradient(rows(spec, targets), z).squeeze(1).double()
            torch.testing.assert_close(value, expected[:, 0], rtol=400 * unit, atol=20 * unit)
            torch.testing.assert_close(slope, expected[:, 1], rtol=400 * unit, atol=20 * unit)


@every_variant
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_logits_lose_nothing_but_the_rounding_of_the_gradient(spec: str, dtype: torch.dtype) -> None:
    z, y = example(labels=90)
    z = z.to(dtype)
    torch.testing.assert_close(rows(spec, y)(z), rows(spec, y)(z.float()), rtol=0, atol=0)
    wide = oracle.gradient(rows(spec, y), z.float())
    torch.testing.assert_close(oracle.gradient(rows(spec, y), z), wide.to(dtype), rtol=0, atol=0)


def test_zlpr_is_exact_beyond_the_range_of_exp() -> None:
    z = torch.tensor([[20.5, -3, 1e4], [-800, 2, 700]], dtype=torch.float64)
    y = torch.tensor([[1, 0, 1], [1, 0, 0]])
    with mpmath.workdps(5000):
        for row, target, value in zip(z.tolist(), y.tolist(), rows("zlpr", y)(z).tolist(), strict=True):
            up = 1 + sum(mpmath.exp(s) for s, t in zip(row, target, strict=True) if not t)
            down = 1 + sum(mpmath.exp(-s) for s, t in zip(row, target, strict=True) if t)
            assert value == pytest.approx(float(mpmath.log(up) + mpmath.log(down)), rel=1e-14)


@pytest.mark.parametrize("spec", ["bce", "asl", "asl(detach_focus=False)", "zlpr"])
def test_a_badly_missed_positive_keeps_its_gradient(spec: str) -> None:
    z = torch.tensor([[-50.0], [-19.0], [-1000.0]])
    grad = oracle.gradient(rows(spec, torch.ones(3, 1)), z)
    torch.testing.assert_close(grad, -torch.ones(3, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("spec", ["asl", "asl(gamma_neg=0)", "asl(gamma_neg=0.5, detach_focus=False)", "apl"])
def test_negatives_below_the_clip_cost_exactly_nothing(spec: str) -> None:
    z = torch.tensor([[-1e4, -20, -5, -2.945]])
    assert rows(spec, torch.zeros_like(z))(z).item() == 0
    assert oracle.gradient(rows(spec, torch.zeros_like(z)), z).abs().max() == 0


# other epsilons may leave the range in which the loss is monotone
@pytest.mark.parametrize("spec", [spec for spec in DERIVATIVES if "epsilon" not in spec])
def test_losses_fall_as_the_score_of_the_right_answer_rises(spec: str) -> None:
    z = torch.linspace(-30, 30, 4001, dtype=torch.float64)[:, None]
    assert (rows(spec, torch.zeros_like(z))(z).diff() >= 0).all()
    assert (rows(spec, torch.ones_like(z))(z).diff() <= 0).all()


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
    assert lopsided.loss(one) == lopsided.loss(other)


def test_detaching_the_focus_changes_only_the_gradient() -> None:
    z, y = example()
    for name in ("focal", "asl", "apl"):
        detached, attached = f"{name}(detach_focus=True)", f"{name}(detach_focus=False)"
        assert torch.equal(rows(detached, y)(z), rows(attached, y)(z))
        assert not torch.allclose(oracle.gradient(rows(detached, y), z), oracle.gradient(rows(attached, y), z))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("soft", [False, True])
def test_binary_cross_entropy_is_torchs(dtype: torch.dtype, soft: bool) -> None:
    z, y = (tensor.to(dtype) for tensor in example(soft, labels=80))
    theirs = torch.nn.BCEWithLogitsLoss()
    torch.testing.assert_close(lopsided.BinaryCrossEntropyLoss()(z, y), theirs(z, y), rtol=2e-7, atol=0)
    ours = oracle.gradient(lambda z: lopsided.BinaryCrossEntropyLoss()(z, y), z)
    torch.testing.assert_close(ours, oracle.gradient(lambda z: theirs(z, y), z))


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
    loss = lopsided.loss(spec)
    by_row = multilabel_loss(z, y, loss, reduction="none")
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[2, 3:], mask[4] = False, False
    for known in (None, mask):
        total = multilabel_loss(z, y, loss, mask=known, reduction="sum")
        count, full_rows = (54, 6) if known is None else (54 - 6 - 9, 5)
        batchmean = multilabel_loss(z, y, loss, mask=known, reduction="batchmean")
        torch.testing.assert_close(batchmean, total / full_rows)
        mean = multilabel_loss(z, y, loss, mask=known)
        torch.testing.assert_close(mean, total / (full_rows if spec == "zlpr" else count))
    torch.testing.assert_close(multilabel_loss(z, y, loss, reduction="sum"), by_row.sum())
    assert by_row.shape == (6,)


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
    loss = lopsided.loss(spec)
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


def test_grad_mode_is_left_alone() -> None:
    z, y = example()
    for name in CATALOG:
        with torch.no_grad():
            rows(name, y)(z)
            assert not torch.is_grad_enabled()
        with torch.inference_mode():
            assert not rows(name, y)(z).requires_grad
        with pytest.raises(ValueError, match="targets"):
            rows(name, y + 1)(z)
        assert torch.is_grad_enabled()


@every_variant
def test_saved_for_backward_is_only_the_inputs(spec: str) -> None:
    z, y = torch.zeros(4, 100, requires_grad=True), torch.zeros(4, 100)
    saved: list[Tensor] = []

    def save(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        rows(spec, y)(z)
    assert {tensor.data_ptr() for tensor in saved if tensor.numel() >= z.numel()} == {z.data_ptr(), y.data_ptr()}


MODULES: list[tuple[torch.nn.Module, Callable[..., Tensor], dict[str, Any]]] = [
    (lopsided.BinaryCrossEntropyLoss(), lopsided.functional.binary_cross_entropy, {}),
    (lopsided.FocalLoss(3.0, True), lopsided.functional.focal_loss, {"gamma": 3.0, "detach_focus": True}),
    (
        lopsided.AsymmetricLoss(3, 1, 0.1, False),
        lopsided.functional.asymmetric_loss,
        {"gamma_neg": 3, "gamma_pos": 1, "clip": 0.1, "detach_focus": False},
    ),
    (
        lopsided.AsymmetricPolynomialLoss(3, 1, 0.1, 0.5, -0.5, -1, False),
        lopsided.functional.asymmetric_polynomial_loss,
        {"gamma_neg": 3, "gamma_pos": 1, "clip": 0.1}
        | {"epsilon_pos": 0.5, "epsilon_neg": -0.5, "epsilon_pos_pow": -1, "detach_focus": False},
    ),
    (lopsided.ZLPRLoss(), lopsided.functional.zlpr_loss, {}),
]


@pytest.mark.parametrize(("module", "function", "settings"), MODULES)
def test_modules_and_functions_agree(
    module: torch.nn.Module, function: Callable[..., Tensor], settings: dict[str, Any]
) -> None:
    z, y = example()
    mask = y < 0.5
    assert torch.equal(module(z, y), function(z, y, **settings))
    assert torch.equal(module(z, y, mask), function(z, y, mask=mask, **settings))
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(z, y), module(z, y))
    default = type(module)()
    assert torch.equal(default(z, y), function(z, y)), "the defaults of the class and of the function differ"


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo's own
@pytest.mark.parametrize("name", CATALOG)
def test_compiles_without_graph_breaks(name: str) -> None:
    torch.compiler.reset()
    z, y = example()
    module = lopsided.MultiLabelLoss(lopsided.loss(name))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z, y), module(z, y))
    gradients = [oracle.gradient(lambda z, f=f: f(z, y), z) for f in (compiled, module)]  # type: ignore[misc]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(2, 4)), r"targets have shape \(2, 4\) but logits \(2, 3\)"),
        ((torch.zeros(2, 3), torch.tensor([0, 2])), "multi-hot"),
        ((torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3)), "logits must be floating point, got torch.int64"),
        ((torch.zeros(2, 0), torch.zeros(2, 0)), "labels > 0"),
        ((torch.zeros(2, 3), torch.full((2, 3), -1.0)), "from -1 to -1"),
        ((torch.zeros(2, 3), torch.full((2, 3), torch.nan)), "nan"),
        ((torch.zeros(2, 3), torch.full((2, 3), 7)), "class indices"),
        ((torch.zeros(2, 3), torch.zeros(2, 3, requires_grad=True)), "detach"),
        ((torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3)), "mask must be bool"),
    ],
)
def test_bad_input_is_named(arguments: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        lopsided.AsymmetricLoss()(*arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lopsided.AsymmetricLoss(gamma_neg=-1), r"gamma_neg must be in \[0, inf\), got -1"),
        (lambda: lopsided.AsymmetricLoss(clip=1), r"clip must be in \[0, 1\), got 1"),
        (lambda: lopsided.FocalLoss(gamma=float("nan")), "gamma must be"),
        (lambda: lopsided.AsymmetricPolynomialLoss(epsilon_pos=float("inf")), "epsilon_pos must be finite"),
        (lambda: lopsided.ZLPRLoss(reduction="avg"), "none, mean, batchmean, sum; got 'avg'"),
        (lambda: lopsided.loss("als"), "did you mean 'asl'"),
        (lambda: lopsided.loss("asl(4)"), "name or name"),
        (lambda: lopsided.loss("asl(gamma=4)"), "unexpected keyword argument 'gamma'"),
        (lambda: lopsided.loss("asl(gamma_neg=True)"), "gamma_neg must be a number, got True"),
        (lambda: lopsided.loss("asl(gamma_neg=" + "1" * 150 + "e300)"), "gamma_neg must be in"),
        (lambda: lopsided.loss("asl(detach_focus=5)"), "detach_focus must be True or False, got 5"),
        (lambda: lopsided.loss("bce#comment"), "cannot read"),
        (lambda: lopsided.loss("asl(gamma_neg={[]:1})"), "cannot read"),
        (lambda: lopsided.loss("-" * 100_000), "cannot read"),
        (lambda: lopsided.loss("asl(gamma_neg=1is 2)"), "cannot read"),
        (lambda: lopsided.AsymmetricLoss(clip=1e-9), "clip must be 0 or at least 0.001, got 1e-09"),
        (lambda: lopsided.AsymmetricLoss(gamma_neg=10**400), "gamma_neg must be in"),
        (lambda: lopsided.loss("__import__('os')"), "name or name"),
        (lambda: lopsided.loss("asl(gamma_neg=open('f'))"), "cannot read"),
    ],
)
def test_bad_settings_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()
