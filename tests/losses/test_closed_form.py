import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lopsided
from lopsided import SparseTargets
from lopsided.losses import CATALOG, closed_form, formula
from lopsided.nn.functional import multilabel_loss
from tests import oracle

# sigmoid at the point where the implied posterior is 0.5, and the posterior at p = .5, .7, .8, .9, .99: derived and
# computed once outside this project
TABLE = {
    "bce": (0.5, [0.5, 0.7, 0.8, 0.9, 0.99]),
    "squared_hinge": (0.5, [0.5, 0.924, 1, 1, 1]),  # (1 + logit p) / 2
    "asl(gamma_neg=0)": (0.525, [0.476, 0.667, 0.762, 0.857, 0.943]),
    "focal": (0.5, [0.5, 0.906, 0.977, 0.997, 1.0]),
    "asl(detach_focus=False)": (0.684, [0.128, 0.538, 0.743, 0.880, 0.957]),
    "asl": (0.799, [0.036, 0.263, 0.503, 0.758, 0.928]),
    "asl(gamma_pos=1, detach_focus=False)": (0.639, [0.147, 0.679, 0.884, 0.974, 0.999]),
    "asl(gamma_pos=1)": (0.687, [0.069, 0.543, 0.835, 0.969, 0.999]),
    "asl(gamma_neg=2, clip=0.2)": (0.846, [0.060, 0.259, 0.419, 0.595, 0.746]),
    "asl(gamma_neg=7)": (0.858, [0.003, 0.089, 0.299, 0.658, 0.915]),
    "apl": (0.763, [0.032, 0.302, 0.628, 0.906, 0.997]),
    "apl(detach_focus=False)": (0.670, [0.115, 0.585, 0.828, 0.958, 0.998]),
}


@pytest.mark.parametrize("spec", TABLE)
def test_posterior_and_threshold(spec: str) -> None:
    threshold, posteriors = TABLE[spec]
    loss = lopsided.loss(spec)
    assert torch.sigmoid(loss.decision_threshold()).item() == pytest.approx(threshold, abs=6e-4)
    p = torch.tensor([0.5, 0.7, 0.8, 0.9, 0.99], dtype=torch.float64)
    torch.testing.assert_close(
        loss.posterior(torch.logit(p)), torch.tensor(posteriors, dtype=torch.float64), rtol=0, atol=6e-4
    )


@pytest.mark.parametrize(
    "spec", ["bce", "squared_hinge", "focal", "asl(detach_focus=False)", "apl(detach_focus=False)"]
)
@pytest.mark.parametrize("eta", [0.1, 0.5, 0.8])
def test_the_threshold_is_where_training_settles(spec: str, eta: float) -> None:
    """A logit fitted to a label of probability eta ends at the threshold of eta, found here by brute force."""
    z = torch.linspace(-8, 8, 160_001, dtype=torch.float64)[:, None]
    risk = lopsided.functional.multilabel_loss(z, torch.full_like(z, eta), formula(spec), reduction="none")
    assert z[risk.argmin()].item() == pytest.approx(lopsided.loss(spec).decision_threshold(eta).item(), abs=2e-4)


@pytest.mark.parametrize("formula_of", [lopsided.AsymmetricLoss, lopsided.AsymmetricPolynomialLoss])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_thresholds_compare_with_tensors_and_arrays_of_every_dtype(formula_of: Any, shape: tuple[int, ...]) -> None:
    criterion = formula_of(pos_weight=torch.tensor([1.0, 2.0, 0.5, 3.0]) if shape else None)
    threshold = criterion.decision_threshold()
    assert type(threshold) is Tensor
    assert (threshold.shape, threshold.dtype) == (shape, torch.float64)
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0]])
    expected = [
        [z > limit for z, limit in zip(row, threshold.expand(4).tolist(), strict=True)] for row in logits.tolist()
    ]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert (logits.to(dtype) > threshold).tolist() == (threshold < logits.to(dtype)).tolist() == expected
    for kind in (np.float16, np.float32, np.float64):
        array = logits.numpy().astype(kind)
        assert isinstance(array > threshold, np.ndarray)
        assert (array > threshold).tolist() == (threshold.numpy() < array).tolist() == expected
        assert (array <= threshold).tolist() == (~(array > threshold)).tolist()


