"""The collection against scikit-learn, or loops written from the definitions where it has none."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from torch import Tensor

import lopsided
from lopsided import SparseTargets
from lopsided.metrics import MetricValues, MultiLabelMetrics
from tests.metrics.test_top_k import by_hand

LABELS, BINS = 7, 5
PROPENSITY = torch.linspace(0.1, 1, LABELS)
CASES = [
    "plain",
    "single precision",
    "ties",
    "both zeros",
    "far out",
    "empty rows and labels",
    "one row",
    "all positive",
    "nothing positive",
]
Array = Any


def case(name: str) -> tuple[Tensor, Tensor]:
    """Logits and targets."""
    random = np.random.default_rng(CASES.index(name))
    rows = 1 if name == "one row" else 60
    targets = random.random((rows, LABELS)) < 0.3
    scores = random.normal(size=(rows, LABELS)) + targets
    if name == "ties":
        scores = scores.round()
        assert len(np.unique(scores)) < 12
    if name == "both zeros":
        scores = np.where(scores > 0, 0.0, -0.0)
        assert np.signbit(scores).any()
    if name == "far out":  # where sigmoid is 1 in single precision, and nearly so in double
        scores = scores + 20
    if name == "empty rows and labels":
        targets[:5], targets[:, 2], targets[:, 3] = False, False, True
        targets[:5, 3] = False
    if name == "one row":
        targets[0, [1, 4]] = True
    if name == "all positive":
        targets[:] = True
    if name == "nothing positive":
        targets[:] = False
    exact = torch.from_numpy(scores)
    return (exact.float() if name in ("single precision", "both zeros") else exact), torch.from_numpy(targets)


# ---- the oracle


def per_label(y: Array, s: Array, p: Array, d: Array, adaptive: bool) -> dict[str, Array]:
    def each(metric: Callable[[Array, Array], float], x: Array, defined: Array) -> Array:
        return np.array([metric(y[:, j], x[:, j]) if defined[j] else math.nan for j in range(LABELS)])

    present, always = y.any(0), np.ones(LABELS, bool)
    table = {
        "positives": y.sum(0),
        "average_precision": each(sk.average_precision_score, s, present),
        "auroc": each(sk.roc_auc_score, s, present & ~y.all(0)),
        "precision": each(lambda a, b: sk.precision_score(a, b, zero_division=0), d, present),
        "recall": each(sk.recall_score, d, present),
        "f1": each(sk.f1_score, d, present),
        "ece": each(equal_width_error, p, always),
        "brier": each(lambda a, b: sk.brier_score_loss(a, b, labels=[0, 1]), p, always),
    }
    return table | ({"ece_adaptive": each(adaptive_error, p, always)} if adaptive else {})


def equal_width_error(y: Array, p: Array) -> float:
    return error_between(y, p, np.linspace(0, 1, BINS + 1))


def adaptive_error(y: Array, p: Array) -> float:
    return error_between(y, p, np.quantile(p, np.linspace(0, 1, BINS + 1)))


def error_between(y: Array, p: Array, edges: Array) -> float:
    edges = np.array([-math.inf, *edges[1:-1], math.inf])
    bins = [(p > low) & (p <= high) for low, high in pairwise(edges)]
    assert sum(bins).all()
    return float(sum(b.mean() * abs(y[b].mean() - p[b].mean()) for b in bins if b.any()))


def coco(y: Array, d: Array, ending: str) -> dict[str, float]:
    """As in `AveragePrecisionMeter.evaluation` of ML-GCN, without labels that have no positive."""
    hits, decided, positives = (y & d).sum(0), d.sum(0), y.sum(0)
    kept = positives > 0
    cp = np.mean([h / max(n, 1) for h, n in zip(hits[kept], decided[kept], strict=True)]) if kept.any() else math.nan
    cr = np.mean(hits[kept] / positives[kept]) if kept.any() else math.nan
    op, recall = hits.sum() / max(decided.sum(), 1), hits.sum() / max(positives.sum(), 1)
    f1 = [2 * a * b / (a + b) if a + b else 0.0 for a, b in ((cp, cr), (op, recall))]
    names = [name + ending for name in ("CP", "CR", "CF1", "OP", "OR", "OF1")]
    return dict(zip(names, (cp, cr, f1[0], op, recall, f1[1]), strict=True))


def expected(
    y: Array, s: Array, p: Array, d: Array, adaptive: bool = True
) -> tuple[dict[str, float], dict[str, Array]]:
    """All values. y: truth, s: scores, p: probabilities, d: decisions, each (rows, labels)."""
    table = per_label(y, s, p, d, adaptive)
    order = [sorted(range(LABELS), key=lambda label: (-row[label], label)) for row in s]
    third = np.zeros_like(d)
    for row, best in enumerate(order):
        third[row, best[:3]] = d[row, best[:3]]
    found = by_hand(order, [np.flatnonzero(row).tolist() for row in y], (1 / PROPENSITY.double()).tolist())
    for k in (1, 3, 5):
        found[f"ndcg@{k}"] = sk.ndcg_score(y, s, k=k)
    for name, column in (("map", "average_precision"), ("auroc", "auroc")):
        values = table[column]
        defined = ~np.isnan(values)
        found[name] = values[defined].mean() if defined.any() else math.nan
        weights = y.sum(0)[defined]
        found[f"{name}_weighted"] = np.average(values[defined], weights=weights) if defined.any() else math.nan
    found["map_micro"] = sk.average_precision_score(y.ravel(), s.ravel()) if y.any() else math.nan
    found["auroc_micro"] = sk.roc_auc_score(y.ravel(), s.ravel()) if y.any() and not y.all() else math.nan
    found |= coco(y, d, "") | coco(y, third, "@3")
    found["micro_f1"] = sk.f1_score(y, d, average="micro", zero_division=0)
    found["micro_precision"] = sk.precision_score(y, d, average="micro", zero_division=0)
    found["micro_recall"] = sk.recall_score(y, d, average="micro", zero_division=0)
    found |= {"empty_rows": (~d.any(1)).mean(), "predicted_per_row": d.sum(1).mean()}
    found["macro_f1"] = sk.f1_score(y, d, average=None, zero_division=0)[y.any(0)].mean() if y.any() else math.nan
    for name in ("precision", "recall", "f1"):
        found[f"sample_{name}"] = getattr(sk, f"{name}_score")(y, d, average="samples", zero_division=0)
    found |= {name: table[name].mean() for name in ("ece", "ece_adaptive", "brier") if name in table}
    found |= {
        "subset_accuracy": sk.accuracy_score(y, d),
        "hamming_loss": sk.hamming_loss(y, d),
        "lrap": sk.label_ranking_average_precision_score(y, s),
        "ranking_loss": sk.label_ranking_loss(y, s),
        "coverage": sk.coverage_error(y, s),
        "one_error": float(np.mean([not y[row, best[0]] for row, best in enumerate(order)])),
        "ece_micro": equal_width_error(y.ravel(), p.ravel()),
    }
    return found, table


def close(result: MetricValues, wanted: tuple[dict[str, float], dict[str, Array]]) -> None:
    values, table = wanted
    assert result.values == pytest.approx(values, abs=1e-9, nan_ok=True)
    assert set(result.per_label) == set(table)
    for name, column in table.items():
        assert result.per_label[name].numpy() == pytest.approx(column, abs=1e-9, nan_ok=True), name


def collection(scale: str = "logits", **options: Any) -> MultiLabelMetrics:
    return MultiLabelMetrics(LABELS, scale, propensity=PROPENSITY, calibration_bins=BINS, **options)


def collect(scores: Any, targets: Any, scale: str = "logits", **options: Any) -> MultiLabelMetrics:
    metrics = collection(scale, **options)
    metrics.update(scores, targets)
    return metrics


# ---- values


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("scale", ["logits", "probabilities"])
@pytest.mark.parametrize("name", CASES)
def test_every_metric(name: str, scale: str) -> None:
    scores, targets = case(name)
    p = scores.double().sigmoid()
    given, threshold = (scores, 0.4) if scale == "logits" else (p, 0.6)
    y, s = targets.numpy(), given.double().numpy()
    result = collect(given, targets, scale, decide=threshold).result()
    close(result, expected(y, s, p.numpy(), s > threshold))
    assert result.rows == len(y)
    assert result.rows_without_labels == (~y.any(1)).sum()
    assert (result.labels, result.labels_without_positives) == (LABELS, (~y.any(0)).sum())
    assert result.labels_without_negatives == y.all(0).sum()


def sparse(matrix: Tensor, kept: Tensor) -> Tensor:
    """CSR with the kept entries, also those that are 0."""
    crow = torch.nn.functional.pad(kept.sum(1), (1, 0)).cumsum(0)
    return torch.sparse_csr_tensor(crow, kept.nonzero()[:, 1], matrix[kept], matrix.shape, check_invariants=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("name", CASES)
def test_scores_that_are_not_stored_are_below_all_others(name: str) -> None:
    """Some rows have no score at all; others have scores for positives and not, but not for all of either."""
    scores, targets = case(name)
    kept = torch.from_numpy(np.random.default_rng(5).random(scores.shape) < 0.5)
    kept[1:4] = False
    result = collect(sparse(scores, kept), targets, decide=0.4).result()
    s = torch.where(kept, scores.double(), -1e6).numpy()
    p = torch.where(kept, scores.double().sigmoid(), 0.0).numpy()
    wanted = expected(targets.numpy(), s, p, s > 0.4, adaptive=False)
    ranked = by_hand(
        [[j for j in sorted(range(LABELS), key=lambda j: (-s[i, j], j)) if kept[i, j]] for i in range(len(s))],
        [np.flatnonzero(row).tolist() for row in targets.numpy()],
        (1 / PROPENSITY.double()).tolist(),
    )  # labels without a score are not named, not even as the last ones
    wanted[0].update({key: value for key, value in ranked.items() if not key.startswith("ndcg")})
    wanted[0]["one_error"] = 1 - ranked["p@1"]
    close(result, wanted)
    function = collect(sparse(scores, kept), targets, decide=lambda z: z > 0.4).result()
    assert function.values == pytest.approx(result.values, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("stored", [False, True])
def test_every_kind_of_targets_is_the_same(stored: bool) -> None:
    scores, targets = case("empty rows and labels")
    given = sparse(scores, scores > -1) if stored else scores
    whole = collect(given, targets).result()
    listed = [row.nonzero().flatten().tolist() for row in targets]
    twice = [row + row[:1] for row in listed]
    with_zeros = sparse(targets.float(), targets | (scores > 1))
    for same in (targets.int(), targets.bfloat16(), SparseTargets.from_indices(twice), with_zeros):
        assert collect(given, same).result().values == pytest.approx(whole.values, abs=0, nan_ok=True)


@pytest.mark.parametrize("options", [{}, {"binned": 64}])
@pytest.mark.parametrize("stored", [False, True])
def test_values_do_not_depend_on_the_batches(stored: bool, options: dict[str, Any]) -> None:
    scores, targets = case("ties")
    random = np.random.default_rng(0)

    def cut(rows: slice) -> Tensor:
        return sparse(scores[rows], scores[rows] > -1) if stored else scores[rows].clone()

    whole = collect(cut(slice(None)), targets, **options).result()
    for _ in range(5):
        ends = [0, *sorted(random.integers(0, 61, size=6).tolist()), 60]
        parts = [collection(**options)]
        for start, end in pairwise(ends):
            if random.random() < 0.3:
                parts.append(collection(**options))
            batch = cut(slice(start, end))
            parts[-1].update(batch, targets[start:end])
            if not stored:
                batch.zero_()  # what is kept is a copy
        for part in parts[1:]:
            parts[0].merge(part)
        result = parts[0].result()
        assert result.values == pytest.approx(whole.values, abs=1e-12, nan_ok=True)
        for name, column in whole.per_label.items():
            torch.testing.assert_close(result.per_label[name], column, rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_is_taken_as_it_is_wherever_it_lies(dtype: torch.dtype) -> None:
    scores, targets = case("plain")
    rounded = scores.to(dtype)
    whole = collect(rounded.double(), targets).result()
    turned = collect(rounded.T.contiguous().T, targets.T.contiguous().T).result()
    assert turned.values == pytest.approx(whole.values, abs=1e-12)


def test_a_result_does_not_change_when_collecting_goes_on() -> None:
    scores, targets = case("plain")
    metrics = collect(scores, targets)
    result = metrics.result()
    before = {name: column.clone() for name, column in result.per_label.items()}
    metrics.update(-scores, targets)
    for name, column in before.items():
        assert torch.equal(result.per_label[name], column), name
    assert metrics.result().rows == 2 * result.rows


def test_many_rows_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets = case("plain")
    whole = collect(scores, targets).result()
    monkeypatch.setattr("lopsided.metrics.batch._PART", 3 * LABELS)
    monkeypatch.setattr("lopsided.metrics.exact_scores._PART", 2 * len(scores))
    assert collect(scores, targets).result().values == pytest.approx(whole.values, abs=1e-12)


def test_calibration_bins_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    p = random.random((600, LABELS))
    y = random.random((600, LABELS)) < p**2
    result = collect(torch.from_numpy(p), torch.from_numpy(y), "probabilities").result()
    for label in range(LABELS):
        counts = np.histogram(p[:, label], BINS, (0, 1))[0]
        for name, strategy, weights in (("ece", "uniform", counts), ("ece_adaptive", "quantile", None)):
            true, predicted = calibration_curve(y[:, label], p[:, label], n_bins=BINS, strategy=strategy)
            error = np.average(np.abs(true - predicted), weights=weights)
            assert float(result.per_label[name][label]) == pytest.approx(error, abs=1e-12)


# ---- binned


@pytest.mark.parametrize("kind", ["logits", "probabilities", "sparse"])
@pytest.mark.parametrize("bins", [1, 32, 4096])
@pytest.mark.parametrize("name", CASES)
def test_binned_values_are_as_near_as_they_say(name: str, bins: int, kind: str) -> None:
    scores, targets = case(name)
    scale = "probabilities" if kind == "probabilities" else "logits"
    scores = scores.double().sigmoid() if kind == "probabilities" else scores
    scores = sparse(scores, scores > -0.5) if kind == "sparse" else scores
    exact, binned = (collect(scores, targets, scale, binned=number).result() for number in (None, bins))
    for column in ("average_precision", "auroc"):
        error = binned.per_label[f"{column}_error"]
        off = (binned.per_label[column] - exact.per_label[column]).abs()
        assert bool(((off <= error + 1e-12) | off.isnan()).all())
        assert (off.isnan() == exact.per_label[column].isnan()).all()
    for value in ("map", "map_micro", "map_weighted", "auroc", "auroc_micro", "auroc_weighted"):
        off_by = abs(binned.values[value] - exact.values[value])
        assert off_by <= binned.values[f"{value}_error"] + 1e-12 or math.isnan(exact.values[value])


def test_binned_values_are_exact_where_no_bin_holds_both() -> None:
    scores, targets = torch.tensor([[-3.0], [-2], [-1], [1], [2], [90]]), torch.tensor([[0], [1], [0], [1], [0], [1]])
    metrics = MultiLabelMetrics(1, "logits", binned=32)
    metrics.update(scores, targets)
    values = metrics.result().values
    assert values["map"] == pytest.approx(sk.average_precision_score(targets, scores), abs=1e-12)
    assert values["auroc"] == pytest.approx(sk.roc_auc_score(targets, scores), abs=1e-12)
    assert (values["map_error"], values["auroc_error"]) == pytest.approx((0, 0), abs=1e-12)


def test_the_bound_is_reached() -> None:
    """One bin with a positive and a negative: either may be the first, or neither."""
    binned = collect(torch.zeros(2, LABELS), torch.tensor([[1] * LABELS, [0] * LABELS]), binned=1).result().values
    assert (binned["map"], binned["map_error"]) == pytest.approx((0.5, 0.5))
    assert (binned["auroc"], binned["auroc_error"]) == pytest.approx((0.5, 0.5))


def test_decisions_may_be_those_of_a_loss() -> None:
    """A module is callable, too, but not a function of scores alone."""
    loss = lopsided.loss("asl", pos_weight=torch.tensor([1.0, 4.0]))
    metrics = MultiLabelMetrics(2, "logits", decide=loss)
    assert metrics.decide.tolist() == loss.decision_threshold().tolist()
    with pytest.raises(ValueError, match="the threshold of a loss is a logit, and the scores are probabilities"):
        MultiLabelMetrics(2, "probabilities", decide=loss)
    with pytest.raises(ValueError, match="only ranks the labels of a row"):
        MultiLabelMetrics(2, "logits", decide=lopsided.loss("lsep"))
