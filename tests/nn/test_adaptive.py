"""The controller of gamma_neg and the tracker of p+ and p-."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import lopsided
from lopsided import AdaptiveAsymmetricLoss, ProbabilityTracker
from tests.ranks import on_ranks


def rare_problem() -> tuple[Tensor, Tensor]:
    """Twenty labels, four per cent positive, that two hidden layers learn only in part."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 16, generator=generator)
    scores = x @ torch.randn(16, 20, generator=generator) + 4 * torch.randn(2000, 20, generator=generator)
    return x, (scores > scores.quantile(0.96, dim=0)).float()


def steered(criterion: AdaptiveAsymmetricLoss, steps: int) -> tuple[float, float]:
    """gamma_neg and the gap at the end of a training."""
    x, y = rare_problem()
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 20))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(steps):
        rows = torch.arange(step * 100, (step + 1) * 100) % 2000
        optimizer.zero_grad()
        criterion(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return criterion.gamma_neg, criterion.tracker.gap


@pytest.mark.slow
def test_the_stable_rule_reaches_the_same_gap_from_both_sides() -> None:
    target = -0.15
    ends = [
        steered(AdaptiveAsymmetricLoss(target, step=0.1, gamma_neg=start, decay=0.98, reduction="batchmean"), 1200)
        for start in (0.5, 9.0)
    ]
    for gamma, gap in ends:
        assert gap == pytest.approx(target, abs=0.02)
        assert 0.5 < gamma < 9
    assert ends[0][0] == pytest.approx(ends[1][0], abs=0.75)


@pytest.mark.slow
def test_the_printed_rule_runs_away_to_a_bound() -> None:
    for start, bound in ((0.5, 0.0), (9.0, 15.0)):
        criterion = AdaptiveAsymmetricLoss(
            -0.15, step=0.1, gamma_neg=start, decay=0.98, rule="printed", reduction="batchmean"
        )
        gamma, gap = steered(criterion, 1200)
        assert gamma == bound
        assert abs(gap + 0.15) > 0.05


def test_one_step_by_hand() -> None:
    criterion = AdaptiveAsymmetricLoss(target=0.1, step=0.5, gamma_neg=3.0, decay=0.9, warmup=1)
    z, y = torch.tensor([[0.0, -1.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    p = torch.sigmoid(z[0]).tolist()
    plain = lopsided.AsymmetricLoss(gamma_neg=3.0)
    assert criterion(z, y) == plain(z, y)
    assert criterion.gamma_neg == 3.0  # warming up
    criterion(z, y)
    gap = p[0] - ((1 - p[1]) + (1 - p[2])) / 2
    assert criterion.gamma_neg == pytest.approx(3.0 + 0.5 * (0.1 - gap), abs=1e-6)
    now = lopsided.AsymmetricLoss(gamma_neg=criterion.gamma_neg)(z, y)
    assert criterion(z, y) == now


def test_a_diverged_batch_does_not_stop_the_controller() -> None:
    z, y = torch.randn(4, 5), torch.eye(4, 5)
    criterion = AdaptiveAsymmetricLoss(step=1.0)
    criterion(z, y)
    before = criterion.gamma_neg, criterion.tracker.gap
    criterion(z.masked_fill(y > 0, torch.nan), y)
    assert criterion.tracker.gap == before[1]
    criterion(z + 1, y)
    assert criterion.tracker.gap != before[1]
    assert criterion.gamma_neg > 0
    assert "step=1.0, rule='stable'" in repr(criterion)


def test_the_tracker_checks_its_input() -> None:
    for targets in (torch.ones(4, 1), torch.full((4, 5), -1.0), torch.tensor([0, 1, 2, 3, 4])):
        with pytest.raises(ValueError, match="targets"):
            ProbabilityTracker().update(torch.zeros(4, 5), targets)


def test_only_training_moves_gamma() -> None:
    z, y = torch.randn(4, 5), torch.rand(4, 5) < 0.3
    criterion = AdaptiveAsymmetricLoss(step=1.0)
    with torch.no_grad():
        criterion(z, y)
    criterion.eval()
    criterion(z, y)
    assert criterion.gamma_neg == 4.0
    criterion.train()
    criterion(z, y)
    assert criterion.gamma_neg != 4.0


def test_batches_without_positives_or_without_anything_known_do_no_harm() -> None:
    criterion = AdaptiveAsymmetricLoss(step=1.0)
    z = torch.randn(4, 5)
    criterion(z, torch.zeros(4, 5))
    criterion(z, torch.full((4, 5), torch.nan))
    assert criterion.gamma_neg == 4.0
    criterion(z, torch.eye(4, 5))
    assert criterion.gamma_neg != 4.0


def test_the_state_is_saved_and_bounded(tmp_path: Path) -> None:
    z, y = torch.randn(4, 5), torch.eye(4, 5)
    criterion = AdaptiveAsymmetricLoss(target=0.9, step=3.0, high=6.0)
    for _ in range(3):
        criterion(z, y)
    assert criterion.gamma_neg == 6.0
    criterion.step, criterion.rule = 0.37, "printed"
    criterion(z, y)
    torch.save(criterion.state_dict(), tmp_path / "state.pt")
    twin = AdaptiveAsymmetricLoss(target=0.9, step=3.0, high=6.0)
    twin.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert twin.gamma_neg == criterion.gamma_neg < 6.0
    assert twin.tracker.gap == criterion.tracker.gap
    assert twin(z, y) == criterion(z, y)
    assert copy.deepcopy(criterion).half()(z, y) == criterion(z, y)  # half() must not round gamma


def test_settings_and_options_reach_every_step() -> None:
    """The rest of the loss stays as it was given; labels may stand in another dimension, and some be ignored."""
    z, y = torch.randn(2, 5, 3), (torch.rand(2, 5, 3) < 0.4).long()
    y[0, 0, 0] = y[1, 2, 1] = -1
    options = {"gamma_pos": 1.0, "clip": 0.2, "detach_focus": False}
    criterion = AdaptiveAsymmetricLoss(target=-0.9, step=2.0, low=3.5, **options, label_dim=1, ignore_index=-1)  # type: ignore[arg-type]
    plain = AdaptiveAsymmetricLoss(target=-0.9, step=2.0, low=3.5, **options)  # type: ignore[arg-type]
    last_z, last_y = z.movedim(1, -1), y.movedim(1, -1)
    criterion(z, y)
    plain(last_z, last_y.float().masked_fill(last_y == -1, torch.nan))
    assert criterion.tracker.gap == pytest.approx(plain.tracker.gap, abs=1e-6)
    assert criterion.gamma_neg == plain.gamma_neg == 3.5
    expected = lopsided.AsymmetricLoss(gamma_neg=3.5, gamma_pos=1.0, clip=0.2, detach_focus=False)
    assert criterion.formula == expected.formula


def test_the_tracker_weighs_by_count_and_forgets() -> None:
    z = torch.tensor([[3.0, -1.0], [0.5, 2.0]])
    y = torch.tensor([[1.0, 0.0], [1.0, torch.nan]])
    p = torch.sigmoid(z).tolist()
    tracker = ProbabilityTracker()
    for row in range(2):
        tracker.update(z[row : row + 1], y[row : row + 1])
    assert tracker.positive == pytest.approx((p[0][0] + p[1][0]) / 2)
    assert tracker.negative == pytest.approx(1 - p[0][1])
    forgetful = ProbabilityTracker(decay=0.5)
    for row in range(2):
        forgetful.update(z[row : row + 1], y[row : row + 1])
    assert forgetful.positive == pytest.approx((0.5 * p[0][0] + p[1][0]) / 1.5)
    sparse = ProbabilityTracker()
    sparse.update(z, lopsided.SparseTargets.from_indices([[0], [0]]), torch.tensor([[True, True], [True, False]]))
    assert sparse.gap == pytest.approx(tracker.gap)
    nothing = ProbabilityTracker()
    assert nothing.gap != nothing.gap


def worker(results: str) -> None:
    z, y = two_batches()
    rank = dist.get_rank()
    criterion = AdaptiveAsymmetricLoss(step=1.0)
    criterion(z[rank], y[rank])
    torch.save(torch.tensor([criterion.gamma_neg, criterion.tracker.gap]), f"{results}{rank}")


def two_batches() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(2, 4, 5, generator=generator)
    y = torch.zeros(2, 4, 5)
    y[0] = torch.eye(4, 5)  # the other rank sees no positive at all
    return z, y


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_ranks_share_their_sums(tmp_path: Path) -> None:
    results = str(tmp_path / "rank")
    on_ranks(2, tmp_path, worker, results)
    z, y = two_batches()
    alone = AdaptiveAsymmetricLoss(step=1.0)
    alone(z.flatten(0, 1), y.flatten(0, 1))
    expected = torch.tensor([alone.gamma_neg, alone.tracker.gap])
    for rank in range(2):
        torch.testing.assert_close(torch.load(f"{results}{rank}", weights_only=True), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": 1.0}, r"target must be in \(-1, 1\), got 1"),
        ({"rule": "paper"}, "rule must be 'stable' or 'printed', got 'paper'"),
        ({"gamma_neg": 20}, "need 0 <= low <= gamma_neg <= high, got 0, 20, 15"),
        ({"decay": 0}, r"decay must be in \(0, 1\], got 0"),
        ({"step": -1}, "step must be in"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptiveAsymmetricLoss(**settings)  # type: ignore[arg-type]


def test_the_logits_that_steer_are_never_overwritten() -> None:
    with pytest.raises(ValueError, match="inplace=True would overwrite the logits that steer gamma_neg"):
        AdaptiveAsymmetricLoss(inplace=True)


def test_no_kernel_is_compiled_for_a_gamma_of_one_batch() -> None:
    criterion, logits = AdaptiveAsymmetricLoss(), torch.zeros(1, 2, device="meta")
    assert criterion._executor(logits) == "streamed"
    assert criterion._executor(torch.zeros(1, 2)) == "auto"
    assert criterion.eval()._executor(logits) == "auto"