def test_a_threshold_is_copied_and_saved_as_any_tensor(tmp_path: Path) -> None:
    threshold = lopsided.AsymmetricLoss(pos_weight=torch.tensor([1.0, 2.0])).decision_threshold()
    torch.save(threshold, tmp_path / "threshold.pt")
    for twin in (torch.load(tmp_path / "threshold.pt", weights_only=True), copy.deepcopy(threshold)):
        assert torch.equal(twin, threshold)


HEAVIEST = 0.95**4 / 0.05  # of asl: at infinity f-' / -f+' is (1 - clip)^gamma_neg / clip, with detached focusing


@pytest.mark.parametrize(
    ("criterion", "eta", "count", "weight", "highest", "cure"),
    [
        (lopsided.loss("asl", clip=0.5), 0.5, "every label", "1", "0.111", "0.125"),
        (lopsided.AsymmetricLoss(), 0.95, "every label", "1", "0.942", "0.857"),
        (lopsided.AsymmetricLoss(pos_weight=torch.tensor([1.0, 17.0, 99.0])), 0.5, "2 of 3", "99", "0.141", "16.3"),
        # smoothing e = 0.3 trains a label of probability 0.9 as one of 0.78, whose odds are 3.545
        (
            lopsided.AsymmetricLoss(pos_weight=torch.tensor([30.0]), label_smoothing=0.3),
            0.9,
            "1 of 1",
            "30",
            "",
            "4.59",
        ),
        (lopsided.AsymmetricLoss(alpha=0.99), 0.5, "every label", "1", "0.141", "0.165"),
    ],
)
def test_saturation_is_said_with_its_cure(
    criterion: lopsided.MultiLabelLoss, eta: float, count: str, weight: str, highest: str, cure: str
) -> None:
    with pytest.warns(UserWarning, match="saturates for") as caught:
        threshold = criterion.decision_threshold(eta)
    assert threshold.isinf().any()
    message = str(caught[0].message)
    for part in (count, f"pos_weight of {weight} ", highest, f"pos_weight below {cure},", "gamma_pos above 0"):
        assert part in message, message
    assert caught[0].filename == __file__
    milder = copy.deepcopy(criterion)
    milder.pos_weight = torch.full_like(threshold, float(cure) * 0.99)
    assert milder.decision_threshold(eta).isfinite().all()


@pytest.mark.parametrize("cure", [{"gamma_pos": 0.5}, {"clip": 0.01}, {"clip": 0.0}])
def test_the_cures_of_saturation_work(cure: dict[str, float]) -> None:
    weight = torch.tensor([17.0, 50.0])
    with pytest.warns(UserWarning, match="saturates for 2 of 2 labels"):
        assert lopsided.AsymmetricLoss(pos_weight=weight).decision_threshold().tolist() == [math.inf] * 2
    assert lopsided.loss("asl", pos_weight=weight, **cure).decision_threshold().isfinite().all()


def test_limits_and_thresholds_take_the_weight_into_account() -> None:
    weight = torch.tensor([1.0, 10.0, 50.0])
    low, high = lopsided.AsymmetricLoss(pos_weight=weight).posterior_limits()
    torch.testing.assert_close(high, HEAVIEST / (HEAVIEST + weight.double()))
    assert low.tolist() == [0, 0, 0]
    for factor, finite in ((1 - 1e-6, True), (1 + 1e-6, False)):
        formula_at = (lopsided.losses.formula("asl"), torch.tensor(factor * HEAVIEST, dtype=torch.float64))
        assert math.isfinite(closed_form.settled_logit(*formula_at)) == finite


def test_zlpr_has_a_threshold_and_no_posterior() -> None:
    assert lopsided.loss("zlpr").decision_threshold() == 0
    with pytest.raises(ValueError, match="couple"):
        lopsided.loss("zlpr").posterior(torch.zeros(1))


LABEL_WISE = [name for name in CATALOG if formula(name).pool.per_label and name != "aml"]


def test_scores_of_a_hinge_stand_for_no_probability() -> None:
    """Of labels of 0.6 and of 0.9 the risk is least at the same logit, and between -1 and 1 the same for 0.5."""
    loss = lopsided.loss("aml")
    for meaning in (loss.decision_threshold, loss.posterior_limits, lambda: loss.posterior(torch.zeros(1))):
        with pytest.raises(ValueError, match="under aml a more probable label does not always get a higher score"):
            meaning()


