"""The collection's decisions, its errors, its ranks, and its page."""

import math
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor
from torch import distributed as dist

from lopsided import SparseTargets
from lopsided.metrics import MultiLabelMetrics
from tests.metrics.test_collection import LABELS, case, collect, collection, sparse
from tests.ranks import on_ranks

# ---- decisions


def test_a_rule_may_look_at_whole_rows() -> None:
    """ "At least one label" is no threshold."""
    scores, targets = case("plain")

    def at_least_one(z: Tensor) -> Tensor:
        return (z > 1) | (z == z.max(1, keepdim=True).values)

    values = collect(scores, targets, decide=at_least_one).result().values
    decided = at_least_one(scores).numpy()
    assert values["micro_f1"] == pytest.approx(sk.f1_score(targets, decided, average="micro"), abs=1e-12)
    assert values["subset_accuracy"] == pytest.approx(sk.accuracy_score(targets, decided), abs=1e-12)
    half = collect(scores, targets).result().values
    assert half["micro_f1"] == pytest.approx(sk.f1_score(targets, scores > 0, average="micro"), abs=1e-12)


def test_a_threshold_of_numpy_is_the_same_number() -> None:
    """0.3 in float32 is more than 0.3 in float64."""
    scores, targets = torch.full((2, LABELS), 0.3), torch.ones(2, LABELS)
    found = [collect(scores, targets, "probabilities", decide=t).result().values for t in (0.3, np.float64(0.3))]
    assert found[0]["OR"] == found[1]["OR"] == 0


def test_labels_that_are_never_decided_have_precision_0() -> None:
    values = collect(torch.full((4, LABELS), -9.0), torch.ones(4, LABELS)).result().values
    assert (values["CP"], values["OP"], values["CF1"], values["macro_f1"], values["OF1"]) == (0, 0, 0, 0, 0)


# ---- bad input


