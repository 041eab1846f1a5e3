"""The sweep, and stored rules and calibrators, for any scores and thresholds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lopsided.decision.calibrators import ClosedForm, Isotonic, Platt, Temperature
from lopsided.decision.choose import implies_probabilities
from lopsided.decision.rules import (
    AtLeastOne,
    ExpectedF1,
    LabelThresholds,
    OnProbabilities,
    Rule,
    Threshold,
    TopK,
    from_tensors,
    load_rule,
    to_tensors,
)
from lopsided.decision.sweep import Cost, FBeta, RecallAtPrecision, ThresholdObjective, best_thresholds
from lopsided.losses import CATALOG
from lopsided.metrics.scores import Judged

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
FEW = st.sampled_from([0.0, -0.0, 1.0, np.nextafter(np.float32(1), np.float32(2)).item(), -3e38, 3e38, 1e-45, 0.5])
OBJECTIVES: list[ThresholdObjective] = [FBeta(), FBeta(2.0), Cost(), Cost(2.0, 3.0, -1.0, 0.5), RecallAtPrecision(0.5)]


@st.composite
def judged_rows(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """(n, L) float32 scores, many equal or neighbours, and (n, L) truth of 0, 1 and NaN, something of it known."""
    rows, labels = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    size = rows * labels
    scores = draw(st.lists(FEW | FLOATS, min_size=size, max_size=size))
    truth = draw(st.lists(st.sampled_from([0.0, 0.0, 1.0, torch.nan]), min_size=size, max_size=size))
    truth[0] = draw(st.sampled_from([0.0, 1.0]))
    return torch.tensor(scores).reshape(rows, labels), torch.tensor(truth).reshape(rows, labels)


def worth(objective: ThresholdObjective, decided: Tensor, truth: Tensor) -> Tensor:
    """(L,) from the decisions themselves, on the known entries."""
    known, true = ~truth.isnan(), truth == 1
    hits, predicted, positives = (each.sum(0).double() for each in (decided & true, decided & known, true))
    return objective(hits, predicted, positives, known.sum(0).double()).double()


@given(judged_rows(), st.sampled_from(OBJECTIVES))
def test_no_threshold_is_better(example: tuple[Tensor, Tensor], objective: ThresholdObjective) -> None:
    scores, truth = example
    best = best_thresholds(Judged.of(scores, truth), objective)
    lowest = torch.full_like(scores[:1, :1], -torch.inf)
    tried = torch.stack([worth(objective, scores > cut, truth) for cut in [*lowest.flatten(), *scores.unique()]])
    positive = (truth == 1).any(0)
    assert torch.equal(best.labels.isnan(), ~positive)
    reached = worth(objective, scores > best.labels, truth)
    torch.testing.assert_close(reached[positive], tried.max(0).values[positive], rtol=0, atol=1e-12)
    together = worth(objective, scores > best.shared, truth).sum()
    assert float(together) == pytest.approx(float(tried.sum(1).max()), abs=1e-9)


TENSORS = st.lists(FLOATS, min_size=3, max_size=3).map(torch.tensor)
SIMPLE = (
    st.builds(Threshold, st.floats(-9, 9)) | st.builds(LabelThresholds, TENSORS) | st.builds(TopK, st.integers(1, 5))
)
KNOTS = torch.arange(8.0, dtype=torch.float64)
CALIBRATORS = (
    st.builds(ClosedForm, st.sampled_from([*filter(implies_probabilities, CATALOG)]))
    | st.builds(Temperature, st.floats(0.1, 10))
    | st.builds(Platt, TENSORS.map(lambda t: t.double().abs()), TENSORS.map(Tensor.double))
    | st.builds(
        Isotonic,
        st.just(KNOTS),
        st.just(KNOTS / 7),
        st.just(torch.tensor([2, 4, 6, 8])),
        st.just(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)),
        TENSORS.map(lambda t: t.double().clamp(-5, 5)),
    )
)
RULES = SIMPLE | st.builds(AtLeastOne, SIMPLE) | st.builds(OnProbabilities, CALIBRATORS, SIMPLE | st.just(ExpectedF1()))


@given(RULES, st.lists(st.floats(-30, 30, width=32), min_size=12, max_size=12))
def test_a_stored_rule_decides_the_same(
    tmp_path_factory: pytest.TempPathFactory, rule: Rule, numbers: list[float]
) -> None:
    scores, path = torch.tensor(numbers).reshape(4, 3), tmp_path_factory.getbasetemp() / "rule.safetensors"
    rule.save(path)  # type: ignore[attr-defined]
    for again in (load_rule(Path(path)), from_tensors(*to_tensors(rule))):
        assert type(again) is type(rule)
        assert torch.equal(again.decide(scores), rule.decide(scores))
        assert to_tensors(again)[1] == to_tensors(rule)[1]


@given(CALIBRATORS)
def test_a_stored_calibrator_gives_the_same_probabilities(
    tmp_path_factory: pytest.TempPathFactory, calibrator: Platt
) -> None:
    scores, path = torch.linspace(-9, 9, 12).reshape(4, 3), tmp_path_factory.getbasetemp() / "map.safetensors"
    calibrator.save(path)
    again = load_rule(path)
    assert torch.equal(again(scores), calibrator(scores))
    assert ((again(scores) >= 0) & (again(scores) <= 1)).all()
