"""`lopsided fit` and `lopsided evaluate`, end to end and small."""

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

import lopsided
from lopsided.__main__ import main
from lopsided.data.dataset import Dataset
from lopsided.data.inputs import SparseFeatures
from lopsided.data.make_xmc import XmcMaker, make_xmc
from lopsided.data.readers import read
from lopsided.jobs.folder import RunFolder
from lopsided.models.bag import UnitLength
from lopsided.models.model import Model
from lopsided.nn.head import LinearHead
from lopsided.targets import SparseTargets
from tests.jobs.test_compare import FILES
from tests.metrics.test_top_k import by_hand
from tests.tools import scores_of, stop_after

SMALL = ["--model", "bag(hidden=32, dropout=0.1)", "--epochs", "3", "--batch-size", "64"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_xmc(folder, XmcMaker(labels=300, features=100), rows=1500, test_rows=300)
    return folder


@pytest.fixture(scope="session")
def fitted(made: Path) -> Path:
    run = made / "run"
    line = ["fit", str(made / "train.txt"), "--test", str(made / "test.txt"), "--out", str(run)]
    assert main(line + SMALL) == 0
    return run


def results_of(run: Path, name: str = "results.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / name).read_text())
    return content


@pytest.mark.slow
def test_a_run_learns_what_is_planted(fitted: Path) -> None:
    assert {path.name for path in fitted.iterdir()} == FILES | {"results.json", "labels.csv"}
    card = (fitted / "README.md").read_text()
    assert card.startswith("# train.txt, ")
    assert "weights are those of epoch" in card
    with (fitted / "history.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2", "3"]
    assert float(lines[0]["train_loss"]) > float(lines[2]["train_loss"])
    assert float(lines[0]["valid_p_at_1"]) < float(lines[2]["valid_p_at_1"])
    assert all(line["valid"] == line["valid_map"] for line in lines), "that is what is validated where labels are few"
    training = json.loads((fitted / "training.json").read_text())
    best = max(lines, key=lambda line: float(line["valid"]))
    assert (training["best_epoch"], training["rows"], training["diverged"]) == (int(best["epoch"]), 1350, False)
    results = results_of(fitted)
    assert (results["rows"], results["epochs"], results["loss"]) == (300, 3, "asl")
    assert results["model"]["p@1"] > 3 * results["popularity"]["p@1"] > 0
    assert results["model"]["psp@5"] > results["popularity"]["psp@5"]


@pytest.mark.slow
def test_results_are_those_of_all_logits(fitted: Path, made: Path) -> None:
    model = RunFolder.open(fitted).read_model()
    assert model.rows == 1350, "a tenth is held out for validation"
    test = read(made / "test.txt")
    logits = model.score(model.encode(test.inputs)).values.numpy()
    assert np.array_equal(logits, scores_of(fitted).numpy())
    targets = test.targets
    truth = [targets.col[start:stop].tolist() for start, stop in zip(targets.crow, targets.crow[1:], strict=False)]
    counts = model.label_counts.numpy()
    c = (math.log(model.rows) - 1) * 2.5**0.55
    inverse = (1 + c * (counts + 1.5) ** -0.55).tolist()
    results = results_of(fitted)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    precision = results["model"].pop("map")
    assert results["model"] == pytest.approx(by_hand(best.tolist(), truth, inverse))
    hits = np.array([np.isin(range(300), row) for row in truth])
    has = hits.any(0)
    assert precision == pytest.approx(average_precision_score(hits[:, has], logits[:, has]))
    most = np.sort(counts)[-5:]
    assert results["popularity"]["p@1"] == pytest.approx(
        max(np.mean([label in row for row in truth]) for label in np.flatnonzero(counts == most[-1]))
    )


@pytest.mark.slow
def test_another_file_and_other_propensities(fitted: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "two.svm").write_text("0,299 1:1 5:2\n4000 9000:1\n")  # a label and a feature never seen
    shutil.copytree(fitted, folder / "run")
    line = ["evaluate", "run", "two.svm", "--propensity-a", "0.6", "--propensity-b", "2.6"]
    assert main(line) == 0
    (found,) = (folder / "run").glob("results-two-*.json")  # named by its digest, too
    results = results_of(folder / "run", found.name)
    assert (results["rows"], results["propensity"]) == (2, {"a": 0.6, "b": 2.6})
    assert results["model"]["p@5"] <= 0.2
    out = capsys.readouterr().out
    assert "A = 0.6 and B = 2.6" in out
    assert f"results: run/{found.name}" in out
    assert results_of(folder / "run") == results_of(fitted)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [5, 30, 60])  # of 22 an epoch
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    fitted: Path, made: Path, folder: Path, steps: int, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", str(made / "train.txt"), "--test", str(made / "test.txt"), "--out", "run", *SMALL]
    with pytest.MonkeyPatch.context() as patch:
        stop_after(steps, patch)
        assert main(line) == 130
    assert "go on with: lopsided fit run" in capsys.readouterr().err
    assert (folder / "run/state.safetensors").exists() == (steps > 22)
    assert main(["fit", "run"]) == 0
    assert not [path for path in (folder / "run").iterdir() if path.name.startswith(".")]
    results, expected = (results_of(run) for run in (folder / "run", fitted))
    assert results == expected
    for name in ("model", "decision", "scores-tuning", "scores-test"):
        tensors, whole = (load_file(run / f"{name}.safetensors") for run in (folder / "run", fitted))
        assert tensors.keys() == whole.keys()
        assert all(torch.equal(tensors[name], whole[name]) for name in whole)
    assert {path.name for path in (folder / "run").iterdir()} == FILES | {"results.json", "labels.csv"}


def test_a_finished_run_is_only_evaluated_again(
    fitted: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(fitted, folder / "run")
    (folder / "run/results.json").unlink()
    stop_after(0, monkeypatch)
    assert main(["fit", "run"]) == 0
    assert results_of(folder / "run") == results_of(fitted)
    assert "trained before, with these settings: nothing is trained again" in capsys.readouterr().out


@pytest.mark.slow
def test_labels_that_only_test_rows_have_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No model can learn them, and each counts as missed."""
    (folder / "rows.csv").write_text("text,labels\n" + 'hot bowl,soup\nraw fish,sushi\nhot fish,"soup,sushi"\n' * 4)
    (folder / "test.csv").write_text("text,labels\nhot bowls,soup\nhot cake,cake\nraw,sushi\n")
    for valid in ("0", "0.3"):
        assert main(["fit", "rows.csv", "--test", "test.csv", "--valid", valid, "--out", f"run{valid}"]) == 0
        assert "labels of test rows that no training row has: 1, such as 'cake'\n" in capsys.readouterr().out


@pytest.mark.slow
def test_each_label_has_its_results(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By scikit-learn, of what `predict` writes; a label that only test rows have is never predicted."""
    (folder / "rows.csv").write_text("text,labels\n" + 'hot bowl,soup\nraw fish,sushi\nhot fish,"soup,sushi"\n' * 4)
    (folder / "new.csv").write_text("text,labels\nhot bowl,soup\nhot cake,cake\nraw,sushi\nhot fish,\nraw bowl,sushi\n")
    assert main(["fit", "rows.csv", "--valid", "0", "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run", "new.csv"]) == 0
    shown = capsys.readouterr().out
    assert "\nnever predicted: 1 of the labels that these rows have\neach label: run/labels-new.csv\n" in shown
    assert results_of(folder / "run", "results-new.json")["never_predicted"] == 1
    with (folder / "run/labels-new.csv").open(newline="") as file:
        lines = {line["label"]: line for line in csv.DictReader(file)}
    names = ["soup", "sushi", "cake"]
    assert list(lines) == names
    assert [lines[name]["training_rows"] for name in names] == ["8", "8", "0"]
    model = lopsided.load("run")
    predicted = model.predict(["hot bowl", "hot cake", "raw", "hot fish", "raw bowl"])
    truth = [["soup"], ["cake"], ["sushi"], [], ["sushi"]]
    y, z = (
        np.array([[name in row for name in names] for row in rows])
        for rows in (truth, [r["labels"] for r in predicted])
    )
    expected = precision_recall_fscore_support(y, z, zero_division=0)
    for place, name in enumerate(names):
        line = lines[name]
        found = [float(line[metric]) for metric in ("precision", "recall", "f1", "positives")]
        assert found == pytest.approx([column[place] for column in expected], abs=1e-6)
        assert (int(line["predicted"]), int(line["hits"])) == (z[:, place].sum(), (y & z)[:, place].sum())
        assert 0 < float(line["average_precision"]) <= 1


def test_the_bias_starts_at_the_frequencies() -> None:
    counts = torch.tensor([0, 10, 400])
    labels = [[label for label in (1, 2) if row < counts[label]] for row in range(1000)]
    inputs = SparseFeatures(torch.arange(1001), torch.zeros(1000, dtype=torch.long), torch.ones(1000), 1)
    train = Dataset(inputs, replace(SparseTargets.from_indices(labels), num_labels=3), ("a", "b", "c"))
    share = pytest.approx(((counts + 0.5) / 1001).tolist(), rel=1e-5)

    def bias(loss: str) -> torch.Tensor:
        return Model.new(UnitLength.fit(inputs, hidden=4), loss, train).network.head.get_parameter("bias")

    for loss in ("bce", "asl", "hill"):
        assert lopsided.loss(loss).posterior(bias(loss)).tolist() == share
    assert torch.sigmoid(2 * bias("zlpr")).tolist() == share
    assert not bias("lsep").any()


BAD_LINES = {
    "no such file": (["fit", "none.txt"], "none.txt: no such file"),
    "a folder": (["fit", "."], "; nor is it a run folder, which has a config.json"),
    "unknown ending": (["fit", "a.unknown"], "a.unknown: a file whose format cannot be told"),
    "unknown loss": (["fit", "train.txt", "--loss", "asll"], "--loss: unknown loss 'asll'"),
    "share of validation": (
        ["fit", "train.txt", "--valid", "1.5"],
        "--valid: a share of the training rows must lie bet",
    ),
    "nothing to validate on": (["fit", "train.txt", "--valid", "0.0001"], "1500 rows cannot be split by 1, 0.0001"),
    "nothing to train on": (
        ["fit", "train.txt", "--valid", "0.5", "--test", "0.5"],
        "no rows are left to train on: --valid and --test must sum to less than 1, got 1",
    ),
    "too few to validate on": (["fit", "tiny.txt"], "2 rows are too few to split; give at least 10, or separate files"),
    "too few to test on": (
        ["fit", "tiny.txt", "--valid", "0", "--test", "0.5"],
        "give at least 10, or separate files with --test, or --test 0 for none",
    ),
    "no labels": (["fit", "bare.txt", "--valid", "0"], "no labels at all in the training rows"),
    "no features": (["fit", "flat.svm", "--valid", "0"], "no features at all in the training rows"),
    "another header": (["fit", "train.txt", "--test", "tiny.txt"], "tiny.txt: its header says 9 features, but the tr"),
    "hidden": (["fit", "train.txt", "--model", "bag(hidden=0)"], "bag: hidden must be at least 1"),
    "a run fixes its settings": (
        ["fit", "run", "--epochs", "9"],
        "leave out --epochs, or begin a new run with its settings but these: lopsided fit run/config.json --epochs ...",
    ),
    "other settings": (["fit", "train.txt", "--out", "run"], "run: holds a run with other settings"),
    "a run of another command": (["compare", "run"], "run: a run of lopsided fit, expected one of lopsided compare"),
    "not a run": (["evaluate", "train.txt"], "train.txt: not a run folder"),
    "no test file": (["evaluate", "bare"], "bare: was trained without --test; name the file to evaluate on"),
    "nothing trained yet": (
        ["evaluate", "bare", "tiny.txt"],
        "bare: no model yet; go on with: lopsided fit",
    ),
    "damaged": (["evaluate", "damaged"], "model.safetensors: damaged"),
    "cut": (["evaluate", "cut"], "model.safetensors: damaged"),
    "no rule": (["evaluate", "unsettled"], "unsettled/decision.safetensors: damaged (it is not there); delete unse"),
    "another kind of table": (["predict", "run", "tiny.txt", "--out", "out.xlsx"], "out.xlsx must end in .jsonl, .csv"),
    "no file to read otherwise": (["evaluate", "run", "--encoding", "cp1252"], "than that of the run; name it"),
    "unknown model": (["fit", "train.txt", "--model", "bagg"], "--model: unknown model 'bagg': known are ngrams, "),
    "unknown setting": (["fit", "train.txt", "--model", "bag(width=8)"], "--model: bag has no setting 'width': it has"),
    "model of texts": (
        ["fit", "train.txt", "--model", "ngrams"],
        "ngrams takes no sparse inputs: choose among linear_bag, tree, bag",
    ),
    "unknown metric": (
        ["fit", "train.txt", "--metric", "mapp"],
        "--metric: unknown metric 'mapp': did you mean 'ma",
    ),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_errors_are_one_line(
    name: str, fitted: Path, made: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(made / "train.txt", folder)
    (folder / "tiny.txt").write_text("2 9 4\n1 0:1\n2 8:1\n")
    (folder / "bare.txt").write_text("2 9 4\n 0:1\n 8:1\n")
    (folder / "flat.svm").write_text("1\n2\n")
    (folder / "a.unknown").write_bytes(b"\0\1")
    for copy in ("run", "damaged", "cut", "unsettled"):
        shutil.copytree(fitted, folder / copy)
    (folder / "damaged/model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    model = (fitted / "model.safetensors").read_bytes()
    (folder / "cut/model.safetensors").write_bytes(model[: len(model) // 2])
    (folder / "unsettled/decision.safetensors").unlink()
    config = json.loads((fitted / "config.json").read_text())
    config["config"]["test"] = None
    (folder / "bare").mkdir()
    (folder / "bare/config.json").write_text(json.dumps(config))
    line, message = BAD_LINES[name]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(line) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    changed = {path for path in folder.rglob("*") if path.is_file() and before.get(path) != path.read_bytes()}
    assert not changed


def test_a_training_that_diverges_stops(
    made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LinearHead, "step", lambda *_: torch.tensor(math.nan))
    line = ["fit", str(made / "train.txt"), "--model", "bag", "--epochs", "3", "--out", "run"]
    message = "training diverged in epoch 1; start anew with a lower --learning-rate"
    assert main(line) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert {path.name for path in (folder / "run").iterdir()} == {"config.json", "history.csv", "training.json"}
    training = json.loads((folder / "run/training.json").read_text())
    assert (training["diverged"], training["epochs"], training["best_epoch"]) == (True, 1, 0)
    assert main(["fit", "run"]) == 2, "it does not train again"
    assert message in capsys.readouterr().err
    assert main(["predict", "run", str(made / "test.txt"), "--out", "out.jsonl"]) == 2
    assert "run: training diverged, so there is no model; train anew" in capsys.readouterr().err


def test_changed_data_are_noticed(made: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(made / "train.txt", folder)
    assert main(["fit", "train.txt", "--out", "run", *SMALL, "--epochs", "1"]) == 0
    assert "evaluate with: lopsided evaluate run FILE" in capsys.readouterr().out
    with (folder / "train.txt").open("a") as file:
        file.write("\n")
    assert main(["fit", "run"]) == 2
    assert "changed since the run in run began" in capsys.readouterr().err
    (folder / "train.txt").unlink()
    assert main(["evaluate", "run", str(made / "test.txt")]) == 0, "evaluation does not need the training rows"


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "more"), [("bce", ()), ("asl", ()), ("zlpr", ("--l2", "0.03125"))])
def test_bibtex_is_level_with_linear_classifiers(shared: Path, folder: Path, loss: str, more: tuple[str, ...]) -> None:
    """One-vs-rest logistic regression has P@1/3/5 of .630/.394/.293, with standard errors of .005 to .006."""
    data = shared / "data/xmc_bibtex"
    line = ["fit", str(data / "bibtex_train.txt"), "--test", str(data / "bibtex_test.txt"), "--loss", loss]
    assert main([*line, *more, "--out", "run"]) == 0
    model = results_of(folder / "run")["model"]
    for name, baseline, error in (("p@1", 0.630, 0.005), ("p@3", 0.394, 0.006), ("p@5", 0.293, 0.006)):
        assert model[name] > baseline - 2 * error, f"{name} {model[name]:.3f}"
