"""`check_callable` names what is right, and says what is wrong with what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import lopsided
from lopsided.losses import formula
from lopsided.losses.names import read
from lopsided.testing import Examination, check_callable
from lopsided.testing.nearest import nearest
from lopsided.testing.probe import ask, batch
from tests.testing import copies
from tests.variants import every_variant

Loss = Callable[[Tensor, Tensor], Tensor]

# Variants with settings for which nothing is searched, or that another loss comes as near to
UNUSUAL = (
    "monotone=False",
    "alphas",
    "apl(epsilon_neg=1)",
    "ral(gamma_neg=2",
    "threshold=1.5",
)


@cache
def examined(loss: Loss) -> Examination:
    """Examines a loss once, whatever is asked of it."""
    return check_callable(loss)


def found(examination: Examination, subject: str) -> tuple[str, str]:
    ((status, text),) = [(each.status, each.text) for each in examination.findings if each.subject == subject]
    return status, text


@pytest.mark.slow
@every_variant
def test_the_catalog_is_named(spec: str) -> None:
    match = nearest(ask(lopsided.loss(spec), *batch()))
    assert not (match.same and match.wrong)
    if not any(setting in spec for setting in UNUSUAL):
        name, settings = read(formula(spec).name)
        given, known = read(match.candidate.loss.name)
        assert match.distance < 0.005
        assert given == {"soft_margin": "bce", "sat": "bce"}.get(name, name)
        assert known == {each: pytest.approx(settings[each], rel=0.15) for each in known}
        assert {*settings} - {*known} <= {"alpha"}  # a factor of each side


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "known", "change"),
    [
        (copies.official, "asl(gamma_neg=4, gamma_pos=1, clip=0.05)", ""),
        (copies.Optimized(), "asl(gamma_neg=4, gamma_pos=1, clip=0.05, detach_focus=False)", ""),
        (copies.Optimized(3.3, 0.4, 0.07), "asl(gamma_neg=3.3, gamma_pos=0.4, clip=0.07, detach_focus=False)", ""),
        (copies.weighted, "bce", ""),
        (copies.naive, "bce", ""),
        (copies.unshifted_focus, "asl(detach_focus=False)", "with the focus of p before the margin"),
        (copies.inverted, "asl(detach_focus=False)", "with the focus inverted"),
        (copies.inverted_on_both, "focal(gamma=2)", "with the focus inverted"),
        (
            copies.inverted_and_cut,
            "asl(detach_focus=False)",
            "with the focus inverted and p cut off at the margin instead of shifted",
        ),
        (copies.margin_other_way, "asl(detach_focus=False)", "with the margin shifted the other way"),
        (copies.clamped_on_both_sides, "asl(detach_focus=False)", "with p clamped on both sides"),
        (copies.large_eps, "bce", "with an eps of 0.001 inside the logarithms"),
        (copies.twice, "bce", "with the sigmoid taken twice"),
        (copies.swapped, "bce", "with positives and negatives swapped"),
        (copies.without_minus, "bce", "with the sign turned"),
        (copies.half_without_minus, "bce", "with the sign of its negatives turned"),
    ],
)
def test_what_is_written_by_hand_is_named(loss: Loss, known: str, change: str) -> None:
    match = nearest(ask(loss, *batch()))
    assert match.distance < 0.003
    name, settings = read(formula(known).name)
    assert read(match.candidate.loss.name) == (name, {key: pytest.approx(settings[key], rel=0.02) for key in settings})
    assert match.change == change
    assert match.wrong == (change not in ("", "with the focus of p before the margin"))


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["bce", "asl", "zlpr", "softmax", "hill", "two_way"])
def test_the_catalog_has_no_fault(spec: str) -> None:
    examination = check_callable(lopsided.loss(spec))
    assert examination.faults == ()
    assert examination.verdict == f"MultiLabelLoss is {formula(spec)}; no fault was found"


@pytest.mark.parametrize(
    ("loss", "subject", "text"),
    [
        (copies.inverted, "direction of negatives", "pushes negatives up between -1.0 and 5.6"),
        (copies.swapped, "direction of positives", "pushes positives down everywhere, by up to 100 %"),
        (copies.half_without_minus, "direction of negatives", "pushes negatives up everywhere"),
        (copies.margin_other_way, "dead zone of negatives", "no gradient above 3.0: negatives that are badly missed"),
        (copies.clamped_on_both_sides, "dead zone of positives", "no gradient below -3.0: positives that are badly"),
        (copies.naive, "far logits", "NaN, infinity or an error for a negative at 20"),
        (copies.official, "grad mode", "switches gradients on inside torch.no_grad()"),
        (copies.in_place, "inputs", "changes the logits and the targets in place"),
        (copies.by_positives, "batch without positives", "NaN or infinite"),
        (copies.by_positives_of_rows, "row without positives", "NaN or infinite"),
        (copies.of_probabilities, "call", "expects probabilities where logits are given"),
        (copies.of_probabilities_clamped, "call", "expects probabilities where logits are given"),
        (copies.ported_zlpr, "call", "in the order (targets, logits)"),
        (lambda z, y: (z - 100).log().sum() - y.sum(), "call", "NaN or infinite for logits from -8 to 8"),
        (copies.twice, "nearest loss", "bce with the sigmoid taken twice"),
    ],
)
def test_each_fault_is_found(loss: Loss, subject: str, text: str) -> None:
    examination = examined(loss)
    status, said = found(examination, subject)
    assert status == "fault"
    assert text in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "status", "subject", "text"),
    [
        (copies.official, "note", "soft targets", "where the mix of both has"),
        (copies.weighted, "ok", "soft targets", "mix the gradients"),
        (copies.ported_zlpr, "note", "soft targets", "neither cost nor effect"),
        (copies.official, "note", "far logits", "from -20 on a positive is hardly pulled: an eps or a clamp"),
        (copies.official, "note", "float16", "NaN or infinite within logits of ±20: call it with logits.float()"),
        (copies.official, "ok", "gradient and value", "is not the derivative of the value"),
        (copies.weighted, "ok", "gradient and value", "is the derivative of the value"),
        (copies.official, "note", "target -1", "counts, without a word"),
        (copies.official, "note", "target nan", "becomes NaN or infinite"),
        (lopsided.loss("bce"), "ok", "target nan", "left out: no gradient"),
        (lopsided.loss("bce"), "ok", "target 255", "refused: ValueError: targets must lie in [0, 1]"),
        (copies.official, "note", "targets of bool", "RuntimeError"),
        (copies.twice, "note", "empty batch", "the value is NaN"),
        (copies.ported_zlpr, "ok", "coupling", "the labels of a row are compared"),
        (lopsided.loss("two_way"), "note", "coupling", "depends on the other rows"),
        (copies.focal_of_mean, "note", "coupling", "depends on the other rows of the batch, as where a focus is"),
        (copies.dice, "ok", "nearest loss", "absolute_error (distance 0.000)"),
        (copies.dice, "note", "dead zone of positives", "are pulled by 0.13 % of the most"),
        (copies.squared_error, "ok", "nearest loss", "squared_error (distance 0.000)"),
        (copies.Optimized(), "note", "focus", "the gradient goes through the focus"),
        (copies.Optimized(1, 4), "note", "focus", "perhaps the gammas are swapped"),
        (copies.noisy, "note", "repeated call", "draws random numbers"),
        (copies.unshifted_focus, "note", "nearest loss", "with the focus of p before the margin"),
    ],
)
def test_what_may_surprise_is_said(loss: Loss, status: str, subject: str, text: str) -> None:
    said = found(examined(loss), subject)
    assert said[0] == status
    assert text in said[1]


MEAN = "a mean over rows and labels"


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (copies.official, "a sum"),
        (copies.naive, MEAN),
        (copies.scaled, f"{MEAN}; 1e+03 times the nearest loss"),
        (copies.row_means, "a value for each row"),
        (copies.label_sums, "a mean over rows, of sums over labels"),
        (copies.by_positives, "a sum divided by the number of positives"),
        (
            copies.weighted,
            f"{MEAN}; positives weigh 3 times, negatives 1 times what they do in the nearest loss",
        ),
    ],
)
def test_what_a_loss_is_divided_by_is_said_in_full(loss: Loss, text: str) -> None:
    """Compared whole, since "a sum" also begins what is said of others."""
    assert found(examined(loss), "reduction") == ("ok", text)


def test_memory_is_that_of_what_is_saved() -> None:
    class Saves(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Tensor, y: Tensor) -> Tensor:
            ctx.save_for_backward(z, y, z.double(), z.double())
            return functional.binary_cross_entropy_with_logits(z, y)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Any:
            z, y, *_ = ctx.saved_tensors
            return gradients[0] * (z.sigmoid() - y) / z.numel(), None

    assert "16 bytes a logit" in found(check_callable(Saves.apply), "memory")[1]


@pytest.mark.slow
def test_a_loss_without_a_gradient_for_hard_targets_is_examined_to_the_end() -> None:
    def positives_alone(z: Tensor, y: Tensor) -> Tensor:
        return -(y * functional.logsigmoid(z)).mean()

    def soft_alone(z: Tensor, y: Tensor) -> Tensor:  # at logit 1
        return (y * (-z).relu() + (1 - y) * (z - 2).relu() + y * (1 - y) * z).mean()

    examination = check_callable(positives_alone)
    assert found(examination, "dead zone of negatives")[0] == "fault"
    assert found(examination, "target -1")[1] == "counts, without a word: -1 times the gradient of a positive"
    examination = check_callable(soft_alone)
    assert found(examination, "target -1")[1] == "counts, without a word"
    assert found(examination, "soft targets")[1] == "at 0.3 there is a gradient, where 0 and 1 have none"


@pytest.mark.slow
def test_what_is_unlike_all_is_not_accused() -> None:
    def wide(z: Tensor, y: Tensor) -> Tensor:
        return (3 - (2 * y - 1) * z).clamp(min=0).sum()

    examination = check_callable(wide)
    assert examination.verdict == "wide is like no loss known here; no fault was found"
    assert found(examination, "nearest loss")[0] == "note"
    assert examination.instead == ""
    assert "easy positives are left alone" in found(examination, "dead zone of positives")[1]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda z: z, "takes 1 positional argument"),
        (lambda z, y: 3.0, "it returns a float, not a tensor"),
        (copies.cut_off, "no gradient reaches the logits"),
    ],
)
def test_what_cannot_be_called_is_refused(loss: Loss, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_callable(loss)


def test_an_examination_can_be_printed_and_stored_and_changes_nothing() -> None:
    state = torch.get_rng_state()
    examination = check_callable(copies.noisy, name="mine")
    assert torch.equal(state, torch.get_rng_state())
    assert torch.is_grad_enabled()
    stored = json.loads(json.dumps(examination.as_dict()))
    assert stored["name"] == "mine"
    assert stored["verdict"] == str(examination).splitlines()[0] == examination.verdict
    assert len(stored["gradients"]["positives"]["logits"]) == 160
    assert len(stored["findings"]) == len(examination.findings)


def test_what_is_not_finite_can_be_stored() -> None:
    examination = check_callable(lambda z, y: (z.sqrt() * y).sum() + (z * (1 - y)).sum(), name="root")
    assert examination.verdict.startswith("root is like no loss known here: value or gradient is NaN or infinite")
    stored = json.loads(json.dumps(examination.as_dict(), allow_nan=False))
    assert stored["gradients"]["positives"]["gradient"][0] is None


def test_a_loss_may_be_made_for_eight_labels_alone() -> None:
    examination = check_callable(torch.nn.BCEWithLogitsLoss(pos_weight=torch.full((8,), 3.0)))
    assert examination.faults == ()
    assert found(examination, "nearest loss") == ("ok", "bce (distance 0.000)")
    assert found(examination, "reduction") == ("ok", "of its own kind")


def test_what_to_write_instead_is_reduced_alike() -> None:
    assert examined(copies.official).instead == (
        'lopsided.loss("asl(gamma_neg=4, gamma_pos=1, clip=0.05, detach_focus=True)", reduction="sum")'
    )
    assert examined(copies.squared_error).instead == ""  # this library has no such loss
    assert examined(copies.label_sums).instead == 'lopsided.loss("bce", reduction="batchmean")'


@pytest.mark.parametrize("smoothing", [0.05, 0.1, 0.2])
def test_smoothed_targets_are_a_variant_and_no_fault(smoothing: float) -> None:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(z, y * (1 - smoothing) + smoothing / 2)

    examination = examined(loss)
    assert not examination.faults
    assert str(examination.match) == f"bce with label_smoothing={smoothing:g}"
    assert found(examination, "direction of positives")[0] == "note"
    assert examination.instead == f'lopsided.loss("bce", label_smoothing={smoothing:g}, reduction="mean")'