@pytest.mark.parametrize("name", LABEL_WISE)
def test_posteriors_rise_with_the_logit_and_pass_the_threshold(name: str) -> None:
    loss = lopsided.loss(name)
    z = torch.linspace(-60, 60, 2401, dtype=torch.float64)
    eta = loss.posterior(z)
    assert ((eta >= 0) & (eta <= 1)).all()
    assert loss.posterior(torch.tensor([-1e4, 1e4])).isfinite().all()
    assert (eta.diff() >= -1e-12).all()
    low, high = loss.posterior_limits()
    assert 0 <= low < 0.01 < 0.9 < high <= 1
    for wanted in (0.1, 0.5, 0.9):
        at = loss.decision_threshold(wanted)
        assert loss.posterior(at).item() == pytest.approx(wanted, abs=1e-9)
        assert loss.posterior(at - 1e-6).item() <= wanted


def test_limits_say_where_a_loss_saturates() -> None:
    """With gamma_pos=0 and a clip, a posterior above 1 / (1 + clip / ...) trains towards infinity: known values."""
    highest = {"asl": 0.9422, "asl(detach_focus=False)": 0.9637, "asl(gamma_neg=0)": 1 / 1.05}
    for spec, expected in highest.items():
        assert lopsided.loss(spec).posterior_limits()[1].item() == pytest.approx(expected, abs=5e-5)
    assert [limit.item() for limit in lopsided.loss("bce").posterior_limits()] == pytest.approx([0, 1])


@pytest.mark.parametrize(
    "spec", ["bce", "squared_hinge", "focal(alpha=0.25)", "asl(detach_focus=False)", "hill", "ral"]
)
@pytest.mark.parametrize(("eta", "pos_weight", "smoothing"), [(0.3, 1.0, 0.0), (0.2, 4.0, 0.0), (0.3, 2.0, 0.2)])
def test_weights_and_smoothing_are_undone(spec: str, eta: float, pos_weight: float, smoothing: float) -> None:
    z = torch.linspace(-8, 8, 160_001, dtype=torch.float64)[:, None]
    module = lopsided.MultiLabelLoss(
        spec, pos_weight=torch.tensor([pos_weight]), label_smoothing=smoothing, reduction="none"
    )
    risk = module(z, torch.full_like(z, eta))
    settled = z[risk.argmin()]
    assert module.decision_threshold(eta).item() == pytest.approx(settled.item(), abs=2e-4)
    assert module.posterior(settled).item() == pytest.approx(eta, abs=1e-4)


def test_thresholds_of_a_module_are_per_label_where_its_weights_are() -> None:
    module = lopsided.AsymmetricLoss(pos_weight=torch.tensor([1.0, 3.0, 0.5]))
    thresholds = module.decision_threshold()
    assert thresholds.shape == (3,)
    assert thresholds[0].item() == pytest.approx(1.379, abs=1e-3)
    assert thresholds[1] > thresholds[0] > thresholds[2]  # heavier positives are scored higher
    torch.testing.assert_close(module.posterior(thresholds.expand(2, 3)), torch.full((2, 3), 0.5, dtype=torch.float64))
    assert lopsided.AsymmetricLoss().decision_threshold().shape == ()
    assert lopsided.AsymmetricLoss(pos_weight=torch.tensor([2.0])).decision_threshold().shape == (1,)


def test_labels_in_another_dimension() -> None:
    module = lopsided.MultiLabelLoss("bce", pos_weight=torch.tensor([1.0, 9.0]), label_dim=1)
    p = module.posterior(torch.zeros(1, 2, 3))
    torch.testing.assert_close(p, torch.tensor([[[0.5] * 3, [0.1] * 3]], dtype=torch.float64))


def test_bad_training_settings_are_named() -> None:
    for weight in (0.0, -1.0):
        with pytest.raises(ValueError, match="pos_weight must be finite and positive"):
            closed_form.decision_threshold(formula("zlpr"), pos_weight=weight)
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), got 1"):
        closed_form.posterior(formula("bce"), torch.zeros(1), label_smoothing=1)
    with pytest.raises(ValueError, match="targets have shape"):
        lopsided.fit_temperature(torch.zeros(4, 3), torch.zeros(4, 1))


def test_zlpr_decides_at_its_threshold_whatever_its_scale_and_margin() -> None:
    assert lopsided.loss("zlpr(threshold=1.5, scale=3, margin=0.2)").decision_threshold() == pytest.approx(1.5)
    heavy = lopsided.ZLPRLoss(scale=2.0, pos_weight=torch.tensor([4.0]), reduction="none")
    at = heavy.decision_threshold()
    assert at.item() == pytest.approx(math.log(4) / 4)
    even = oracle.gradient(lambda z: heavy(z, torch.full((1, 1), 0.5)), at.view(1, 1))
    assert even.item() == pytest.approx(0, abs=1e-9)  # a label that is as often positive as not settles there
    for name in ("lsep", "two_way", "bp_mll", "softmax"):
        with pytest.raises(ValueError, match="only ranks the labels of a row: tune a threshold"):
            lopsided.loss(name).decision_threshold()


