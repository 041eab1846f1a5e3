"""The rule travels with the model: tuned by `lopsided fit`, used by `lopsided evaluate` and `lopsided predict`."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from lopsided.__main__ import main
from lopsided.data.make_xmc import XmcMaker, make_xmc
from lopsided.data.readers import read
from lopsided.decision.calibrators import Platt, fit_platt
from lopsided.decision.rules import LabelThresholds, tune_label_thresholds
from lopsided.jobs.folder import RunFolder
from lopsided.metrics import MultiLabelMetrics
from lopsided.metrics.scores import Judged, Scores
from lopsided.targets import SparseTargets
from tests.tools import load_quietly, scores_of

SMALL = ["--model", "bag(hidden=16)", "--epochs", "2", "--batch-size", "64"]
LABELS, CANDIDATES = 150, 100


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_xmc(folder, XmcMaker(labels=LABELS, features=60), rows=1000, test_rows=200)
    return folder


def fit(data: Path, out: Path, *options: str) -> list[str]:
    return ["fit", str(data / "train.txt"), "--out", str(out), *SMALL, *options]


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    assert main([*fit(data, data / "run", "--valid", "0.3"), "--test", str(data / "test.txt")]) == 0
    return data / "run"


def dense(targets: SparseTargets) -> np.ndarray:
    truth = np.zeros((len(targets.crow) - 1, LABELS), dtype=bool)
    truth[targets.row.numpy(), targets.col.numpy()] = True
    return truth


def predictions(run: Path, data: Path, out: Path) -> list[dict[str, Any]]:
    assert main(["predict", str(run), str(data), "--out", str(out)]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def check_tuned(run: Path, candidates: int | None) -> None:
    """The stored rule is tuned on the scores of validation rows, of all labels or of the best ones of each row."""
    folder = RunFolder.open(run)
    valid, model, decision = load_quietly(folder.config).valid, folder.read_model(), folder.read_decision()
    assert valid is not None
    assert len(valid) == 300
    scored = Judged.of(model.score(model.encode(valid.inputs), candidates), valid.targets)
    assert (scored.listed_positives.sum() < scored.positives.sum()) == (candidates is not None)
    assert isinstance(decision.rule, LabelThresholds)
    assert isinstance(decision.calibrator, Platt)
    thresholds = tune_label_thresholds(scored).thresholds
    torch.testing.assert_close(decision.rule.thresholds, thresholds, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decision.calibrator.slope, fit_platt(scored).slope, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_rule_is_that_of_the_validation_rows(run: Path) -> None:
    check_tuned(run, None)


@pytest.mark.slow
def test_of_very_many_labels_the_rule_is_that_of_the_best_candidates(
    data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lopsided.training.rows._SCORES", 200 * LABELS - 1)
    line = [*fit(data, folder / "run", "--valid", "0.3"), "--test", str(data / "test.txt")]
    assert main(line) == 0
    assert "validation P@1" in capsys.readouterr().out
    assert scores_of(folder / "run").shape == (200, CANDIDATES)
    check_tuned(folder / "run", CANDIDATES)
    assert "map" not in json.loads((folder / "run/results.json").read_text())["model"]
    monkeypatch.setattr("lopsided.jobs.predict._ALL_SCORES", LABELS - 1)
    lines = predictions(folder / "run", data / "test.txt", folder / "out.jsonl")
    decided = np.array([[str(label) in line["labels"] for label in range(LABELS)] for line in lines])
    found, truth = json.loads((folder / "run/results.json").read_text()), dense(read(data / "test.txt").targets)
    assert found["decisions"]["micro_f1"] == pytest.approx(f1_score(truth, decided, average="micro"))
    assert main([*line[:-2], "--metric", "map", "--out", "other"]) == 2
    assert "--metric map: needs the scores of all labels, which are too many here" in capsys.readouterr().err
    assert not (folder / "other").exists()


@pytest.mark.slow
def test_predictions_are_the_rules_and_evaluation_is_of_them(run: Path, data: Path, folder: Path) -> None:
    test, decision = read(data / "test.txt"), RunFolder.open(run).read_decision()
    assert decision.calibrator is not None
    lines = predictions(run, data / "test.txt", folder / "some" / "out.jsonl")
    z = scores_of(run)
    expected = decision.rule.decide(z)
    p = decision.calibrator(z)
    decided = np.zeros((len(test), LABELS), dtype=bool)
    assert len(lines) == len(test)
    for row, line in enumerate(lines):
        labels = [int(label) for label in line["labels"]]  # the names of labels that are numbers
        decided[row, labels] = True
        assert line["probabilities"] == sorted(line["probabilities"], reverse=True)
        assert line["probabilities"] == pytest.approx(p[row, labels].tolist(), abs=1e-4)
    assert (decided == expected.numpy()).mean() > 0.9999, "but for rounding at a threshold"
    truth = dense(test.targets)
    results = json.loads((run / "results.json").read_text())
    assert results["rule"] == "per-label"
    found, has = results["decisions"], truth.any(0)
    assert found["micro_f1"] == pytest.approx(f1_score(truth, decided, average="micro"))
    assert found["macro_f1"] == pytest.approx(
        f1_score(truth[:, has], decided[:, has], average="macro", zero_division=0)
    )
    assert found["subset_accuracy"] == pytest.approx(accuracy_score(truth, decided))
    assert found["predicted_per_row"] == pytest.approx(decided.sum(1).mean())
    assert found["empty_rows"] == pytest.approx((~decided.any(1)).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--valid", "0.3", "--decide", "global"], "global"),
        (["--valid", "0.3", "--decide", "macro-f1", "--at-least-one"], "macro-f1, at least one"),
        (["--valid", "0.3", "--decide", "expected-f1"], "expected-f1"),
        (["--decide", "top-3"], "top-3"),
        (["--decide", "own", "--loss", "asl(threshold_logit=0)"], "own"),
        (["--valid", "0"], "own"),
        ([], "per-label"),
        (["--loss", "lsep", "--valid", "0"], "top-3"),
        (["--loss", "lsep", "--valid", "0.3"], "per-label"),
    ],
)
def test_rules_that_can_be_asked_for(
    options: list[str], name: str, data: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(fit(data, folder / "run", *options)) == 0
    lines = predictions(folder / "run", data / "test.txt", folder / "out.jsonl")
    assert main(["evaluate", "run", str(data / "test.txt")]) == 0
    assert f"decided: {name}" in capsys.readouterr().out
    lengths = {len(line["labels"]) for line in lines}
    if name == "top-3":
        assert lengths == {3}
    else:
        assert (len(lengths) > 1) == (name != "own"), "so little training makes no label more probable than not"
    assert 0 not in lengths or "at least one" not in name
    untold = options == ["--loss", "lsep", "--valid", "0"]
    assert {*lines[0]} == {"labels", "scores" if untold else "probabilities"}


@pytest.mark.slow
def test_a_model_without_a_rule_is_no_finished_run(
    run: Path, data: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a kill between the model and the rule leaves it: the run goes on, and gives the same rule."""
    shutil.copytree(run, folder / "run")
    for name in ("decision.safetensors", "training.json", "results.json"):
        (folder / "run" / name).unlink()
    assert main(["evaluate", "run"]) == 2
    assert "run: no rule yet; go on with: lopsided fit run" in capsys.readouterr().err
    assert main(["fit", "run"]) == 0
    for name in ("decision.safetensors", "model.safetensors", "scores-test.safetensors"):
        assert (folder / "run" / name).read_bytes() == (run / name).read_bytes()
    results = [json.loads((path / "results.json").read_text()) for path in (run, folder / "run")]
    assert results[0]["decisions"] == results[1]["decisions"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "rule"),
    [([], "own"), (["--decide", "global"], "own"), (["--decide", "top-2", "--at-least-one"], "top-2, at least one")],
)
def test_validation_rows_without_labels_are_named(
    options: list[str], rule: str, data: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bare.txt").write_text(f"2 60 {LABELS}\n 0:1\n 8:1\n")
    assert main(fit(data, folder / "run", "--valid", "bare.txt", *options)) == 0
    assert "the decision rule is not tuned: no label is true in any of the 2" in capsys.readouterr().out
    assert main(["evaluate", "run", str(data / "test.txt")]) == 0
    assert f"decided: {rule}" in capsys.readouterr().out
    assert main(["predict", "run", str(data / "test.txt"), "--out", "out.jsonl"]) == 0
    assert f"predictions of 200 rows: out.jsonl (rule: {rule})" in capsys.readouterr().out


BAD_LINES = {
    "nothing to tune on": (
        ["--decide", "per-label", "--valid", "0"],
        "--decide per-label is tuned on validation rows: add --valid FILE, or a share",
    ),
    "unknown rule": (["--decide", "best"], "unknown rule 'best': known are per-label, global, macro-f1"),
    "no own threshold": (["--loss", "lsep", "--decide", "own"], "only ranks the labels of a row"),
    "label counts": (["--loss", "cb", "--decide", "own"], "is made from label counts and has no threshold of its own"),
}


SATURATED = "asl(clip=0.6)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--valid", "0"], "top-3"),
        (["--decide", "own", "--valid", "0"], "top-3"),
        (["--decide", "own"], "per-label"),
    ],
)
def test_a_loss_that_saturates_gets_another_rule(
    options: list[str], rule: str, data: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(fit(data, folder / "run", "--loss", SATURATED, *options)) == 0
    printed = capsys.readouterr()
    assert f"{SATURATED} saturates" in printed.out
    assert f"the rule is {rule} instead" in printed.out
    assert printed.err == ""
    lines = predictions(folder / "run", data / "test.txt", folder / "out.jsonl")
    assert any(line["labels"] for line in lines)


@pytest.mark.parametrize("name", BAD_LINES)
def test_errors_are_one_line(name: str, data: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, message = BAD_LINES[name]
    assert main(fit(data, folder / "run", *options)) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not list(folder.iterdir())


def test_predictions_are_whole_or_not_there(run: Path, data: Path, folder: Path) -> None:
    (folder / "cut.txt").write_text("9 60 150\n1 0:1\n")
    assert main(["predict", str(run), "cut.txt", "--out", "out.jsonl"]) == 2
    (folder / "here").mkdir()
    assert main(["predict", str(run), str(data / "test.txt"), "--out", "here"]) == 2
    before = (folder / "cut.txt").read_text()
    assert main(["predict", str(run), "cut.txt", "--out", "./cut.txt"]) == 2
    assert (folder / "cut.txt").read_text() == before
    assert {path.name for path in folder.iterdir()} == {"cut.txt", "here"}


def test_decision_metrics_do_not_depend_on_batches() -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.rand(40, 9, generator=random).argsort(1)[:, :6]
    decided = torch.rand(40, 6, generator=random) < 0.3
    truth = [row.nonzero().flatten().tolist() for row in torch.rand(40, 9, generator=random) < 0.2]
    truth[0], decided[0] = [], False
    results = []
    for size in (40, 7, 1):
        metrics = MultiLabelMetrics(9, "logits")
        for start in range(0, 40, size):
            part = slice(start, start + size)
            scores = Scores(decided[part].float() - 0.5, labels[part], 9)
            metrics.update(scores, SparseTargets.from_indices(truth[part]))
        results.append(metrics.compute())
    assert results[1] == pytest.approx(results[0], nan_ok=True)
    assert results[2] == pytest.approx(results[0], nan_ok=True)
    y = np.array([[label in row for label in range(9)] for row in truth])
    d = np.zeros((40, 9), dtype=bool)
    for row in range(40):
        d[row, labels[row][decided[row]]] = True
    assert results[0]["sample_f1"] == pytest.approx(f1_score(y, d, average="samples", zero_division=0))
