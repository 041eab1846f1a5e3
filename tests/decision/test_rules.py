"""Decision rules against brute force, and that what is stored decides the same."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lopsided.decision import choose as tuning
from lopsided.decision import rules as decisions
from lopsided.decision.calibrators import ClosedForm, Isotonic, Platt, Temperature, fit_isotonic, fit_platt
from lopsided.decision.names import check_name
from lopsided.decision.rules import (
    AtLeastOne,
    ExpectedF1,
    LabelThresholds,
    OnProbabilities,
    Rule,
    Threshold,
    TopK,
    expected_f1,
    tune_label_thresholds,
    tune_macro_f1,
    tune_threshold,
)
from lopsided.decision.sweep import FBeta, RecallAtPrecision, best_thresholds
from lopsided.metrics.registry import METRICS
from lopsided.metrics.scores import Judged, Scores
from lopsided.metrics.weighted import Weighable
from lopsided.targets import SparseTargets

SCORES = torch.tensor([[0.9, 0.2, 0.9, -1.0], [0.1, 0.0, -0.5, -2.0]])


def validation(seed: int = 0, rows: int = 400, labels: int = 8) -> Judged:
    """Labels from frequent to rare, the last never true; scores are the log odds, so that one threshold fits all."""
    random = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(rows, labels, generator=random) - torch.linspace(1, 5, labels)
    targets = torch.rand(rows, labels, generator=random) < torch.sigmoid(scores)
    targets[:, -1] = False
    return Judged.of(scores, targets)


def macro_f1(decisions: Tensor, judged: Judged) -> float:
    return METRICS["macro_f1"].value(Weighable(judged, decisions).summary())


def decided(rule: Rule, scores: Tensor = SCORES) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in rule.decide(scores)]


def test_rules_by_hand() -> None:
    assert decided(Threshold(0.2)) == [[0, 2], []]
    assert decided(LabelThresholds(torch.tensor([1.0, -1.0, 0.5, -1.5]))) == [[1, 2, 3], [1]]
    assert decided(TopK(1)) == [[0], [0]]
    assert decided(TopK(3)) == [[0, 1, 2], [0, 1, 2]]
    assert decided(TopK(9)) == [[0, 1, 2, 3]] * 2
    listed = Scores(torch.tensor([[2.0, 5.0]]), torch.tensor([[0, 4]]), 4)  # one candidate of four labels
    for rule in (Threshold(0), TopK(2), LabelThresholds(torch.zeros(4))):
        assert rule.decide(listed).tolist() == [[True, False]]
    assert decided(AtLeastOne(Threshold(0.2))) == [[0, 2], [0]]
    half = Temperature(0.5)
    assert decided(OnProbabilities(half, Threshold(0.58))) == [[0, 1, 2], []]  # sigmoid(0.4) is .599
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        TopK(0)


def test_candidates_are_decided_like_the_matrix_they_come_from() -> None:
    scored = validation()
    platt = fit_platt(scored)
    rules: list[Rule] = [
        tune_label_thresholds(scored),
        tune_threshold(scored),
        tune_macro_f1(scored, platt),
        AtLeastOne(tune_label_thresholds(scored)),
        OnProbabilities(platt, ExpectedF1()),
        OnProbabilities(fit_isotonic(scored), Threshold(0.3)),
        TopK(2),
    ]
    scores, labels = scored.scores.values.topk(scored.num_labels, 1)
    for rule in rules:
        of_all = rule.decide(scored.scores)
        assert 0 < of_all.sum() < of_all.numel()
        assert torch.equal(rule.decide(Scores(scores, labels, scored.num_labels)), of_all.gather(1, labels)), rule


def brute_force(p: list[float], chosen: tuple[int, ...], of_empty: float) -> float:
    """Expected F1 over all outcomes."""
    total = 0.0
    for outcome in product((0, 1), repeat=len(p)):
        likely = torch.tensor([q if true else 1 - q for q, true in zip(p, outcome, strict=True)]).double().prod()
        hits = sum(a * b for a, b in zip(outcome, chosen, strict=True))
        size = sum(outcome) + sum(chosen)
        total += float(likely) * (2 * hits / size if size else of_empty)
    return total


@pytest.mark.parametrize("of_empty", [0.0, 1.0])
@pytest.mark.parametrize("labels", [1, 2, 5])
def test_no_set_of_labels_has_a_higher_expected_f1(labels: int, of_empty: float) -> None:
    p = torch.rand(6, labels, generator=torch.Generator().manual_seed(labels), dtype=torch.float64) ** 2
    p[0] = 0.0
    p[1] = 1.0
    found = ExpectedF1(of_empty).decide(p)
    for row, chosen in zip(p.tolist(), found, strict=True):
        of = {each: brute_force(row, each, of_empty) for each in product((0, 1), repeat=labels)}
        assert of[tuple(chosen.int().tolist())] == pytest.approx(max(of.values()), abs=1e-6)
    ranked = p.sort(dim=1, descending=True).values
    first = [
        [brute_force(row.tolist(), tuple([1] * k + [0] * (labels - k)), of_empty) for k in range(labels + 1)]
        for row in ranked
    ]
    assert expected_f1(ranked, of_empty).numpy() == pytest.approx(torch.tensor(first).numpy(), abs=1e-6)


def test_expected_f1_of_many_labels_and_rows() -> None:
    """Of equal probabilities the best number can be computed from binomials; several blocks of rows."""
    labels, p = 300, 0.02
    rows = torch.full((100, labels), p, dtype=torch.float64)
    binomial = torch.distributions.Binomial(labels - 1, torch.tensor(p, dtype=torch.float64))
    other = torch.arange(labels, dtype=torch.float64)
    weight = binomial.log_prob(other).exp()
    expected = torch.stack([k * p * (2 * weight / (k + 1 + other)).sum() for k in range(1, labels + 1)])
    torch.testing.assert_close(expected_f1(rows[:1])[0, 1:], expected, rtol=1e-10, atol=0)
    assert (ExpectedF1().decide(rows).sum(1) == int(expected.argmax()) + 1).all()


def test_macro_f1_thresholds_are_half_of_the_best_expected_f1() -> None:
    scored = validation()
    platt = fit_platt(scored)
    rule = tune_macro_f1(scored, platt)
    assert isinstance(rule.rule, LabelThresholds)
    p = platt(scored.scores)
    for label, threshold in enumerate(rule.rule.thresholds.tolist()):
        falling = p[:, label].sort(descending=True).values
        f1 = 2 * falling.cumsum(0) / (falling.sum() + torch.arange(1, len(p) + 1))
        assert threshold == pytest.approx(float(f1.max()) / 2, rel=1e-6)


def test_shrinkage_goes_part_of_the_way() -> None:
    scored = validation()
    best, n = best_thresholds(scored, FBeta()), scored.positives.double()
    assert n[-1] == 0
    for pseudo in (0.0, 4.0, 1e12):
        found = tune_label_thresholds(scored, pseudo=pseudo).thresholds
        expected = [
            best.shared if count == 0 else (count * own + pseudo * best.shared) / (count + pseudo)
            for count, own in zip(n.tolist(), best.labels.tolist(), strict=True)
        ]
        assert found.tolist() == pytest.approx(expected, rel=1e-6)
    floor = tune_label_thresholds(scored, RecallAtPrecision(0.7), pseudo=0.0).decide(scored.scores)
    precision = (floor & scored.hits).sum(0) / floor.sum(0).clamp_min(1)
    assert (precision[floor.any(0)] >= 0.7).all()


def test_thresholds_that_are_not_shrunk_are_exactly_the_best() -> None:
    """0 lies above the least number that is lower than it, also beside a shared threshold of -2."""
    judged = Judged.of(torch.tensor([[0.0, -2.0]]), torch.tensor([[1, 1]]))
    assert tune_label_thresholds(judged, pseudo=0.0).decide(judged.scores).tolist() == [[True, True]]


def test_shrunk_thresholds_keep_what_a_shared_one_has_where_labels_are_rare() -> None:
    """On the truth's own scale one threshold serves all labels: what each label's own gains on validation is noise."""
    loss: dict[float, list[float]] = {0.0: [], 10.0: []}
    for seed in range(8):
        scored, other = validation(seed), validation(seed + 100, rows=4000)
        shared = best_thresholds(scored, FBeta()).shared
        level = macro_f1(Threshold(shared).decide(other.scores), other)
        for pseudo, losses in loss.items():
            losses.append(level - macro_f1(tune_label_thresholds(scored, pseudo=pseudo).decide(other.scores), other))
    raw, shrunk = (torch.tensor(losses).mean() for losses in loss.values())
    assert 0 < shrunk < 0.6 * raw


def test_without_a_positive_there_is_nothing_to_tune_on() -> None:
    scored = Judged.of(torch.zeros(3, 2), torch.zeros(3, 2))
    platt = Platt(torch.ones(2), torch.zeros(2))
    for tune in (tune_threshold, tune_label_thresholds, lambda s: tune_macro_f1(s, platt), fit_platt, fit_isotonic):
        with pytest.raises(ValueError, match="no label is true in any of the 3"):
            tune(scored)


def test_shrinkage_is_by_a_number_of_positives() -> None:
    for fit in (tune_label_thresholds, fit_platt, fit_isotonic):
        for bad in (-1.0, float("nan")):
            with pytest.raises(ValueError, match=r"pseudo must be in \[0, inf\), got"):
                fit(validation(), pseudo=bad)


def test_scores_that_still_have_a_gradient_are_taken() -> None:
    scores = SCORES.clone().requires_grad_()
    found = tune_label_thresholds(Judged.of(scores, SCORES > 0.15))
    assert not found.thresholds.requires_grad
    assert torch.equal(found.decide(scores), found.decide(SCORES))


def rules() -> list[Rule]:
    scored = validation()
    own = tune_label_thresholds(scored)
    return [
        Threshold(0.1),
        Threshold(float("inf")),
        own,
        TopK(3),
        AtLeastOne(own),
        tune_macro_f1(scored, fit_isotonic(scored)),
        AtLeastOne(OnProbabilities(fit_platt(scored), ExpectedF1())),
        OnProbabilities(ClosedForm("asl(gamma_neg=2)"), Threshold(0.4)),
        OnProbabilities(Temperature(0.7), Threshold(0.4)),
    ]


def test_what_is_stored_decides_the_same(tmp_path: Path) -> None:
    scores = validation(5).scores.values
    for number, rule in enumerate(rules()):
        tensors, header = decisions.to_tensors(rule)
        save_file(tensors | {"weight": torch.zeros(2)}, tmp_path / f"{number}", {"rule": header})
        with safe_open(tmp_path / f"{number}", framework="pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            loaded = decisions.from_tensors(stored, file.metadata()["rule"])
        assert type(loaded) is type(rule)
        assert torch.equal(loaded.decide(scores), rule.decide(scores))


def test_a_stored_thing_of_another_kind_is_refused() -> None:
    _, header = decisions.to_tensors(Threshold(0.1))
    with pytest.raises(ValueError, match="stored is a 'Other', known are Threshold, LabelThresholds, TopK"):
        decisions.from_tensors({}, header.replace("Threshold", "Other"))
    assert Isotonic in decisions.KINDS


def test_a_model_is_given_its_rule_by_name() -> None:
    scored = validation()
    kinds: dict[str, type] = {"per-label": LabelThresholds, "f2": LabelThresholds, "f0.5": LabelThresholds}
    kinds |= {"global": Threshold, "own": Threshold, "top-2": TopK}
    for name, kind in (kinds | {"macro-f1": OnProbabilities, "expected-f1": OnProbabilities}).items():
        check_name(name)
        made = tuning.tuned(name, scored, "asl", 2.0)
        assert (made.name, type(made.rule), type(made.calibrator)) == (name, kind, Platt)
    assert tuning.untuned(None, "asl", 2.4).rule.decide(torch.tensor([[1.37, 1.39]])).tolist() == [[False, True]]
    assert tuning.untuned(None, "lsep", 2.4) == tuning.Decision("top-2", TopK(2), None)
    assert tuning.untuned("top-7", "asl", 2.4) == tuning.Decision("top-7", TopK(7), ClosedForm("asl"))
    assert tuning.untuned("top-7", "asl", 2.4).at_least_one().name == "top-7, at least one"
    with pytest.raises(ValueError, match="only ranks the labels of a row"):
        tuning.untuned("own", "lsep", 2.4)
    for name in ("top-0", "best", "top-", "f", "f-1", "f1e3", "recall"):
        with pytest.raises(ValueError, match=f"unknown rule '{name}': known are per-label, global"):
            check_name(name)


def test_f_beta_above_one_gains_recall_and_below_one_precision() -> None:
    scored = validation()
    found = {}
    for name in ("f0.5", "per-label", "f1", "f3"):
        decided = tuning.tuned(name, scored, "asl", 2.0).rule.decide(scored.scores)
        hits = float((decided & scored.hits).sum())
        found[name] = hits / float(decided.sum()), hits / float(scored.hits.sum())
    assert found["per-label"] == found["f1"]
    assert found["f0.5"][0] > found["f1"][0] > found["f3"][0]
    assert found["f0.5"][1] < found["f1"][1] < found["f3"][1]


def test_candidates_without_their_truth_still_decide() -> None:
    """The macro-F1 rule counts the positives that are no candidates."""
    scores, labels = torch.tensor([[2.0], [1.0], [-3.0]]), torch.tensor([[0], [0], [0]])
    same = Platt(torch.ones(1), torch.zeros(1))
    thresholds = []
    for truth in ([[0], [], []], [[0], [], [0]]):
        scored = Judged.of(Scores(scores, labels, 1), SparseTargets.from_indices(truth))
        rule = tune_macro_f1(scored, same).rule
        assert isinstance(rule, LabelThresholds)
        thresholds.append(float(rule.thresholds))
    missed = Judged.of(Scores(scores[:2], labels[:2], 1), SparseTargets.from_indices([[0], []]))
    more = replace(missed, positives=missed.positives + 1)
    p = torch.sigmoid(scores[:2]).sum()
    assert thresholds[0] == thresholds[1], "it looks at probabilities, not at the truth"
    for case, true in ((missed, p), (more, p + 1)):
        rule = tune_macro_f1(case, same).rule
        assert isinstance(rule, LabelThresholds)
        assert float(rule.thresholds) == pytest.approx(float(p / (true + 2)))


# ---- saved, loaded, moved


@pytest.mark.parametrize("number", range(9))
def test_a_rule_is_saved_and_loaded_in_one_line_each(number: int, tmp_path: Path) -> None:
    rule, scores = rules()[number], validation(5).scores.values
    rule.save(tmp_path / "rule.safetensors")  # type: ignore[attr-defined]
    loaded = decisions.load_rule(tmp_path / "rule.safetensors")
    assert type(loaded) is type(rule)
    assert torch.equal(loaded.decide(scores), rule.decide(scores))
    torch.save({"epoch": 3, "rule": rule}, tmp_path / "checkpoint.pt")
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert torch.equal(checkpoint["rule"].decide(scores), rule.decide(scores))
    assert torch.equal(rule.to("cpu").decide(scores), rule.decide(scores))  # type: ignore[attr-defined]


def test_calibrators_are_saved_too_and_other_files_are_refused(tmp_path: Path) -> None:
    judged = validation()
    for calibrator in (fit_platt(judged), fit_isotonic(judged), Temperature(0.7), ClosedForm("asl")):
        calibrator.save(tmp_path / "map")
        assert torch.equal(decisions.load_rule(tmp_path / "map")(judged.scores), calibrator(judged.scores))
    save_file({"weight": torch.zeros(2)}, tmp_path / "model")
    with pytest.raises(ValueError, match="holds no rule and no calibrator"):
        decisions.load_rule(tmp_path / "model")


def test_all_tensors_of_a_rule_move() -> None:
    judged = validation()
    rule = AtLeastOne(OnProbabilities(fit_isotonic(judged), tune_label_thresholds(judged))).to("meta")
    tensors, _ = decisions.to_tensors(rule)
    assert len(tensors) == 6
    assert all(tensor.is_meta for tensor in tensors.values())


def test_rules_of_a_row_with_fewer_candidates() -> None:
    scores = Scores.of(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]]).to_sparse_csr())
    assert scores.columns is not None
    assert scores.columns.tolist() == [[0, 2], [2, 3]]
    platt = Platt(torch.ones(3), torch.zeros(3))
    level = Isotonic(torch.zeros(1), torch.zeros(1), torch.tensor([0, 0, 0, 1]), torch.zeros(3), torch.zeros(3))
    for rule in (
        Threshold(-5.0),
        LabelThresholds(torch.full((3,), -5.0)),
        TopK(2),
        AtLeastOne(Threshold(9.0)),
        OnProbabilities(platt, ExpectedF1()),
        OnProbabilities(ClosedForm("asl"), Threshold(-1.0)),
        OnProbabilities(level, TopK(2)),
    ):
        found = rule.decide(scores)
        assert not found[1, 1], rule
        assert found.any()


def test_expected_f1_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match=r"made of probabilities in \[0, 1\]"):
        expected_f1(torch.tensor([[3.0, -2.0]], dtype=torch.float64))
