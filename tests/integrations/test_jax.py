"""The losses for JAX are ours: their printed curves on any machine, by numpy; values and gradients where jax is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import lopsided
from lopsided.compute.native import printer
from lopsided.integrations.jax import loss, source
from lopsided.losses import BALANCED, CATALOG, UNKNOWN, Balanced, Curve, Formula, Sum, any_loss, formula
from lopsided.nn.functional import multilabel_loss
from tests.variants import VARIANTS, every_variant, example


@pytest.mark.parametrize("spec", [*VARIANTS, *UNKNOWN, *BALANCED])
def test_the_printed_curves_are_the_curves(spec: str) -> None:
    z = np.linspace(-40, 40, 1601)
    space: dict[str, Any] = {"jnp": np}
    exec(source(spec), space)
    made = any_loss(spec)
    ours = made.formula if isinstance(made, Balanced) else made
    for name, curve in (("positive", ours.positive), ("negative", ours.negative)):
        for expected, printed in zip(curve(torch.from_numpy(z)), space[name](z), strict=True):
            np.testing.assert_allclose(printed, np.broadcast_to(np.asarray(expected), z.shape), 1e-11, 1e-18)


def test_what_is_printed_does_not_depend_on_what_was_printed_before() -> None:
    of_c, of_asl = printer.print_all(), source("asl")
    source("apl(clip=0.2)")
    assert (printer.print_all(), source("asl")) == (of_c, of_asl)


def batch(soft: bool) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Logits and targets with unknown labels, of which a logit is NaN, a row of which nothing is known, and a mask."""
    z, y = (each.numpy().copy() for each in example(soft))
    mask = np.random.default_rng(0).random(z.shape) < 0.8
    y[2, 3] = y[4] = np.nan
    mask[2, 3], z[2, 3] = True, np.nan
    return z, y, mask


@pytest.mark.slow
@every_variant
def test_values_and_gradients_are_ours(spec: str) -> None:
    jax = pytest.importorskip("jax")
    for kind, tolerance in ((np.float64, 1e-9), (np.float32, 1e-6))[: 2 - ("(" in spec)]:  # to compile takes long
        compiled = jax.jit(jax.value_and_grad(loss(spec)))
        for z, y, mask in map(batch, (False, True)):  # hard and soft labels
            logits = torch.from_numpy(z.astype(kind)).requires_grad_()
            expected = lopsided.loss(spec)(logits, torch.from_numpy(y), torch.from_numpy(mask))
            expected.backward()
            assert logits.grad is not None
            with jax.enable_x64(kind is np.float64):
                value, gradient = compiled(z.astype(kind), y, mask)
            assert value.dtype == kind
            assert float(value) == pytest.approx(expected.item(), rel=tolerance, abs=tolerance)
            scale = float(logits.grad.abs().max())
            np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=tolerance, atol=tolerance * scale)


@pytest.mark.slow
def test_logits_far_away_give_what_ours_give() -> None:
    jax = pytest.importorskip("jax")
    z = np.array([[1e30, -1e30, 200, -200, 0, 3], [-1e30, 1e30, -200, 200, 1, -3], [60, -60, 100, -100, 1e4, -1e4]])
    z, y = z.astype(np.float32), np.array([[1, 0, 1, 0, 1, 0], [1, 0, 1, 0, 0, 1], [0, 1, 0, 1, 0, 1]], np.float32)
    for spec in [*CATALOG, "ncrl(clip=0.05)", "asl(gamma_neg=3.7)"]:
        logits = torch.from_numpy(z).requires_grad_()
        expected = lopsided.loss(spec)(logits, torch.from_numpy(y))
        (slope,) = torch.autograd.grad(expected, logits)
        value, gradient = jax.value_and_grad(loss(spec))(z, y)
        assert float(value) == pytest.approx(expected.item(), rel=1e-5), spec
        np.testing.assert_allclose(gradient, slope.numpy(), rtol=1e-5, atol=1e-8, err_msg=spec)


COUNTS, ROWS = [700, 300, 40, 9, 1, 0, 1000, 500, 77], 1000
COUNTED = [*BALANCED, "db(alpha=0, steepness=3, middle=0.4, kappa=0.2, tolerance=3, gamma=1.5)", "ldam(scale=2)"]


