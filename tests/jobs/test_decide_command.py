"""The rule travels with the model: tuned by `lopsided fit`, used by `lopsided evaluate` and `lopsided predict`."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.progress import Progress as Bars
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.metrics import accuracy_score, f1_score

from lopsided.__main__ import main
from lopsided.data.make_xmc import XmcMaker, make_xmc
from lopsided.data.sparse_files import SparseRows, read_sparse
from lopsided.decision.calibrators import Platt, fit_platt
from lopsided.decision.rules import LabelThresholds, tune_label_thresholds
from lopsided.jobs.fit import CANDIDATES, load_sparse_splits
from lopsided.jobs.folder import Checkpoint, FitFolder
from lopsided.metrics import MultiLabelMetrics
from lopsided.metrics.scores import Judged, Scores
from lopsided.targets import SparseTargets

SMALL = ["--hidden", "16", "--epochs", "2", "--batch-size", "64"]
LABELS = 150


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


def checkpoint(run: Path) -> Checkpoint:
    found = FitFolder.open(run).load()
    assert found is not None
    return found


def logits(state: Checkpoint, rows: SparseRows) -> torch.Tensor:
    state.model.eval()
    with torch.no_grad():
        return state.model.head.logits(state.model(rows.batch(torch.arange(len(rows)))[0]))


def dense(rows: SparseRows) -> np.ndarray:
    truth = np.zeros((len(rows), LABELS), dtype=bool)
    truth[torch.repeat_interleave(rows.labels.crow.diff()).numpy(), rows.labels.col.numpy()] = True
    return truth


def predictions(run: Path, data: Path, out: Path) -> list[dict[str, Any]]:
    assert main(["predict", str(run), str(data), "--out", str(out)]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.slow
def test_the_rule_is_that_of_the_best_candidates_of_the_validation_rows(run: Path) -> None:
    folder, state = FitFolder.open(run), checkpoint(run)
    with Bars(disable=True) as bars:
        valid = load_sparse_splits(folder.config, bars).valid
    assert valid is not None
    assert len(valid) == 300
    scores, labels = logits(state, valid).topk(CANDIDATES, 1)
    scored = Judged.of(Scores(scores, labels, LABELS), valid.labels)
    assert scored.listed_positives.sum() < scored.positives.sum(), "some true labels are no candidates"
    assert state.decision is not None
    rule, calibrator = state.decision.rule, state.decision.calibrator
    assert isinstance(rule, LabelThresholds)
    assert isinstance(calibrator, Platt)
    torch.testing.assert_close(rule.thresholds, tune_label_thresholds(scored).thresholds, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(calibrator.slope, fit_platt(scored).slope, rtol=1e-3, atol=1e-4)


def test_predictions_are_the_rules_and_evaluation_is_of_them(run: Path, data: Path, folder: Path) -> None:
    state, test = checkpoint(run), read_sparse(data / "test.txt").unit_length()
    assert state.decision is not None
    assert state.decision.calibrator is not None
    lines = predictions(run, data / "test.txt", folder / "some" / "out.jsonl")
    z = logits(state, test)
    expected = state.decision.rule.decide(z) & (z >= z.topk(CANDIDATES, 1).values[:, -1:])
    p = state.decision.calibrator(z)
    decided = np.zeros((len(test), LABELS), dtype=bool)
    assert len(lines) == len(test)
    for row, line in enumerate(lines):
        decided[row, line["labels"]] = True
        assert line["probabilities"] == sorted(line["probabilities"], reverse=True)
        assert line["probabilities"] == pytest.approx(p[row, line["labels"]].tolist(), abs=1e-4)
    assert (decided == expected.numpy()).mean() > 0.9999, "but for rounding at a threshold"
    truth = dense(test)
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
        ([], "own"),
        (["--loss", "lsep"], "top-3"),
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
    assert {*lines[0]} == {"labels", "scores" if options == ["--loss", "lsep"] else "probabilities"}


def test_a_checkpoint_without_a_rule_decides_untuned_until_training_ends(run: Path, data: Path, folder: Path) -> None:
    shutil.copytree(run, folder / "run")
    path = folder / "run/checkpoint.safetensors"
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    assert any(name.startswith("decision.") for name in tensors)
    before = {name: tensor for name, tensor in tensors.items() if not name.startswith("decision.")}
    header = json.loads(metadata["lopsided"]) | {"decision": None}
    save_file(before, path, {"lopsided": json.dumps(header)})
    assert main(["evaluate", "run"]) == 0
    assert json.loads((folder / "run/results.json").read_text())["rule"] == "own"
    assert main(["fit", "run"]) == 0, "it is tuned, without training again"
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == metadata
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())


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
    assert f"predictions: out.jsonl (rule: {rule})" in capsys.readouterr().out


BAD_LINES = {
    "nothing to tune on": (["--decide", "per-label"], "--decide per-label is tuned on validation rows: add --valid"),
    "unknown rule": (["--decide", "best"], "unknown rule 'best': known are per-label, global, macro-f1"),
    "no own threshold": (["--loss", "lsep", "--decide", "own"], "only ranks the labels of a row"),
}


SATURATED = "asl(clip=0.6)"


@pytest.mark.parametrize(
    ("options", "rule"),
    [([], "top-3"), (["--decide", "own"], "top-3"), (["--decide", "own", "--valid", "0.3"], "per-label")],
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
