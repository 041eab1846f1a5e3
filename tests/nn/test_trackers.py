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
from lopsided.models.task import Budget
from lopsided.training.loop import predict_scores, train
from lopsided.training.objective import TrainingObjective, make_objective, parse_method
from tests.training.test_loop import BUDGET, objective, points, task


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


def test_an_epoch_has_the_gradient_that_training_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 4, 4 and 2 rows: only the first of each epoch is looked at."""
    taken: list[tuple[Tensor, Tensor]] = []
    aim = objective("asl")

    def criterion(outputs: Tensor, targets: Tensor) -> Tensor:
        value = aim.criterion(outputs, targets)
        outputs.register_hook(lambda gradient: taken.append((gradient.abs(), targets)))
        return value

    _, history = train(task(), TrainingObjective(2, criterion, aim.scores, True), BUDGET, seed=5)
    assert len(taken) == 9
    for epoch, (gradient, targets) in zip(history, taken[::3], strict=True):
        assert epoch.gradient_positive == pytest.approx(float(gradient[targets].sum() / gradient.sum()))
        assert 0 <= epoch.gradient_hard <= 1 - epoch.gradient_positive


def test_dead_labels_of_a_model_that_never_predicts_one() -> None:
    given = replace(task(), valid=points(10, 0))  # the same rows
    given.train.targets[:, 1] = False  # learnt as never there, which a single row of validation contradicts
    given.valid.targets[:, 1] = torch.arange(10) == 1
    aim, budget = make_objective(parse_method("bce"), given.train.targets), Budget(40, 5, 0.5)
    averaged, history = train(given, aim, budget, seed=5)
    scores = predict_scores(averaged, aim, given.valid).numpy()
    truth = given.valid.targets.numpy()
    f1 = {cut: f1_score(truth.ravel(), scores.ravel() > cut) for cut in scores.ravel()}
    decided = scores > max(f1, key=lambda cut: f1[cut])
    assert history[-1].dead_labels == (truth.any(0) & ~decided.any(0)).sum() == 1
    given.valid.targets[:, 1] = False
    _, history = train(given, aim, budget, seed=5)
    assert history[-1].dead_labels == 0, "a label without positives cannot be found"


def test_powerset_has_no_gradient_on_label_logits() -> None:
    _, history = train(task(), objective("powerset"), BUDGET, seed=0)
    assert math.isnan(history[0].gradient_positive)
    assert math.isnan(history[0].logit_negative)
    assert history[0].dead_labels >= 0
