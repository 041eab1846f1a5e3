"""Calibrators on simulated scores whose probabilities are known, and against scikit-learn."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import lopsided
from lopsided import fit_temperature
from lopsided.decision.calibrators import (
    Calibrator,
    ClosedForm,
    Platt,
    Temperature,
    fit_isotonic,
    fit_platt,
)
from lopsided.metrics.reliability import reliability
from lopsided.metrics.scores import Judged, Scores
from lopsided.targets import SparseTargets

ROWS, LABELS = 12_000, 12


@pytest.fixture(scope="module")
def world() -> tuple[Tensor, Tensor, Tensor]:
    """Scores, probabilities and truth, (24000, 12): every label has a map of its own; 0 to 2 are rare, 3 never true."""
    random = torch.Generator().manual_seed(0)
    slope = 0.5 + torch.rand(LABELS, generator=random)
    offset = torch.randn(LABELS, generator=random) - 1
    offset[:3] = torch.tensor([-8.5, -9.5, -7.5])
    scores = 2 * torch.randn(2 * ROWS, LABELS, generator=random)
    p = torch.sigmoid(slope * scores + offset)
    p[:, 3] = 0.0
    return scores, p, torch.rand(p.shape, generator=random) < p


@pytest.fixture(scope="module")
def scored(world: tuple[Tensor, Tensor, Tensor]) -> Judged:
    made = Judged.of(world[0][:ROWS], world[2][:ROWS])
    assert made.positives[:3].max() < 40
    return made


def temperature(scored: Judged) -> Temperature:
    return Temperature(fit_temperature(scored.scores.values, scored.hits))


def calibrators(scored: Judged) -> list[Calibrator]:
    return [ClosedForm("asl"), temperature(scored), fit_platt(scored), fit_isotonic(scored)]


@pytest.fixture(scope="module")
def fitted(scored: Judged) -> list[Calibrator]:
    return calibrators(scored)


def test_probabilities_that_rise_with_the_score(fitted: list[Calibrator]) -> None:
    rising = torch.linspace(-60, 60, 601)[:, None].expand(-1, LABELS)
    for calibrate in fitted:
        p = calibrate(rising)
        assert (p.dtype, p.shape) == (torch.float64, rising.shape)
        assert ((p >= 0) & (p <= 1)).all(), "and finite, for the label that is never true too"
        assert (p.diff(dim=0) >= -1e-12).all()
        assert (p[-1] > p[0]).any()


def test_fitted_maps_are_nearer_to_the_truth_on_other_rows(
    world: tuple[Tensor, Tensor, Tensor], scored: Judged
) -> None:
    scores, p, truth = (each[ROWS:] for each in world)
    before = torch.sigmoid(scores)
    error = float((before - p).abs().mean())
    gap = reliability(before, truth).calibration_error
    for fit, better in ((fit_platt, 0.05), (fit_isotonic, 0.2)):
        found = fit(scored)(scores)
        assert float((found - p).abs().mean()) < better * error
        assert reliability(found, truth).calibration_error < better * gap


def test_temperature_is_recovered() -> None:
    random = torch.Generator().manual_seed(2)
    scores = 3 * torch.randn(20_000, 3, generator=random)
    targets = torch.rand(scores.shape, generator=random) < torch.sigmoid(scores / 2.5)
    assert fit_temperature(scores, targets) == pytest.approx(2.5, rel=0.03)


@pytest.mark.slow
def test_platt_recovers_the_maps_of_labels_with_many_positives() -> None:
    random = torch.Generator().manual_seed(1)
    slope, offset = torch.tensor([0.3, 1.0, 2.5]).double(), torch.tensor([0.5, -1.0, 0.0]).double()
    scores = torch.randn(100_000, 3, generator=random)
    targets = torch.rand(scores.shape, generator=random) < torch.sigmoid(slope * scores + offset)
    found = fit_platt(Judged.of(scores, targets))
    torch.testing.assert_close(found.slope, slope, rtol=0.05, atol=0)
    torch.testing.assert_close(found.offset, offset, rtol=0, atol=0.03)
    own = fit_platt(Judged.of(scores, targets), pseudo=0.0)
    for label in range(3):
        expected = LogisticRegression(C=np.inf, tol=1e-10).fit(
            scores[:, label, None].double().numpy(), targets[:, label].numpy()
        )
        assert float(own.slope[label]) == pytest.approx(expected.coef_[0, 0], rel=1e-3)
        assert float(own.offset[label]) == pytest.approx(expected.intercept_[0], abs=1e-3)


def test_rare_labels_stay_near_the_pooled_map(world: tuple[Tensor, Tensor, Tensor], scored: Judged) -> None:
    pooled = fit_platt(scored, pseudo=1e9)
    assert pooled.slope.std() < 1e-4
    free, shrunk = fit_platt(scored, pseudo=0.1), fit_platt(scored)
    way = (shrunk.slope - pooled.slope).abs() / (free.slope - pooled.slope).abs()
    assert (way[:3] < 0.9).all()
    assert (way[scored.positives > 1000] > 0.9).all()
    truth = torch.distributions.Bernoulli(world[1][ROWS:, :3].double())
    maps = [torch.distributions.Bernoulli(fit(world[0][ROWS:])[:, :3]) for fit in (pooled, free, shrunk)]
    excess = [torch.distributions.kl_divergence(truth, each).mean(0) for each in maps]
    assert (excess[2] < 2e-4).all(), "nearer to the truth than either"
    assert (excess[2] < excess[1]).all()
    assert (excess[2] < excess[0] / 100).all()


def test_scores_that_separate_or_mislead_have_a_finite_map_that_does_not_fall() -> None:
    scores = torch.linspace(-5, 5, 40)[:, None].expand(-1, 3)
    targets = torch.stack([scores[:, 0] > 0, scores[:, 0] < 0, scores[:, 0].abs() < 1], 1)
    found = fit_platt(Judged.of(scores, targets), pseudo=0.5)
    assert found.slope.isfinite().all()
    assert found.offset.isfinite().all()
    assert (found.slope >= 0).all()
    assert found.slope[1] == 0
    assert float(found(torch.zeros(1, 3))[0, 1]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_isotonic_is_scikit_learns(world: tuple[Tensor, Tensor, Tensor], scored: Judged) -> None:
    label, other = 8, world[0][ROWS:]
    assert scored.positives[label] > 1000
    expected = IsotonicRegression(out_of_bounds="clip").fit(
        scored.scores.values[:, label].numpy(), scored.hits[:, label].numpy()
    )
    values = expected.predict(other[:, label].numpy())
    exact, shrunk = (fit_isotonic(scored, pseudo)(other)[:, label].numpy() for pseudo in (0.0, 5.0))
    assert exact == pytest.approx(values, abs=1e-6)
    assert shrunk == pytest.approx(values, abs=0.01)


@pytest.mark.slow
def test_candidates_are_calibrated_like_the_matrix_they_come_from(scored: Judged, fitted: list[Calibrator]) -> None:
    scores, labels = scored.scores.values.topk(LABELS, 1)
    truth = SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in scored.hits])
    same = Judged.of(Scores(scores, labels, LABELS), truth)
    for ours, theirs in zip(fitted, calibrators(same), strict=True):
        expected = ours(scored.scores).gather(1, labels)
        torch.testing.assert_close(theirs(Scores(scores, labels, LABELS)), expected, rtol=1e-4, atol=1e-6)


def test_the_closed_form_is_the_losses() -> None:
    scores = torch.tensor([[0.0, 1.379]])
    assert torch.equal(ClosedForm("asl")(scores), lopsided.loss("asl").posterior(scores))
    with pytest.raises(ValueError, match="couples the labels of a row"):
        ClosedForm("zlpr")(scores)
    assert Temperature(2.0)(torch.tensor([[2.0]])).item() == pytest.approx(1 / (1 + np.exp(-1)))
    assert Platt(torch.tensor([2.0]), torch.tensor([-1.0]))(torch.tensor([[1.0]])).item() == pytest.approx(0.7310586)


def test_reliability_counts_and_wilson_intervals() -> None:
    random = np.random.default_rng(0)
    p = random.random((300, 4)) ** 3
    p[0] = [0.0, 1.0, 0.1, 0.2]
    p[1] = np.linspace(0, 1, 11)[[1, 3, 6, 7]]  # some edges are like 0.30000000000000004
    targets = random.random(p.shape) < p
    points = reliability(torch.from_numpy(p), torch.from_numpy(targets), bins=10)
    edges = np.linspace(0, 1, 11)
    for place in range(10):
        inside = (p > edges[place]) & (p <= edges[place + 1]) if place else p <= edges[1]
        assert points.count[place] == inside.sum()
        assert float(points.predicted[place]) == pytest.approx(p[inside].mean())
        assert float(points.observed[place]) == pytest.approx(targets[inside].mean())
        interval = binomtest(int(targets[inside].sum()), int(inside.sum())).proportion_ci(method="wilson")
        assert (float(points.low[place]), float(points.high[place])) == pytest.approx((interval.low, interval.high))
    gap = (points.predicted - points.observed).abs()
    assert points.calibration_error == pytest.approx(float((points.count * gap).sum() / p.size))


def test_reliability_leaves_out_unknown_labels() -> None:
    random = torch.Generator().manual_seed(0)
    p = torch.rand(50, 4, generator=random)
    y, known = (torch.rand(50, 4, generator=random) < p).double(), torch.rand(50, 4, generator=random) < 0.7
    expected = reliability(p[known], y[known])
    marked = torch.where(known, y, torch.nan)
    sparse = SparseTargets.from_csr(marked.to_sparse_csr())
    for points in (
        reliability(torch.where(known, p, 7.0), marked),
        reliability(p.numpy(), y.numpy(), mask=known),
        reliability(p, torch.where(known, y, -1), ignore_index=-1),
        reliability(p, sparse),
    ):
        assert torch.equal(points.count, expected.count)
        torch.testing.assert_close(points.observed, expected.observed, equal_nan=True)


def test_empty_bins_and_bad_probabilities() -> None:
    points = reliability(torch.tensor([0.05, 0.95]), torch.tensor([False, True]), bins=4)
    assert points.count.tolist() == [1, 0, 0, 1]
    assert points.observed.isnan().tolist() == [False, True, True, False]
    assert points.calibration_error == pytest.approx(0.05)
    for bad in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"probabilities must lie in \[0, 1\]"):
            reliability(torch.tensor([bad]), torch.tensor([1]))
    with pytest.raises(ValueError, match=r"targets have shape \(3,\) but scores \(2,\)"):
        reliability(torch.zeros(2), torch.zeros(3))


# ---- nonsense, and rare labels


@pytest.mark.parametrize(
    ("logits", "targets", "mask", "message"),
    [
        (torch.full((5, 3), torch.nan), torch.eye(5)[:, :3], None, "15 logits of known labels are NaN or infinite"),
        (torch.full((5, 3), torch.inf), torch.eye(5)[:, :3], None, "15 logits of known labels are NaN or infinite"),
        (torch.randn(5, 3), torch.ones(5, 3), None, "all 15 known labels are true: no temperature fits that"),
        (torch.randn(5, 3), torch.zeros(5, 3), None, "all 15 known labels are false: no temperature fits that"),
        (torch.randn(5, 3), torch.ones(5, 3), torch.zeros(5, 3, dtype=torch.bool), "no label is known"),
        (torch.zeros(5, 3), torch.eye(5)[:, :3], None, "the logits are not higher where labels are true"),
        (-torch.eye(5)[:, :3], torch.eye(5)[:, :3], None, "the logits are not higher where labels are true"),
    ],
)
def test_no_temperature_is_fitted_to_nonsense(
    logits: Tensor, targets: Tensor, mask: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, targets, mask)


def test_the_temperature_of_scores_that_separate_is_the_lowest() -> None:
    z = torch.linspace(-3, 3, 21)[:, None]
    assert fit_temperature(z, z > 0) == pytest.approx(1e-3)
    assert fit_temperature(z.numpy(), (z > 0).numpy()) == pytest.approx(1e-3)
    unknown = torch.where(torch.arange(21)[:, None] < 3, torch.nan, z)  # behind a mask a logit may be anything
    known = ~unknown.isnan()
    soft = torch.sigmoid(z / 1.5)
    assert fit_temperature(unknown, soft, known) == pytest.approx(1.5)
    marked = torch.where(known, (z > torch.randn(21, 1)).int(), -1)
    assert fit_temperature(z, marked, ignore_index=-1) == pytest.approx(fit_temperature(z[3:], marked[3:]))


def test_platt_without_a_prior_is_the_most_likely_map_or_an_error() -> None:
    torch.manual_seed(0)
    z = torch.randn(4000, 3)
    y = torch.rand(4000, 3) < torch.sigmoid(torch.tensor([1.0, 3.0, 0.2]) * z + torch.tensor([-2.0, 0.0, 1.0]))
    level = z.clone()
    level[:, 0] = -1.0
    equal = fit_platt(Judged.of(level, y), pseudo=0.0)
    share = float(y[:, 0].double().mean())
    assert equal.slope.isfinite().all()
    assert float(equal(level)[0, 0]) == pytest.approx(share, rel=1e-6)
    y[:, 0] = torch.rand(4000) < torch.sigmoid(-2 * z[:, 0] - 2)
    share = float(y[:, 0].double().mean())
    wrong_way = Judged.of(z, y)
    for pseudo in (0.0, 1e-9):
        assert fit_platt(wrong_way, pseudo)(z)[:, 0].numpy() == pytest.approx(share, rel=1e-6)
    for column in (z[:, 0] > 0, z[:, 0] > 9, z[:, 0] < 9):  # separated, never and always true
        steps = y.clone()
        steps[:, 0] = column
        with pytest.raises(ValueError, match="pseudo=0 leaves 1 of 3 labels without a most likely map"):
            fit_platt(Judged.of(z, steps), pseudo=0.0)
        assert fit_platt(Judged.of(z, steps), pseudo=0.1).slope.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
@pytest.mark.parametrize("rows", [1000, 5000])
def test_fitted_maps_give_rare_labels_small_probabilities(rows: int, fit: Callable[[Judged], Calibrator]) -> None:
    """Scores that do not tell how rare a label is: of 40 labels half are true in .002 of the rows, half in .1."""
    random = torch.Generator().manual_seed(rows)
    share = torch.tensor([0.002, 0.1]).repeat_interleave(20)
    steps = torch.linspace(-20, 5, 2501, dtype=torch.float64)  # offsets, and the share that each would make
    normal = torch.distributions.Normal(0.0, 2.0).icdf((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)
    made = torch.sigmoid(normal + steps[:, None]).mean(1)
    offset = steps[torch.searchsorted(made, share.double())]
    z = 2 * torch.randn(rows, 40, generator=random, dtype=torch.float64)
    y = torch.rand(rows, 40, generator=random) < torch.sigmoid(z + offset)
    other = 2 * torch.randn(5000, 40, generator=random, dtype=torch.float64)
    p = fit(Judged.of(z, y))(other)
    assert float(p[:, :20].mean()) == pytest.approx(0.002, rel=0.2)
    assert float(p[:, 20:].mean()) == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
def test_labels_that_are_equally_frequent_lend_each_other_their_share(fit: Callable[[Judged], Calibrator]) -> None:
    """A label that is never true in 300 rows is not rarer for that, if all 200 labels are true in about .005."""
    random = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(300, 200, generator=random)
    y = torch.rand(z.shape, generator=random) < torch.sigmoid(z - 7.2)
    judged = Judged.of(z, y)
    assert (judged.positives == 0).sum() > 40
    p = fit(judged)(z).mean(0)
    assert float(p[judged.positives == 0].mean()) == pytest.approx(float(y.double().mean()), rel=0.35)


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
def test_maps_of_candidates_say_how_often_those_are_true(fit: Callable[[Judged], Calibrator]) -> None:
    random = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 6, generator=random) + torch.tensor([-3.0, -2, -1, 0, 1, 2])
    y = torch.rand(z.shape, generator=random) < torch.sigmoid(z - 1)
    values, columns = z.topk(3)
    candidates = Scores(values, columns, 6)
    p = fit(Judged.of(candidates, y))(candidates)
    for label in range(2, 6):
        chosen = columns == label
        true = float(y.gather(1, columns)[chosen].double().mean())
        assert float(p[chosen].mean()) == pytest.approx(true, abs=0.02)
