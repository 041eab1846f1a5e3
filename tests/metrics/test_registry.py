"""One F-beta, one top-k, one average precision: every way to a number ends at the same."""

import ast
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

import lopsided
from lopsided.decision.sweep import FBeta
from lopsided.jobs.compared_metrics import METRICS as COMPARED
from lopsided.jobs.compared_metrics import ComparedMetric, Thresholds
from lopsided.jobs.score import Scored, evaluate, evaluate_labels
from lopsided.metrics import METRICS, Judged, MultiLabelMetrics, Scores
from lopsided.metrics.counts import Counts, label_counts, row_sums
from lopsided.metrics.summary import Summary
from lopsided.metrics.top_k import RankedMetrics
from lopsided.metrics.truth import Truth, places
from lopsided.metrics.weighted import Weighable
from lopsided.targets import SparseTargets
from lopsided.training.history import JUDGES

SOURCE = Path(lopsided.__file__).parent
THRESHOLD = 0.4


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and targets; in row 0 nothing is true and nothing predicted, label 4 is never true."""
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(50, 5, generator=random)
    targets = torch.rand(50, 5, generator=random) < torch.sigmoid(2 * scores - 1)
    scores[0], targets[0], targets[:, 4] = -3.0, False, False
    return scores, targets


def listed(targets: torch.Tensor) -> SparseTargets:
    return SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in targets])


def all_ways(scores: torch.Tensor, targets: torch.Tensor) -> Iterator[dict[str, float]]:
    """A collection, dense and of candidates; weighted rows; the sums of `lopsided evaluate`; `compare`; its report."""
    values, columns = scores.sort(dim=1, descending=True)
    for given, truth in ((scores, targets), (Scores(values, columns, 5), listed(targets))):
        metrics = MultiLabelMetrics(5, "logits", decide=THRESHOLD)
        metrics.update(given, truth)
        yield metrics.compute()
    for weights in (None, torch.ones(50)):
        summary = Weighable(Judged.of(scores, targets), scores > THRESHOLD).summary(weights)
        names = ("map", "auroc", "micro_f1", "macro_f1", "sample_f1", "subset_accuracy", "hamming_loss", "p@1", "p@3")
        yield {name: METRICS[name].value(summary) for name in names}
    read, decided = Truth.of(listed(targets), 50, 5), places(scores > THRESHOLD)
    summary = Summary({"labels": label_counts(read, decided), "rows": row_sums(read, decided)})
    ranked = RankedMetrics((1, 3))
    ranked.update(columns, listed(targets))
    of_sums = ("micro_f1", "macro_f1", "sample_f1", "subset_accuracy")
    yield {name: METRICS[name].value(summary) for name in of_sums} | ranked.result()
    scored = Scored(Scores.of(scores), listed(targets), Scores.of(scores), listed(targets), THRESHOLD)
    own = {
        "micro_f1_own": "micro_f1",
        "macro_f1_own": "macro_f1",
        "map": "map",
        "auroc": "auroc",
        "p@1": "p@1",
        "p@3": "p@3",
    }
    yield {name: evaluate(compared, scored) for compared, name in own.items()}
    hits, predicted, true = (
        each.sum(0).double() for each in ((scores > THRESHOLD) & targets, scores > THRESHOLD, targets)
    )
    yield {"macro_f1": float(FBeta()(hits, predicted, true, rows=50)[targets.any(0)].mean())}
    by_row = Counts(*(each.sum(1).double() for each in ((scores > THRESHOLD) & targets, scores > THRESHOLD, targets)))
    yield {"sample_f1": float(by_row.f_beta().mean())}


def test_every_metric_may_be_compared_by_groups_of_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets = example()
    scored = Scored(Scores.of(scores), listed(targets), Scores.of(scores), listed(targets), THRESHOLD)
    found = {}
    for name in (*JUDGES, "auroc"):
        at: Thresholds | None = "own" if METRICS[name].reads == "decisions" else None
        monkeypatch.setitem(COMPARED, name, ComparedMetric("", name, at))
        found[name] = evaluate_labels(name, scored, np.ones(5, bool))
        assert math.isnan(found[name]) or found[name] == pytest.approx(evaluate(name, scored))
    of_labels = {name for name, value in found.items() if not math.isnan(value)}
    assert of_labels >= {"map", "map_weighted", "auroc", "micro_f1", "macro_f1", "CF1", "OF1", "hamming_loss"}
    assert not of_labels & {"sample_f1", "subset_accuracy", "empty_rows", "one_error", "p@1"}


def test_every_way_to_a_number_ends_at_the_same() -> None:
    scores, targets = example()
    whole, *others = all_ways(scores, targets)
    assert whole["sample_f1"] == pytest.approx(
        f1_score(targets, scores > THRESHOLD, average="samples", zero_division=0)
    )
    for values in others:
        for name in set(values) - {"ndcg@1", "ndcg@3"}:
            assert values[name] == pytest.approx(whole[name], abs=1e-12, nan_ok=True), name


def test_compared_metrics_have_thresholds_where_they_read_decisions() -> None:
    for name, metric in COMPARED.items():
        assert (metric.at is not None) == (METRICS[metric.name].reads == "decisions"), name


def test_an_empty_row_has_an_f1_of_0_and_is_right() -> None:
    scores, targets = torch.full((1, 3), -1.0), torch.zeros(1, 3)
    for values in all_ways_of_one_row(scores, targets):
        assert values["sample_f1"] == 0
        assert values["subset_accuracy"] == 1
    nothing = torch.zeros((), dtype=torch.float64)
    assert float(FBeta()(nothing, nothing, nothing, rows=1)) == 0


def all_ways_of_one_row(scores: torch.Tensor, targets: torch.Tensor) -> Iterator[dict[str, float]]:
    metrics = MultiLabelMetrics(3, "logits")
    metrics.update(scores, targets)
    yield metrics.compute()
    summary = Weighable(Judged.of(scores, targets), scores > 0).summary()
    yield {name: METRICS[name].value(summary) for name in ("sample_f1", "subset_accuracy")}


def propensity(labels: int) -> torch.Tensor:
    return torch.linspace(0.1, 0.9, labels, dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_candidates_are_scores_whose_rest_is_infinitely_low(k: int) -> None:
    """Of k candidates a row, in any order and with gaps, among true labels that may not be candidates."""
    random = torch.Generator().manual_seed(1)
    scores = torch.randn(40, 6, generator=random)
    truth = torch.rand(40, 6, generator=random) < 0.4
    unknown = torch.rand(40, 6, generator=random) < 0.2
    columns = torch.stack([torch.randperm(6, generator=random)[:k] for _ in range(40)])
    columns[::3, 0] = 6  # no candidate
    values = torch.nn.functional.pad(scores, (0, 1), value=-math.inf).gather(1, columns)
    rest = torch.full((40, 7), -1e30).scatter(1, columns, values)[:, :6]
    weights = torch.randint(0, 3, (40,), generator=random)
    for hidden in (torch.zeros_like(unknown), unknown):
        targets = truth.float().masked_fill(hidden, math.nan)
        judged, read = Judged.of(Scores(values, columns, 6), targets), Truth.of(targets, 40, 6)
        few = Weighable(judged, values > THRESHOLD, (1, 2), read, propensity(6))
        every = Weighable(Judged.of(rest, targets), rest > THRESHOLD, (1, 2), propensity=propensity(6))
        for w in (None, weights):
            made, expected = few.summary(w), every.summary(w)
            for name in ("labels", "rows", "known"):
                np.testing.assert_allclose(made.sums[name], expected.sums[name], err_msg=name)
            assert np.isnan(made.table["average_precision"]).all(), "it takes the scores of all labels"
        usable = (judged.known if judged.known is not None else columns < 6).sum(1) >= min(2, k)
        for ranks in (1, 2)[: min(2, k)]:
            top = [each.summary(usable).sums["top"][:, ranks - 1] for each in (few, every)]
            np.testing.assert_allclose(top[0], top[1])
            assert top[0][0] > 0


def test_weighed_candidates_are_ranked_metrics() -> None:
    """P, nDCG and PSP of candidates are those of `RankedMetrics`, and of the scores of all labels."""
    scores, targets = example()
    values, columns = scores.topk(5)
    judged = Judged.of(Scores(values[:, :4], columns[:, :4], 5), listed(targets))
    mine = Weighable(judged, truth=Truth.of(listed(targets), 50, 5), propensity=propensity(5))
    ranked = RankedMetrics((1, 3), propensity(5))
    ranked.update(columns, listed(targets))
    whole = Weighable(Judged.of(scores, targets), propensity=propensity(5)).summary()
    for name, value in ranked.result().items():
        assert mine.summary().top_k(name) == pytest.approx(value), name
        assert whole.top_k(name) == pytest.approx(value), name
    shuffled = torch.randperm(4)
    again = Judged.of(Scores(values[:, shuffled], columns[:, shuffled], 5), listed(targets))
    assert Weighable(again, truth=mine.truth).summary().top_k("p@3") == pytest.approx(ranked.result()["p@3"])


def test_f_beta_stands_in_one_place() -> None:
    """No other file multiplies 2 or 1 + beta^2 by hits: counts.py has the formula."""
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text if "hits" in text else "")):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
                words = ast.unparse(node)
                assert (
                    path.name == "counts.py"
                    or not ("hits" in words and ("2 *" in words or "beta" in words))
                    or (
                        path.name == "registry.py" and "2 * hits" in words  # Hamming: predicted + positives - 2 hits
                    )
                ), f"{path}: {words}"


def test_f_beta_of_arrays_and_tensors() -> None:
    hits, predicted, positives = np.array([0.0, 0, 2]), np.array([0.0, 3, 4]), np.array([0.0, 0, 3])
    for make in (np.asarray, torch.from_numpy):
        counts = Counts(make(hits), make(predicted), make(positives))
        assert counts.f_beta().tolist() == pytest.approx([0, 0, 4 / 7])
        assert counts.f_beta(2.0).tolist() == pytest.approx([0, 0, 5 * 2 / (4 + 4 * 3)])
        assert counts.precision().tolist() == [0, 0, 0.5]


def test_every_compared_metric_is_one_of_the_registry() -> None:
    for metric in COMPARED.values():
        assert metric.name in METRICS
    assert not COMPARED["hamming_loss"].higher_is_better
    for name, each in METRICS.items():
        assert each.reads in ("all scores", "ranking", "decisions"), name
