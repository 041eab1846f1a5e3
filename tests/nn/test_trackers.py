"""Shares of the gradient and the effective gamma, against closed forms and sums over single labels."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor

import lopsided
from lopsided import Diagnostics, DiagnosticsTracker
from lopsided.training.loop import train
from lopsided.training.validate import Validation
from tests.points import RECIPE, AsTheyAre, dense, labelled, points


def batch(seed: int = 0, rows: int = 32, labels: int = 20, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(rows, labels, generator=generator, dtype=dtype) - 1
    return z.requires_grad_(), torch.rand(rows, labels, generator=generator) < 0.15


def seen(loss: str, z: Tensor, y: Tensor, mask: Tensor | None = None, **options: Any) -> Diagnostics:
    z = z.detach().clone().requires_grad_()
    lopsided.functional.multilabel_loss(z, y, loss, mask=mask, **options).backward()
    tracker = DiagnosticsTracker()
    tracker.update(z, z.grad, y, mask)
    return tracker.result()


@pytest.mark.parametrize(
    ("loss", "gamma"),
    [
        ("bce", 0.0),
        ("focal(gamma=2, detach_focus=True)", 2.0),
        ("asl(clip=0)", 4.0),
        ("asl(gamma_neg=1.5, clip=0)", 1.5),
    ],
)
def test_the_effective_gamma_is_the_exponent(loss: str, gamma: float) -> None:
    z, y = batch()
    weights = torch.rand(len(z), dtype=torch.float64) + 0.1
    for options in ({}, {"row_weight": weights}, {"reduction": "batchmean"}):
        assert seen(loss, z, y, **options).effective_gamma == pytest.approx(gamma, abs=1e-5)


def test_a_clip_and_an_attached_focus_raise_it_where_negatives_are_easy() -> None:
    z, y = batch()
    easy = z.detach().clamp_max(-1.0)
    assert seen("asl", easy, y).effective_gamma > 5
    assert seen("focal", easy - 6, y).effective_gamma == pytest.approx(2, abs=0.01), "attached, p -> 0: 3 p^(1 + 2)"
    assert 1 < seen("focal", z, y).effective_gamma < 2


@pytest.mark.parametrize("loss", ["asl", "zlpr", "bp_mll"])
def test_all_numbers_label_by_label(loss: str) -> None:
    z, y = batch()
    row = torch.func.grad(lambda z: lopsided.functional.multilabel_loss(z, y, loss, reduction="sum", backend="eager"))
    gradient = row(z.detach()).abs().numpy()
    x, truth = z.detach().numpy(), y.numpy()
    p = 1 / (1 + np.exp(-x))
    kept = ~truth & (gradient > 0)
    across, up = [], []
    for i in kept.any(1).nonzero()[0]:
        log_p = np.log(p[i][kept[i]])
        across += list(log_p - log_p.mean())
        ratio = np.log(gradient[i][kept[i]]) - log_p
        up += list(ratio - ratio.mean())
    expected = Diagnostics(
        gradient[truth].sum() / gradient.sum(),
        gradient[~truth & (p > 0.5)].sum() / gradient.sum(),
        float(np.polyfit(across, up, 1)[0]),
        x[truth].mean(),
        x[~truth].mean(),
    )
    assert vars(seen(loss, z, y)) == pytest.approx(vars(expected), rel=1e-4)


def test_batches_add_up_and_unknown_labels_do_not_count() -> None:
    z, y = batch()
    known = torch.rand(z.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    whole = seen("asl", z, y, known, reduction="sum")
    tracker = DiagnosticsTracker()
    for rows in torch.arange(len(z)).split(5):
        part = z.detach()[rows].requires_grad_()
        lopsided.functional.multilabel_loss(
            part, torch.where(known, y, math.nan)[rows], "asl", reduction="sum"
        ).backward()
        hidden = part.detach().masked_fill(~known[rows], math.nan)
        tracker.update(hidden, part.grad, torch.where(known, y, math.nan)[rows])
    assert vars(tracker.result()) == pytest.approx(vars(whole), rel=1e-5)


def test_nothing_known_is_nan_and_a_diverged_batch_is_left_out() -> None:
    tracker = DiagnosticsTracker()
    assert all(math.isnan(value) for value in vars(tracker.result()).values())
    z, y = batch()
    tracker.update(z, torch.full_like(z, math.nan), y)
    tracker.update(z, torch.full_like(z, math.inf), y)
    assert all(math.isnan(value) for value in vars(tracker.result()).values())
    tracker.update(z[:1], torch.zeros_like(z[:1]), torch.zeros_like(y[:1]))
    found = tracker.result()
    assert math.isnan(found.gradient_positive)
    assert math.isnan(found.effective_gamma)
    assert math.isnan(found.logit_positive)
    assert found.logit_negative == pytest.approx(float(z[0].mean().detach()))


def test_half_precision_does_not_call_underflow_a_slope() -> None:
    z, y = batch(dtype=torch.float32)
    half = z.detach().half().requires_grad_()
    lopsided.functional.multilabel_loss(half, y, "asl(clip=0)", reduction="sum").backward()
    tracker = DiagnosticsTracker()
    tracker.update(half, half.grad, y)
    assert tracker.result().effective_gamma == pytest.approx(4, abs=0.02)


def test_a_missing_gradient_says_what_to_do() -> None:
    z, y = batch()
    with pytest.raises(ValueError, match=r"shape of the logits \(32, 20\), got None: call logits\.retain_grad\(\)"):
        DiagnosticsTracker().update(z, None, y)
    with pytest.raises(ValueError, match=r"got shape \(20,\)"):
        DiagnosticsTracker().update(z, z[0], y)


def test_an_epoch_has_the_gradient_of_its_loss_on_training_rows() -> None:
    """As if the finished model made one more step on all rows, without dropout."""
    rows = points(10)
    outcome = train(AsTheyAre(dropout=0.5), "asl", rows, replace(RECIPE, epochs=1), 5)
    z, y = outcome.model.score(rows.encoded).values.requires_grad_(), dense(rows)
    lopsided.AsymmetricLoss(reduction="batchmean")(z, y).backward()
    assert z.grad is not None
    gradient, p = z.grad.abs(), torch.sigmoid(z.detach())
    (epoch,) = outcome.history
    assert epoch.gradient_positive == pytest.approx(float(gradient[y].sum() / gradient.sum()), rel=1e-5)
    assert epoch.gradient_hard == pytest.approx(float(gradient[~y & (p > 0.5)].sum() / gradient.sum()), rel=1e-5)
    assert epoch.logit_positive == pytest.approx(float(z[y].mean().detach()), rel=1e-5)
    assert epoch.p_positive == pytest.approx(float(p[y].mean()), rel=1e-5)
    assert epoch.p_negative == pytest.approx(float(1 - p[~y].mean()), rel=1e-5)


@pytest.mark.slow
def test_dead_labels_of_a_model_that_never_predicts_one() -> None:
    x, truth = points(10).encoded.x, dense(points(10))  # type: ignore[attr-defined]
    never, once = truth.clone(), truth.clone()
    never[:, 1] = False  # learnt as never there, which a single row of validation contradicts
    once[:, 1] = torch.arange(10) == 1
    train_rows, recipe = labelled(x, never), replace(RECIPE, epochs=40, batch_size=5)
    valid = labelled(x, once)
    outcome = train(AsTheyAre(), "bce", train_rows, recipe, 5, validation=Validation(valid))
    scores = outcome.model.score(valid.encoded).values.numpy()
    f1 = {cut: f1_score(once.numpy().ravel(), scores.ravel() > cut) for cut in scores.ravel()}
    decided = scores > max(f1, key=lambda cut: f1[cut])
    best = outcome.history[outcome.best_epoch - 1]
    assert best.dead_labels == (once.any(0).numpy() & ~decided.any(0)).sum() == 1
    outcome = train(AsTheyAre(), "bce", train_rows, recipe, 5, validation=Validation(train_rows))
    assert outcome.history[-1].dead_labels == 0, "a label without positives cannot be found"


def test_powerset_has_no_gradient_on_label_logits() -> None:
    outcome = train(AsTheyAre(), "powerset", points(10), RECIPE, 0, validation=Validation(points(30, 1)))
    first = outcome.history[0]
    assert math.isnan(first.gradient_positive)
    assert math.isnan(first.logit_negative)
    assert first.dead_labels >= 0