def stored(columns: list[int]) -> Tensor:
    """Two scores of the first row and one of the second, as torch takes them without a look at the columns."""
    crow, values = torch.tensor([0, 2, 3]), torch.tensor([0.1, 0.2, 0.3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it does not look
        return torch.sparse_csr_tensor(crow, torch.tensor(columns), values, (2, 7), check_invariants=False)


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        (torch.zeros(2, 6), torch.zeros(2, 6), r"scores must be \(rows, 7\), as num_labels says; got \(2, 6\)"),
        (torch.zeros(7), torch.zeros(7), r"scores must be \(rows, 7\)"),
        (torch.zeros(2, 7), torch.zeros(3, 7), r"targets have shape \(3, 7\) but scores \(2, 7\)"),
        (torch.zeros(2, 7), torch.full((2, 7), -1), "targets must be 0 or 1 to be evaluated, got -1 and 13 more"),
        (torch.zeros(2, 7), torch.full((2, 7), 0.5), "targets must be 0 or 1 to be evaluated, got 0.5 and 13 more"),
        ([[0.5]], torch.zeros(2, 7), r"scores must be \(rows, 7\), as num_labels says; got \(1, 1\)"),
        (
            torch.zeros(2, 7),
            [[0], [1]],
            r"targets have shape \(2, 1\) but scores \(2, 7\): .*SparseTargets.from_indices",
        ),
        (torch.zeros(2, 7), SparseTargets.from_indices([[1]]), "targets have 1 rows"),
        (torch.zeros(2, 7), SparseTargets.from_indices([[1], [7]]), r"label indices must lie in \[0, 7\)"),
        (
            torch.zeros(1, 7),
            SparseTargets(torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([0.5])),
            "targets must be 0 or 1 to be evaluated, got 0.5",
        ),
        (torch.full((2, 7), math.nan), torch.zeros(2, 7), "14 of 14 scores are NaN"),
        (torch.full((2, 7), 1.5), torch.zeros(2, 7), r"probabilities must lie in \[0, 1\], got 1.5 to 1.5"),
        (torch.full((2, 7), -0.1).to_sparse_csr(), torch.zeros(2, 7), r"probabilities must lie in \[0, 1\]"),
        (stored([2, 2, 1]), torch.zeros(2, 7), r"sparse scores must name each of the labels \[0, 7\) once in a row"),
        (stored([2, 7, 1]), torch.zeros(2, 7), r"sparse scores must name each of the labels \[0, 7\) once in a row"),
        (stored([-1, 6, 1]), torch.zeros(2, 7), r"sparse scores must name each of the labels \[0, 7\) once in a row"),
    ],
)
def test_bad_input(scores: Tensor, targets: Any, message: str) -> None:
    metrics = collection("probabilities")
    with pytest.raises(ValueError, match=message):
        metrics.update(scores, targets)
    assert metrics.rows == 0


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        (
            torch.zeros(2, 7, dtype=torch.long),
            torch.zeros(2, 7),
            "scores must be a floating point tensor, got torch.int",
        ),
        ("scores", torch.zeros(2, 7), "expected numbers, got str of"),
        (torch.zeros(2, 7).to_sparse_coo(), torch.zeros(2, 7), "must be torch.sparse_csr"),
        (torch.zeros(2, 7), [["a"], ["b"]], "expected numbers, got list of"),
    ],
)
def test_wrong_types(scores: Any, targets: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        collection().update(scores, targets)


def test_bad_settings() -> None:
    makes: list[tuple[Callable[[], object], str]] = [
        (lambda: MultiLabelMetrics(3, "scores"), "scale must be one of logits, probabilities; got 'scores'"),
        (lambda: MultiLabelMetrics(0, "logits"), "num_labels must be a whole number of at least 1, got 0"),
        (lambda: MultiLabelMetrics(3, "logits", ks=(0, 1)), "k must be a whole number of at least 1, got 0"),
        (lambda: MultiLabelMetrics(3, "logits", ks=(1, 2.5)), "k must be a whole number of at least 1, got 2.5"),  # type: ignore[arg-type]
        (lambda: MultiLabelMetrics(3, "logits", ks=()), r"k must be a whole number of at least 1, got \(\)"),
        (lambda: MultiLabelMetrics(3, "logits", binned=0), "binned must be a whole number"),
        (lambda: MultiLabelMetrics(3, "logits", propensity=torch.ones(2)), r"propensity must have shape \(3,\)"),
        (
            lambda: MultiLabelMetrics(2, "logits", propensity=torch.tensor([0.0, 1])),
            r"must lie in \(0, 1\], got 0 to 1",
        ),
        (
            lambda: MultiLabelMetrics(3, "logits", decide=math.nan),
            "decide must be a number, a tensor of one or 3 thresholds, a rule or a function, got nan",
        ),
        (lambda: MultiLabelMetrics(3, "logits").result(), "no rows were collected"),
        (lambda: collection().merge(collection("probabilities")), "scale is logits and probabilities"),
        (lambda: collect(torch.zeros(1, 7), torch.zeros(1, 7), decide=lambda z: z), "decide must give a bool tensor"),
    ]
    for make, message in makes:
        with pytest.raises(ValueError, match=message):
            make()
    metrics = collect(torch.zeros(1, 7), torch.zeros(1, 7))
    with pytest.raises(ValueError, match="scores must be dense in all batches or sparse in all"):
        metrics.update(torch.ones(1, 7).to_sparse_csr(), torch.zeros(1, 7))
    with pytest.raises(RuntimeError, match=r"gathered\(\) needs torch.distributed"):
        metrics.gathered()


def test_no_rows_and_no_positives() -> None:
    metrics = collect(torch.zeros(0, 7), torch.zeros(0, 7))
    assert metrics.rows == 0
    metrics.update(torch.zeros(1, 7), torch.zeros(1, 7))
    result = metrics.result()
    assert (result.labels_without_positives, result.rows_without_labels) == (7, 1)
    for name in ("map", "map_micro", "map_weighted", "auroc", "CP", "CR", "CF1", "macro_f1", "psp@1"):
        assert math.isnan(result.values[name]), name


# ---- ranks


def _rank(out: str) -> None:
    rank = dist.get_rank()
    scores, targets = case("ties")
    found = []
    for bins in (None, 64):
        for stored, split in ((False, 23), (True, 23), (False, 60)):  # in the last, a rank has no rows
            rows = slice(None, split) if rank == 0 else slice(split, None)
            mine = sparse(scores[rows], scores[rows] > -1) if stored else scores[rows]
            metrics = collect(mine, targets[rows], binned=bins)
            whole = metrics.gathered()
            assert (metrics.rows, whole.rows) == (len(targets[rows]), 60)
            found.append(list(whole.result().values.values()))
    if rank == 1:
        np.save(out, np.concatenate(found))


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_ranks_come_together(tmp_path: Path) -> None:
    on_ranks(2, tmp_path, _rank, str(tmp_path / "out.npy"))
    scores, targets = case("ties")
    expected: list[float] = []
    for bins in (None, 64):
        for stored in (False, True, False):
            given = sparse(scores, scores > -1) if stored else scores
            expected += collect(given, targets, binned=bins).result().values.values()
    assert np.load(tmp_path / "out.npy") == pytest.approx(np.array(expected), abs=1e-12, nan_ok=True)


# ---- the page


def test_the_page_is_true() -> None:
    """Its table has every metric and no other."""
    text = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    names = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    documented = {name for cell in names for name in re.findall(r"`([^`]+)`", cell)}
    values = collect(*case("plain")).result().values
    coco_at_3 = {"CP@3", "CR@3", "CF1@3", "OP@3", "OR@3", "OF1@3"}
    assert {re.sub(r"@\d$", "@k", name) for name in set(values) - coco_at_3} == documented - coco_at_3


def test_the_table_is_that_of_the_measurement() -> None:
    root = Path(__file__).parents[2]
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        import metrics
    finally:
        sys.path.pop(0)
    assert metrics.page() == metrics.PAGE.read_text(), "docs/metrics.md is stale: run python benchmarks/metrics.py"
