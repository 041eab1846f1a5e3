"""The statistics of a comparison, checked by simulation where theory gives no number."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import average_precision_score

from lopsided.jobs.evidence import Evidence, Training
from lopsided.jobs.score import Scored
from lopsided.jobs.verdict import _comparison, is_overfitting, is_rising, verdict
from lopsided.metrics.significance import (
    LEVEL,
    Difference,
    holm,
    interval_over_seeds,
    paired_differences,
    resample_rows,
    resplit_differences,
)
from lopsided.models.recipe import Recipe
from lopsided.targets import SparseTargets
from lopsided.training.history import Epoch
from tests.simulation import WORLDS, experiments, mean_average_precisions, splits_of_rows
from tests.tools import made_evidence


def simulate(effect: float, spread: tuple[float, ...], seeds: int, trials: int = 1500) -> torch.Tensor:
    """(trials, losses - 1) p-values; test rows weigh as much as seeds, and the last loss is better by `effect`."""
    generator = torch.Generator().manual_seed(seeds)
    losses, sd = len(spread), torch.tensor(spread)
    p_values = torch.empty(trials, losses - 1)
    for trial in range(trials):
        shared_by_seed = torch.randn(1, seeds, generator=generator)
        values = shared_by_seed + torch.randn(losses, seeds, generator=generator) * sd[:, None]
        row_error = sd / math.sqrt(seeds)  # this test set's luck for each loss
        values = values + (torch.randn(losses, generator=generator) * row_error)[:, None]
        values[-1] += effect
        resampled = values + (torch.randn(100, losses, generator=generator) * row_error)[:, :, None]
        found = paired_differences(values, resampled)
        p_values[trial] = torch.tensor([difference.p_value for difference in found])
    return p_values


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_false_positives_are_at_the_level(seeds: int) -> None:
    p_values = simulate(0.0, (1, 1, 1, 1, 1), seeds)
    assert 0.015 < (p_values < 0.05).float().mean() < 0.065
    families = torch.tensor([min(holm(row.tolist())) for row in p_values])
    assert (families < 0.05).float().mean() < 0.065


@pytest.mark.slow
@pytest.mark.parametrize("spread", [(1, 1, 1, 1, 2), (1, 1, 1, 1, 5), (2, 1, 1, 1, 1), (5, 1, 1, 1, 1)])
def test_unequal_spread_does_not_make_verdicts(spread: tuple[float, ...]) -> None:
    """One loss, or the reference, that varies more than the others."""
    p_values = simulate(0.0, spread, seeds=3)
    assert ((p_values < 0.05).float().mean(0) < 0.085).all()
    families = torch.tensor([min(holm(row.tolist())) for row in p_values])
    assert (families < 0.05).float().mean() < 0.085


def simulate_map(world: str, seeds: int, trials: int, effect: float = 0.0) -> tuple[float, float]:
    """Of simulated mAP: how often a second loss, which is like the first, and the last are found to differ from it."""
    decisions = torch.tensor(
        [
            [difference.p_value < LEVEL for difference in paired_differences(*both)]
            for both in experiments(WORLDS[world], 3, seeds, trials, effect)
        ]
    )
    equal, last = decisions.double().mean(0).tolist()
    return equal, last


@pytest.mark.slow
@pytest.mark.parametrize(("world", "seeds"), [("rows", 3), ("all", 2), ("all", 3), ("all", 5)])
def test_false_positives_of_mean_average_precision(world: str, seeds: int) -> None:
    assert 0.03 <= sum(simulate_map(world, seeds, trials=500)) / 2 <= 0.07


@pytest.mark.slow
def test_power_of_mean_average_precision_rises_with_the_effect() -> None:
    rates = [simulate_map("all", 3, 200, effect) for effect in (0.0, 0.25, 0.5)]
    power = [last for _, last in rates]
    assert power[0] < 0.1 < 0.25 < power[1] < 0.75 < power[2]
    assert max(equal for equal, _ in rates) < 0.08, "the others stay equal"


@pytest.mark.slow
@pytest.mark.parametrize(("losses", "splits"), [(2, 5), (2, 10), (4, 5)])
def test_false_positives_of_splits_that_share_rows(losses: int, splits: int) -> None:
    """As if the splits were of fresh rows, more of them find anything; with the correction they keep the level."""
    simulated = list(splits_of_rows(losses, splits, trials=400))

    def alarms(ratio: float) -> float:
        found = [each.p_value < LEVEL for values in simulated for each in resplit_differences(values, ratio)]
        return float(np.mean(found))

    assert alarms(1 / 3) <= 0.07
    assert alarms(0.0) > 0.1


def test_the_simulated_metric_is_ours() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(4, 50, generator=generator) < 0.3
    scores = torch.randn(2, 4, 50, generator=generator)
    counts = torch.randint(0, 3, (3, 50), generator=generator)
    found = mean_average_precisions(scores, truth, counts.float())
    for loss, sample in itertools.product(range(2), range(3)):
        rows = torch.arange(50).repeat_interleave(counts[sample])  # what the counts stand for
        expected = average_precision_score(truth.T[rows].numpy(), scores[loss].T[rows].numpy())
        assert float(found[sample, loss]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("freedom", [1, 2, 4.5, 30, math.inf])
def test_the_detectable_difference_is_seen_in_eight_of_ten_experiments(freedom: float) -> None:
    random = np.random.default_rng(0)
    errors = np.sqrt(random.chisquare(freedom, 200_000) / freedom) if math.isfinite(freedom) else 1.0
    experiment = Difference(0.0, -1.0, 1.0, 1.0, standard_error=0.1, freedom=freedom, effect_size=0.0)
    seen = (random.standard_normal(200_000) + 10 * experiment.detectable) / errors > stats.t.ppf(0.975, freedom)
    assert seen.mean() == pytest.approx(0.8, abs=0.004)


def test_a_loss_that_varies_more_keeps_its_own_variance() -> None:
    values = torch.tensor([[0.0, 0.1, 0.2], [0.5, 0.61, 0.7], [0.0, 0.8, 0.1]])
    quiet, noisy = paired_differences(values, torch.zeros(10, 3, 3))
    expected = stats.ttest_rel(values[2].double().numpy(), values[0].double().numpy())
    assert noisy.p_value == pytest.approx(expected.pvalue)
    table = values.double().numpy()
    residual = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    error = math.sqrt(2 * (residual**2).sum() / 4 / 3)  # analysis of variance: 2 x 2 degrees of freedom, 3 seeds
    assert quiet.p_value == pytest.approx(2 * stats.t.sf(quiet.mean / error, 4))


def test_the_two_errors_add() -> None:
    values = torch.tensor([[0.1, 0.4, 0.2], [0.3, 0.5, 0.5]])
    resampled = torch.tensor([[0.0, 0.1], [0.0, 0.3], [0.2, 0.7]])
    (difference,) = paired_differences(values, resampled[:, :, None].expand(3, 2, 3))
    from_seeds = float((values[1] - values[0]).double().var()) / 3
    from_rows = float((resampled[:, 1] - resampled[:, 0]).double().var())
    freedom = (from_seeds + from_rows) ** 2 / (from_seeds**2 / 2)  # Welch and Satterthwaite
    error = math.sqrt(from_seeds + from_rows)
    assert difference.standard_error == pytest.approx(error)
    assert (difference.high - difference.low) / 2 == pytest.approx(stats.t.ppf(0.975, freedom) * error)
    assert difference.effect_size == pytest.approx(difference.mean / math.sqrt(3 * from_seeds))


def test_the_rows_count_for_what_they_do_to_all_seeds() -> None:
    """What they do to one seed is in the spread over the seeds already."""
    generator = torch.Generator().manual_seed(0)
    resampled = torch.randn(50, 2, 3, generator=generator) + 2 * torch.randn(50, 2, 1, generator=generator)
    covariance = np.cov((resampled[:, 1] - resampled[:, 0]).double().numpy().T)
    shared = covariance[~np.eye(3, dtype=bool)].mean()
    spread = torch.tensor([[0.0, 0.0, 0.0], [-2.0, 1.0, 4.0]])  # a variance of 9, as much as from rows and more
    (difference,) = paired_differences(spread, resampled)
    assert difference.standard_error == pytest.approx(math.sqrt(shared + 9 / 3))


def test_seeds_that_agree_by_luck_leave_what_the_rows_do_to_their_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    resampled = torch.randn(50, 2, 3, generator=generator)
    (difference,) = paired_differences(torch.tensor([[0.0] * 3, [0.1] * 3]), resampled)
    of_mean = (resampled[:, 1] - resampled[:, 0]).double().mean(1).var()
    assert difference.standard_error == pytest.approx(math.sqrt(of_mean))
    assert math.isnan(difference.effect_size)


@pytest.mark.slow
def test_power_rises_with_the_effect_and_with_seeds() -> None:
    spread = (1.0, 1.0, 1.0)
    power = [float((simulate(effect, spread, 3, trials=400)[:, -1] < 0.05).float().mean()) for effect in (0, 2, 4)]
    assert power[0] < 0.1 < power[1] < power[2]
    assert power[2] > 0.6
    assert (simulate(2, spread, 10, trials=400)[:, -1] < 0.05).float().mean() > power[1]


def test_one_seed_speaks_for_the_rows_alone() -> None:
    resampled = torch.tensor([[0.0, 0.1], [0.0, 0.2], [0.0, 0.3]])[:, :, None]
    (difference,) = paired_differences(torch.tensor([[0.05], [0.25]]), resampled)
    assert difference.mean == pytest.approx(0.2)
    assert difference.high - difference.low == pytest.approx(0.2 * 1.959964, rel=1e-5)
    assert difference.p_value == pytest.approx(2 * stats.norm.sf(2))
    assert difference.detectable == pytest.approx(0.1959964 + 0.0841621, rel=1e-6)
    assert math.isnan(difference.effect_size), "one seed has no spread"


def test_two_losses_and_no_spread_over_rows_is_the_paired_t_test() -> None:
    values = torch.tensor([[0.1, 0.4, 0.2], [0.3, 0.5, 0.5]])
    (difference,) = paired_differences(values, torch.zeros(10, 2, 3))
    expected = stats.ttest_rel(values[1].double().numpy(), values[0].double().numpy())
    assert difference.p_value == pytest.approx(expected.pvalue)
    assert (difference.low, difference.high) == pytest.approx(tuple(expected.confidence_interval()))
    gains = (values[1] - values[0]).double().numpy()
    assert difference.effect_size == pytest.approx(gains.mean() / gains.std(ddof=1)), "Cohen's d_z"


def test_identical_values() -> None:
    (same,) = paired_differences(torch.ones(2, 3), torch.ones(5, 2, 3))
    assert (same.mean, same.low, same.high, same.p_value, same.standard_error, same.detectable) == (0, 0, 0, 1, 0, 0)
    assert math.isnan(same.effect_size)


def test_seeds_that_agree_but_for_rounding_have_no_effect_size() -> None:
    values = torch.tensor([[0.5, 0.5, 0.5 + 1e-16], [0.6, 0.6, 0.6 - 2e-16]], dtype=torch.float64)
    resampled = values + 0.01 * torch.randn(50, 2, 1, generator=torch.Generator().manual_seed(0))
    (difference,) = paired_differences(values, resampled)
    assert difference.mean == pytest.approx(0.1)
    assert math.isnan(difference.effect_size)
    assert difference.freedom == math.inf


def test_undefined_resamples_are_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    values, resampled = torch.rand(3, 4, generator=generator), torch.rand(40, 3, 4, generator=generator)
    full = paired_differences(values, resampled)
    holes = torch.rand(2, 3, 4, generator=generator)
    holes[0, 0, 1] = holes[1, 2, 3] = math.nan
    assert paired_differences(values, torch.cat([resampled, holes])) == full
    mostly = torch.cat([resampled, torch.full((41, 3, 4), math.nan)])
    for difference in paired_differences(values, mostly):
        assert all(math.isnan(value) for name, value in vars(difference).items() if name != "mean")


def test_interval_over_seeds() -> None:
    values = [0.3, 0.4, 0.35]
    interval = interval_over_seeds(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert (interval.low, interval.high) == pytest.approx(tuple(expected))
    assert interval_over_seeds([0.3]).high == math.inf
    assert math.isnan(interval_over_seeds([0.3, math.nan]).low)


def test_intervals_end_where_the_metric_does() -> None:
    assert (interval_over_seeds([0.99, 0.9]).high, interval_over_seeds([0.01, 0.1]).low) == (1.0, 0.0)
    values = torch.tensor([[0.0, 0.1], [0.95, 0.9]])
    (difference,) = paired_differences(values, values.expand(10, 2, 2))
    assert difference.high == 1.0
    assert difference.low > -1.0


def test_holm() -> None:
    assert holm([0.04, math.nan, 0.01, 0.03]) == pytest.approx([0.06, math.nan, 0.03, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_bootstrap_standard_error_of_a_mean() -> None:
    x = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ticks: list[int] = []
    samples = resample_rows([lambda w: float(w @ x / w.sum())], 400, 500, tick=lambda: ticks.append(1))
    assert float(samples.std()) == pytest.approx(float(x.std()) / 20, rel=0.1)
    assert len(ticks) == 500


def test_copies_are_drawn_together() -> None:
    """Three copies of each row say no more than one; drawn apart, they would seem to by a factor of the root of 3."""
    x = torch.randn(200, generator=torch.Generator().manual_seed(0)).double()

    def mean(values: torch.Tensor) -> Callable[[torch.Tensor], float]:
        return lambda weights: float(weights @ values / weights.sum())

    once = resample_rows([mean(x)], 200, 100)
    thrice = resample_rows([mean(x.repeat(3))], torch.arange(200).repeat(3), 100)
    torch.testing.assert_close(thrice, once)


def test_verdicts() -> None:
    assert verdict(0.1, 0.01, unfinished=False) == "better"
    assert verdict(-0.1, 0.01, unfinished=False) == "worse"
    assert verdict(0.1, 0.01, unfinished=True) == "ahead so far"
    assert verdict(-0.1, 0.01, unfinished=True) == "behind so far"
    assert verdict(-0.1, 0.06, unfinished=False) == "no difference shown"
    assert verdict(0.1, math.nan, unfinished=False) == "cannot be tested"


def history(*curve: float) -> list[Epoch]:
    return [Epoch(number, 1.0, 1.0, valid_map=value) for number, value in enumerate(curve, 1)]


def test_a_curve_rises_until_it_flattens() -> None:
    assert is_rising([history(0.1, 0.2, 0.3, 0.4)], 4)
    assert not is_rising([history(0.1, 0.2, 0.3, 0.4)], 5), "it was stopped, as nothing came of more"
    assert not is_rising([history(0.1, 0.2, 0.3, 0.303)], 4)
    assert is_rising([history(0.1, 0.2, 0.3, 0.3), history(0.1, 0.2, 0.3, 0.32)], 4), "the mean over seeds counts"
    assert not is_rising([history(0.1, 0.4, 0.5, 0.6, 0.61, 0.62, 0.61, 0.624)], 8), "the last quarter counts"
    assert is_rising([history(*(0.5 + 0.001 * number for number in range(50)))], 50), "slowly, but over many epochs"
    assert not is_rising([history(math.nan, math.nan)], 2)
    candidates = [[Epoch(number, 1.0, 1.0, valid_p_at_1=value) for number, value in enumerate((0.1, 0.2), 1)]]
    assert is_rising(candidates, 2), "P@1 counts where no mAP is measured"
    assert is_rising([history(0.1, 0.2), history(math.nan, math.nan)], 2), "a diverged seed says nothing"
    assert is_rising([history(0.9)], 1), "one epoch shows no trend"


def test_a_curve_that_fell_far_below_its_peak_overfits() -> None:
    assert is_overfitting([history(0.2, 0.5, 0.48)])
    assert not is_overfitting([history(0.2, 0.5, 0.495)])
    assert not is_overfitting([history(0.2, 0.5, 0.495), history(0.2, 0.5, 0.487)]), "the mean over seeds counts"
    assert is_overfitting([history(0.2, 0.5, 0.4), history(0.3, math.nan)]), "a diverged seed says nothing"
    assert not is_overfitting([history(math.nan)])


def two_losses(**values: Any) -> Evidence:
    """Of two seeds and seven epochs."""
    nothing = SparseTargets.from_indices([])
    scored = [Scored(None, nothing, None, nothing, None)] * 2
    return made_evidence({"bce": scored, "asl": scored}, recipe=Recipe(7, 1, 1.0), **values)


@pytest.mark.parametrize(
    ("metric", "mean", "word"),
    [
        ("map", 0.1, "ahead so far"),
        ("map", -0.1, "worse"),
        ("hamming_loss", -0.1, "ahead so far"),
        ("hamming_loss", 0.1, "worse"),
    ],
)
def test_a_lower_hamming_loss_is_better(metric: str, mean: float, word: str) -> None:
    """The sign of the difference is that of the metric; the verdict knows which way is up."""
    evidence = two_losses(metric=metric, trained={"bce": Training(rising=True), "asl": Training()})
    difference = Difference(mean, mean - 0.05, mean + 0.05, 0.01, 0.025, 4, 3.0)
    found = _comparison(evidence, metric, "asl", difference, (0.01, 0.01))
    assert (found.mean, found.verdict) == (mean, word)


def test_what_is_detectable_is_known_where_nothing_is_shown() -> None:
    difference = Difference(0.01, -0.05, 0.07, 0.7, standard_error=0.02, freedom=math.inf, effect_size=0.3)
    found = _comparison(two_losses(), "map", "asl", difference, (0.7, 0.7))
    assert found.verdict == "no difference shown"
    assert found.detectable == pytest.approx(0.02 * 2.801585)