@pytest.mark.slow
@pytest.mark.parametrize("spec", [*UNKNOWN, "gr(steepness=2, middle=0.8, width=0.5)", "splc(tau=0.5)", *COUNTED])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_third_curves_and_losses_from_counts_are_ours(spec: str, reduction: str) -> None:
    jax = pytest.importorskip("jax")
    seen: dict[str, Any] = {"counts": np.array(COUNTS), "rows": ROWS} if spec in COUNTED else {}
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": 0.1}
    for kind, tolerance in ((np.float32, 1e-6), (np.float64, 1e-9)):
        pos_weight = np.linspace(0.5, 2, 9).astype(kind)
        options["pos_weight"] = torch.from_numpy(pos_weight)
        if seen:
            criterion: lopsided.MultiLabelLoss = lopsided.BalancedLoss(spec, torch.tensor(COUNTS), ROWS, **options)
        else:
            criterion = lopsided.loss(spec, **options)
        options["pos_weight"] = pos_weight
        with jax.enable_x64(kind is np.float64):
            function = loss(spec, **options, **seen)

            def sum_and_value(*given: Any, function: Any = function) -> tuple[Any, Any]:
                return (value := function(*given)).sum(), value

            compiled = jax.jit(jax.value_and_grad(sum_and_value, has_aux=True))  # takes longer than all else
        for z, y, mask in map(batch, (False, True)):  # hard and soft labels
            logits = torch.from_numpy(z.astype(kind)).requires_grad_()
            expected = criterion(logits, torch.from_numpy(y), torch.from_numpy(mask))
            expected.sum().backward()
            assert logits.grad is not None
            with jax.enable_x64(kind is np.float64):
                (_, value), gradient = compiled(z.astype(kind), y, mask)
            for found, wanted in ((value, expected.detach()), (gradient, logits.grad)):
                scale = max(1.0, float(wanted.abs().max()))
                np.testing.assert_allclose(found, wanted.numpy(), rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize(
    ("spec", "settings", "message"),
    [
        ("db", {}, r"db\(.*\) is made from label counts: pass counts"),
        ("db", {"counts": [3], "rows": 9, "weight": [1.0]}, "weight is made from the counts here"),
        ("asl", {"counts": [3], "rows": 9}, "is not made from label counts: leave out counts and rows"),
        ("asl(clip=0)", {"clip": 0.1}, "clip is given twice"),
        ("db", {"counts": [10], "rows": 9}, "a label has 10 positives, but there are only 9 rows"),
        ("wan(weight=0.1..1)", {}, "is a schedule, which the commands train by"),
    ],
)
def test_counts_are_asked_for_where_a_loss_is_made_from_them(spec: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(spec, **settings)


@pytest.mark.slow
def test_reductions_and_settings_are_ours() -> None:
    jax = pytest.importorskip("jax")
    z, y, mask = batch(False)
    for spec in ("asl", "zlpr", "lsep"):
        for reduction in ("mean", "sum", "none"):
            with jax.enable_x64(True):
                value = jax.jit(loss(spec, reduction))(z, y, mask)
            given = map(torch.from_numpy, (z, y, mask))
            expected = lopsided.loss(spec, reduction=reduction)(*given)
            np.testing.assert_allclose(value, expected.numpy(), rtol=1e-9)
    assert loss("asl", gamma_neg=0, clip=0)(z, y, mask) == loss("bce")(z, y, mask)
    nothing = np.full_like(y, np.nan)
    assert loss("bce")(z, nothing) == loss("zlpr")(z, nothing) == loss("softmax")(z, nothing) == 0


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["asl", "zlpr", "lsep", "two_way", "softmax", "atl", "hinge_abl", "ncrl", "decoupled"])
def test_weights_and_smoothing_are_ours(spec: str) -> None:
    jax = pytest.importorskip("jax")
    z, y, mask = batch(False)
    random = np.random.default_rng(1)
    weight, pos_weight = random.random(z.shape), random.random(z.shape[1]) * 3
    weight[:, 1] = 0
    given = [torch.from_numpy(each) for each in (z, y, mask, weight, pos_weight)]
    logits, targets, known, of_entries, of_positives = given
    weights: dict[str, Any] = {"weight": of_entries, "pos_weight": of_positives}
    expected = multilabel_loss(logits.requires_grad_(), targets, spec, mask=known, label_smoothing=0.2, **weights)
    expected.backward()
    assert logits.grad is not None
    with jax.enable_x64(True):
        function = loss(spec, weight=weight, pos_weight=pos_weight, label_smoothing=0.2)
        value, gradient = jax.jit(jax.value_and_grad(function))(z, y, mask)
    assert float(value) == pytest.approx(expected.item(), rel=1e-9)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_values_of_16_bits_are_float32_and_second_derivatives_those_of_the_slope() -> None:
    jax = pytest.importorskip("jax")
    logits = jax.numpy.asarray([[20.0, -3.0]], dtype="bfloat16")
    value, gradient = jax.jit(jax.value_and_grad(loss("bce", "sum")))(logits, jax.numpy.asarray([[0, 1]]))
    assert (value.dtype, gradient.dtype) == ("float32", "bfloat16")
    assert float(value) == pytest.approx(20 + math.log1p(math.exp(3)), rel=1e-6)
    bend = jax.jit(jax.grad(jax.grad(lambda z: loss("bce")(z[None], np.ones(1)))))(0.5)
    p = 1 / (1 + math.exp(-0.5))
    assert float(bend) == pytest.approx(p * (1 - p), rel=1e-6)


@pytest.mark.slow
def test_keras_trains_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 3)).astype("float32")
    y = (x > 0.5).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    function = loss("asl", reduction="none")
    model.compile(keras.optimizers.Adam(0.1), loss=lambda y_true, y_pred: function(y_pred, y_true))
    losses = model.fit(x, y, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]
    expected = lopsided.loss("asl", reduction="batchmean")(
        torch.from_numpy(model.predict(x, verbose=0)), torch.from_numpy(y)
    )
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected.item(), rel=1e-5)


def test_what_has_no_form_for_jax_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two_way.* compares rows with each other: no reduction='none'"):
        loss("two_way", "none")
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), got 1"):
        loss("bce", label_smoothing=1)
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none; got 'batchmean'"):
        loss("bce", reduction="batchmean")
    with pytest.raises(ValueError, match="only curves of the catalog are printed"):
        source(Formula(Curve(lambda z: (z, 1.0)), formula("bce").negative, Sum()))
