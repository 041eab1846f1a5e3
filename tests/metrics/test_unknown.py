"""Unknown labels, stored zeros and every form of scores and targets mean in all metrics what they mean to losses."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn import metrics as sk
from torch import Tensor

import lopsided
from lopsided import SparseTargets
from lopsided.decision.calibrators import fit_isotonic, fit_platt
from lopsided.decision.rules import LabelThresholds, Threshold, TopK, tune_label_thresholds, tune_threshold
from lopsided.decision.suspects import rank_suspects
from lopsided.decision.sweep import Cost, FBeta, best_thresholds
from lopsided.metrics import Judged, MultiLabelMetrics, Scores
from lopsided.metrics.registry import METRICS
from lopsided.metrics.top_k import RankedMetrics
from lopsided.metrics.weighted import Weighable
from tests.metrics.test_collection import (
    LABELS,
    adaptive_error,
    case,
    collect,
    collection,
    equal_width_error,
    sparse,
)

Array = Any


def half_known(name: str = "ties") -> tuple[Tensor, Tensor, Tensor]:
    """Scores, targets with NaN, and which are known: row 0 nothing, label 6 nowhere, label 5 in one row."""
    scores, targets = case(name)
    known = torch.from_numpy(np.random.default_rng(3).random(scores.shape) < 0.7)
    known[0], known[:, 6], known[:, 5] = False, False, False
    known[3, 5] = True
    return scores, torch.where(known, targets.double(), torch.nan), known


def over(values: list[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def of_labels(
    metric: Callable[[Array, Array], float], y: Array, x: Array, known: Array, both: bool = False
) -> list[float]:
    """The metric of each label on its known rows; NaN without positives, or without both kinds."""
    columns = [(y[known[:, j], j], x[known[:, j], j]) for j in range(LABELS)]
    return [metric(a, b) if a.any() and not (both and a.all()) else math.nan for a, b in columns]


def expected(y: Array, s: Array, d: Array, known: Array) -> dict[str, float]:
    """By loops over labels and rows, each on what is known of it. y, d: bool."""
    rows = [(y[i, known[i]], s[i, known[i]], d[i, known[i]]) for i in range(len(y)) if known[i].any()]
    p = 1 / (1 + np.exp(-s))
    calibrated = [j for j in range(LABELS) if known[:, j].any()]
    best = [[int(hit) for _, hit in sorted(zip(-b, a, strict=True), key=lambda pair: pair[0])] for a, b, _ in rows]
    f1 = of_labels(lambda a, b: sk.f1_score(a, b, zero_division=0), y, d, known)
    values = {
        "map": over(of_labels(sk.average_precision_score, y, s, known)),
        "map_micro": sk.average_precision_score(y[known], s[known]),
        "auroc": over(of_labels(sk.roc_auc_score, y, s, known, both=True)),
        "auroc_micro": sk.roc_auc_score(y[known], s[known]),
        "micro_f1": sk.f1_score(y[known], d[known]),
        "macro_f1": over(f1),
        "CP": over(of_labels(lambda a, b: sk.precision_score(a, b, zero_division=0), y, d, known)),
        "hamming_loss": float((y != d)[known].mean()),
        "sample_f1": np.mean([sk.f1_score(a, b, zero_division=0) for a, _, b in rows]),
        "sample_recall": np.mean([sk.recall_score(a, b, zero_division=0) for a, _, b in rows]),
        "subset_accuracy": np.mean([bool((a == b).all()) for a, _, b in rows]),
        "empty_rows": np.mean([not b.any() for _, _, b in rows]),
        "predicted_per_row": np.mean([b.sum() for _, _, b in rows]),
        "lrap": np.mean(
            [sk.label_ranking_average_precision_score(a[None], b[None]) if a.any() else 1 for a, b, _ in rows]
        ),
        "ranking_loss": np.mean([sk.label_ranking_loss(a[None], b[None]) for a, b, _ in rows]),
        "coverage": np.mean([sk.coverage_error(a[None], b[None]) if a.any() else 0 for a, b, _ in rows]),
        "p@1": np.mean([sum(hits[:1]) for hits in best]),
        "p@3": np.mean([sum(hits[:3]) / 3 for hits in best]),
        "ndcg@3": np.mean([sk.ndcg_score(a[None], b[None], k=3) if len(a) > 1 else float(a[0]) for a, b, _ in rows]),
        "ece": np.mean([equal_width_error(y[known[:, j], j], p[known[:, j], j]) for j in calibrated]),
        "ece_adaptive": np.mean([adaptive_error(y[known[:, j], j], p[known[:, j], j]) for j in calibrated]),
        "ece_micro": equal_width_error(y[known], p[known]),
        "brier": np.mean([np.square(y - p)[known[:, j], j].mean() for j in calibrated]),
    }
    return {name: float(value) for name, value in values.items()}


def without(values: dict[str, float], *endings: str) -> dict[str, float]:
    return {name: value for name, value in values.items() if not name.startswith(endings)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("name", ["plain", "single precision", "ties", "empty rows and labels"])
def test_every_metric_is_that_of_the_known_labels(name: str) -> None:
    scores, targets, known = half_known(name)
    truth, k = targets.nan_to_num(0).bool().numpy(), known.numpy()
    wanted = expected(truth, scores.double().numpy(), scores.numpy() > 0.4, k)
    metrics = collect(scores, targets, decide=0.4)
    result = metrics.result()
    if name == "ties":  # in P@k the lower label comes first
        wanted = without(wanted, "p@")
    assert {key: result.values[key] for key in wanted} == pytest.approx(wanted, abs=1e-9)
    assert result.unknown == (~k).sum()
    assert result.rows_without_labels == (k.any(1) & ~truth.any(1)).sum()
    assert result.labels_without_positives == (~truth.any(0)).sum()


@pytest.mark.parametrize("binned", [None, 64])
def test_every_way_to_say_unknown_is_the_same(binned: int | None) -> None:
    scores, targets, known = half_known()
    filled = targets.nan_to_num(0)
    whole = collect(scores, targets, binned=binned).result().values
    marked = torch.where(known, filled, 9).to(torch.uint8)
    stored = sparse(targets, targets != 0)
    ways: list[tuple[Any, dict[str, Any]]] = [
        (filled, {"mask": known}),
        (torch.where(known, filled, 1.0), {"mask": known.numpy()}),
        (marked, {"ignore_index": 9}),
        (torch.where(known, filled, -1).to(torch.int8), {"ignore_index": -1}),
        (stored, {}),
        (SparseTargets.from_csr(stored), {}),
        (scipy.sparse.csr_matrix(targets.numpy()), {}),
        (targets.numpy(), {}),
        (filled.tolist(), {"mask": known.tolist()}),
    ]
    for given, options in ways:
        metrics = collection(binned=binned)
        metrics.update(scores, given, **options)
        assert metrics.compute() == pytest.approx(whole, nan_ok=True, abs=1e-12), (type(given), options.keys())


def test_scores_of_unknown_labels_may_be_anything_and_batches_mix() -> None:
    scores, targets, known = half_known()
    whole = collect(scores, targets).result().values
    for rest in (math.nan, math.inf, 7.0):
        changed = torch.where(known, scores, rest)
        metrics = collection()
        for part in (slice(0, 1), slice(1, 30), slice(30, 60)):
            metrics.update(changed[part], targets[part])
        assert metrics.compute() == pytest.approx(whole, nan_ok=True, abs=1e-12)
    with pytest.raises(ValueError, match=r"1 of \d+ scores are NaN"):
        collect(torch.where(torch.arange(LABELS) == 2, torch.nan, scores[3:4]), torch.zeros(1, LABELS))
    all_known = collect(scores, targets.nan_to_num(0))
    all_known.merge(collect(scores, targets))
    assert all_known.result().unknown == (~known).sum()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_sparse_scores_with_unknown_labels() -> None:
    """What is not stored is below all that is, also among the known labels of a row."""
    scores, targets, known = half_known("plain")
    listed = torch.from_numpy(np.random.default_rng(5).random(scores.shape) < 0.5)
    values = collect(sparse(scores, listed), targets, decide=0.4).result().values
    s = torch.where(listed, scores.double(), -600).numpy()
    wanted = expected(targets.nan_to_num(0).bool().numpy(), s, s > 0.4, known.numpy())
    wanted = without(wanted, "p@", "ece", "brier")  # labels without a score are not named
    assert {key: values[key] for key in wanted} == pytest.approx(wanted, abs=1e-9)


def test_rows_are_compared_on_their_known_labels() -> None:
    p, y = torch.tensor([[0.11, 0.22, 0.84], [0.73, 0.33, 0.92]]), torch.tensor([[0.0, 1, 0], [1, 0, math.nan]])
    metrics = MultiLabelMetrics(num_labels=3, scale="probabilities")
    metrics.update(p, y)
    assert metrics.compute()["subset_accuracy"] == 0.5
    assert Judged.of(p, y).rows.tolist() == [2, 2, 1]


def test_weighted_metrics_leave_out_unknown_labels_too() -> None:
    scores, targets, _ = half_known()
    judged = Judged.of(scores, targets)
    collected = collect(scores.float(), targets, decide=0.4).result()
    summary = Weighable(judged, judged.scores.values > 0.4).summary()
    for name in ("map", "auroc", "micro_f1", "macro_f1", "sample_f1", "subset_accuracy", "hamming_loss", "p@1", "p@3"):
        assert METRICS[name].value(summary) == pytest.approx(collected.values[name], abs=1e-12), name
    times = torch.from_numpy(np.random.default_rng(3).integers(3, size=60))
    again = Judged.of(scores.repeat_interleave(times, 0), targets.repeat_interleave(times, 0))
    for name in ("map", "auroc", "micro_f1", "macro_f1", "sample_f1", "hamming_loss", "p@3"):
        weighted = METRICS[name].value(Weighable(judged, judged.scores.values > 0.4).summary(times))
        repeated = METRICS[name].value(Weighable(again, again.scores.values > 0.4).summary())
        assert weighted == pytest.approx(repeated, abs=1e-12), name


# ---- stored zeros


def test_a_stored_zero_is_a_negative_everywhere() -> None:
    truth = SparseTargets(torch.tensor([0, 2, 3]), torch.tensor([0, 2, 1]), torch.tensor([0.0, 1.0, 1.0]), 3)
    z = torch.tensor([[2.0, -1.0, 1.0], [0.0, 3.0, -2.0]])
    metrics = MultiLabelMetrics(num_labels=3, scale="logits")
    metrics.update(z, truth)
    values = metrics.compute()
    assert (values["p@1"], values["micro_f1"]) == pytest.approx((0.5, 0.8))
    scores, columns = z.sort(1, descending=True)
    ranked = RankedMetrics((1,))
    ranked.update(columns, truth)
    assert ranked.result()["p@1"] == 0.5
    for judged in (Judged.of(Scores(scores, columns, 3), truth), Judged.of(z, truth)):
        assert judged.positives.tolist() == [0, 1, 1]
        assert judged.hits.sum() == 2


@pytest.mark.parametrize("value", [0.3, 0.999])
def test_soft_targets_judge_no_decision(value: float) -> None:
    truth = SparseTargets(torch.tensor([0, 2]), torch.tensor([0, 2]), torch.tensor([value, 1.0]), 3)
    z = torch.zeros(1, 3)
    makes: list[Callable[[], object]] = [
        lambda: Judged.of(z, truth),
        lambda: Judged.of(Scores(z[:, :2], torch.tensor([[0, 1]]), 3), truth),
        lambda: Judged.of(z, torch.tensor([[value, 0, 1]])),
        lambda: MultiLabelMetrics(3, "logits").update(z, truth),
        lambda: RankedMetrics().update(torch.zeros(1, 5).long(), truth),
    ]
    for make in makes:
        with pytest.raises(ValueError, match="targets must be 0 or 1 to be evaluated"):
            make()


# ---- rules and calibrators


def judged_of_known_rows(scores: Tensor, targets: Tensor, label: int) -> Judged:
    known = ~targets[:, label].isnan()
    return Judged.of(scores[known, label : label + 1], targets[known, label : label + 1])


def test_thresholds_and_maps_are_those_of_the_known_entries() -> None:
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(300, 5, generator=random)
    targets = (torch.rand(300, 5, generator=random) < torch.sigmoid(2 * scores - 1)).double()
    targets[torch.rand(300, 5, generator=random) < 0.3] = math.nan
    judged = Judged.of(scores, targets)
    columns = torch.rand(300, 5, generator=random).argsort(1)
    stored = SparseTargets.from_csr(sparse(targets, targets != 0))
    listed = Judged.of(Scores(scores.gather(1, columns), columns, 5), stored)
    isotonic, platt = fit_isotonic(judged, pseudo=0), fit_platt(judged, pseudo=0)
    for label in range(5):
        alone = judged_of_known_rows(scores, targets, label)
        for objective in (FBeta(), FBeta(2.0), Cost(1.0, 4.0)):
            expected_threshold = float(best_thresholds(alone, objective).labels)
            assert float(best_thresholds(judged, objective).labels[label]) == expected_threshold
            assert float(best_thresholds(listed, objective).labels[label]) == expected_threshold
        column = scores[:, label : label + 1]
        torch.testing.assert_close(isotonic(scores)[:, [label]], fit_isotonic(alone, pseudo=0)(column))
        torch.testing.assert_close(platt(scores)[:, [label]], fit_platt(alone, pseudo=0)(column), rtol=1e-5, atol=1e-7)
    known = ~targets.isnan()
    flat = Judged.of(scores[known][:, None], targets[known][:, None])
    assert tune_threshold(judged).threshold == tune_threshold(flat).threshold == tune_threshold(listed).threshold
    temperature = lopsided.fit_temperature(scores, targets)
    assert temperature == pytest.approx(lopsided.fit_temperature(scores[known], targets[known]))
    assert temperature == pytest.approx(lopsided.fit_temperature(scores, targets.nan_to_num(0), known))


def test_unknown_labels_are_no_suspects() -> None:
    """They are no negatives that look like forgotten positives."""
    scores, targets, known = half_known("plain")
    suspects = rank_suspects(Judged.of(scores, targets))
    negative = known & (targets == 0)
    assert len(suspects) == negative.sum()
    assert negative[suspects.row, suspects.label].all()


# ---- what a user holds


def test_scores_as_a_user_holds_them() -> None:
    scores, targets = case("plain")
    whole = collect(scores, targets).result().values
    for given in (scores.numpy(), scores.tolist(), scores.requires_grad_()):
        for truth in (
            targets.numpy(),
            targets.tolist(),
            targets.int().numpy(),
            scipy.sparse.csr_matrix(targets.numpy()),
        ):
            metrics = collection()
            metrics.update(given, truth)
            assert metrics.compute() == pytest.approx(whole, abs=1e-12)
    scores = scores.detach()
    rule = tune_label_thresholds(Judged.of(scores.numpy(), targets.numpy()))
    assert torch.equal(rule.decide(scores.numpy()), rule.decide(scores))
    kept = scores > 0
    stored = scipy.sparse.csr_matrix(np.where(kept, scores, 0))
    metrics = collection()
    metrics.update(stored, targets)
    assert metrics.compute() == pytest.approx(collect(sparse(scores, kept), targets).compute(), nan_ok=True)
    frozen = scores.numpy().copy()
    frozen.flags.writeable = False  # torch warns of such arrays
    assert collect(frozen, targets).compute() == pytest.approx(whole, abs=1e-12)


def test_thresholds_and_rules_decide() -> None:
    scores, targets = case("plain")
    criterion = lopsided.loss("asl")
    own = collect(scores, targets, decide=float(criterion.decision_threshold())).compute()
    assert collect(scores, targets, decide=criterion.decision_threshold()).compute() == own
    per_label = torch.linspace(-1, 1, LABELS)
    by_rule = collect(scores.float(), targets, decide=LabelThresholds(per_label)).compute()
    assert collect(scores.float(), targets, decide=per_label).compute() == by_rule
    assert collect(scores.float(), targets, decide=LabelThresholds(per_label).decide).compute() == by_rule
    listed = sparse(scores.float(), scores > -0.5)
    for rule in (LabelThresholds(per_label), Threshold(0.3), TopK(2)):
        dense = torch.where(scores > -0.5, scores.float(), -torch.inf)
        named = rule.decide(dense) & (scores > -0.5)
        wanted = sk.f1_score(targets, named, average="micro")
        assert collect(listed, targets, decide=rule).compute()["micro_f1"] == pytest.approx(wanted), rule


def test_epochs_of_a_loop() -> None:
    """`reset` forgets, `compute` gives plain floats, as Lightning's `log_dict` takes them."""
    scores, targets = case("plain")
    whole = collect(scores, targets).compute()
    assert all(type(value) is float for value in whole.values())
    metrics = collection()
    for _ in range(3):
        for part in (slice(0, 25), slice(25, 60)):
            metrics.update(scores[part], targets[part])
        assert metrics.compute() == pytest.approx(whole, abs=1e-12)
        metrics.reset()
        assert metrics.rows == 0
        with pytest.raises(ValueError, match="no rows were collected"):
            metrics.compute()