@pytest.mark.parametrize("spec", ["hill(gamma=0)", "hill(margin=2)", "hill(gamma=1)"])
def test_scores_that_stand_for_no_probability_are_refused(spec: str) -> None:
    loss = lopsided.loss(spec)
    for ask in (loss.decision_threshold, loss.posterior_limits, lambda: loss.posterior(torch.zeros(1))):
        with pytest.raises(ValueError, match="more probable label does not always get a higher score"):
            ask()


def calibration_error(p: Tensor, y: Tensor) -> float:
    """Expected calibration error with 15 bins of equal width."""
    bins = (p * 15).long().clamp(max=14)
    gaps = [(p[bins == b].mean() - y[bins == b].mean()).abs() * (bins == b).double().mean() for b in bins.unique()]
    return float(sum(gaps))


def trained_scores(spec: str) -> tuple[Tensor, Tensor]:
    """Logits and fresh labels after training on labels drawn from known probabilities, .02 to .93."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.arange(48).repeat_interleave(2000)
    eta = torch.linspace(0.02, 0.93, 48, dtype=torch.float64)
    y, fresh = (torch.rand(len(cells), generator=generator, dtype=torch.float64) < eta[cells] for _ in range(2))
    # an embedding of the cells, so that any probability can be learnt; rows of one cell share their gradient
    z = torch.zeros(48, 1, dtype=torch.float64, requires_grad=True)
    shares = y.view(48, 2000).double().mean(1, keepdim=True)
    optimizer = torch.optim.Rprop([z], 0.05)  # its steps do not shrink where slopes vanish, as Hill's do
    for _ in range(400):
        optimizer.zero_grad()
        # the mean over the rows of a cell is the loss at its share of positives: the mixture
        multilabel_loss(z, shares, spec, reduction="sum").backward()
        optimizer.step()
    return z.detach().squeeze(1)[cells], fresh.double()


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["bce", "asl", "asl_optimized", "apl", "focal", "hill", "ral"])
def test_the_map_calibrates_what_training_produced(spec: str) -> None:
    z, fresh = trained_scores(spec)
    loss = lopsided.loss(spec)
    mapped = calibration_error(loss.posterior(z), fresh)
    assert mapped < 0.02
    if spec == "asl":
        assert calibration_error(torch.sigmoid(z), fresh) > 0.15
        assert mapped < 0.01


@pytest.mark.slow
def test_a_network_trained_by_asl_is_calibrated_by_the_map() -> None:
    """The same through features, a hidden layer and mini-batches: twelve labels of probabilities known to the test."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(4, 12, generator=generator)

    def draw(rows: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(rows, 4, generator=generator)
        return x, (torch.rand(rows, 12, generator=generator) < torch.sigmoid(x @ truth - 1)).float()

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 12))
    loss = lopsided.AsymmetricLoss(reduction="batchmean")
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)
    for _ in range(1500):
        x, y = draw(256)
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        schedule.step()
    x, y = draw(20_000)
    z = model(x).detach().double()
    assert calibration_error(torch.sigmoid(z), y.double()) > 0.15
    assert calibration_error(loss.posterior(z), y.double()) < 0.02


def test_fit_temperature() -> None:
    z = 3 * torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert lopsided.fit_temperature(z, torch.sigmoid(z / 1.7)) == pytest.approx(1.7, rel=1e-9)
    mask = torch.rand(z.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    broken = torch.where(mask, torch.sigmoid(2 * z), 0.5)
    assert lopsided.fit_temperature(z, broken, mask) == pytest.approx(0.5, rel=1e-9)
    assert lopsided.fit_temperature(z, torch.where(mask, torch.sigmoid(2 * z), torch.nan)) == pytest.approx(
        0.5, rel=1e-9
    )
    sparse = SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in z > 1])
    dense = lopsided.fit_temperature(z, (z > 1).double())
    assert lopsided.fit_temperature(z, sparse) == pytest.approx(dense, rel=1e-9)
    assert lopsided.fit_temperature(z, (z > 0).double()) == pytest.approx(1e-3, rel=1e-6)
