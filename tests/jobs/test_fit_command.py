"""`lopsided fit` and `lopsided evaluate`, end to end and small."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import lopsided
from lopsided.__main__ import main
from lopsided.data.make_xmc import XmcMaker, make_xmc
from lopsided.data.sparse_files import read_sparse
from lopsided.jobs.folder import FitFolder
from lopsided.models.sparse_features import SparseClassifier
from tests.metrics.test_top_k import by_hand

SMALL = ["--hidden", "32", "--epochs", "3", "--batch-size", "64", "--dropout", "0.1"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_xmc(folder, XmcMaker(labels=300, features=100), rows=1500, test_rows=300)
    return folder


@pytest.fixture(scope="session")
def fitted(made: Path) -> Path:
    run = made / "run"
    line = ["fit", str(made / "train.txt"), "--test", str(made / "test.txt"), "--valid", "0.1", "--out", str(run)]
    assert main(line + SMALL) == 0
    return run


def results_of(run: Path, name: str = "results.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / name).read_text())
    return content


@pytest.mark.slow
def test_a_run_learns_what_is_planted(fitted: Path) -> None:
    assert {path.name for path in fitted.iterdir()} == {
        "checkpoint.safetensors",
        "config.json",
        "metrics.csv",
        "results.json",
    }
    with (fitted / "metrics.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2", "3"]
    assert float(lines[0]["train_loss"]) > float(lines[2]["train_loss"])
    assert float(lines[0]["valid_p@1"]) < float(lines[2]["valid_p@1"])
    results = results_of(fitted)
    assert (results["rows"], results["epochs"], results["loss"]) == (300, 3, "asl")
    assert results["model"]["p@1"] > 3 * results["popularity"]["p@1"] > 0
    assert results["model"]["psp@5"] > results["popularity"]["psp@5"]


def test_results_are_those_of_all_logits(fitted: Path, made: Path) -> None:
    found = FitFolder.open(fitted).load()
    assert found is not None
    model = found.model
    assert found.rows == 1350
    test = read_sparse(made / "test.txt").unit_length()
    batch, targets = test.batch(torch.arange(len(test)))
    model.eval()
    logits = model.head.logits(model(batch)).detach().numpy()
    truth = [targets.col[start:stop].tolist() for start, stop in zip(targets.crow, targets.crow[1:], strict=False)]
    counts = model.label_counts.double().numpy()
    c = (math.log(found.rows) - 1) * 2.5**0.55
    inverse = (1 + c * (counts + 1.5) ** -0.55).tolist()
    results = results_of(fitted)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    assert results["model"] == pytest.approx(by_hand(best.tolist(), truth, inverse))
    most = np.sort(counts)[-5:]
    assert results["popularity"]["p@1"] == pytest.approx(
        max(np.mean([label in row for row in truth]) for label in np.flatnonzero(counts == most[-1]))
    )


def test_another_file_and_other_propensities(fitted: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "two.svm").write_text("0,299 1:1 5:2\n4000 9000:1\n")  # a label and a feature never seen
    shutil.copytree(fitted, folder / "run")
    line = ["evaluate", "run", "two.svm", "--propensity-a", "0.6", "--propensity-b", "2.6"]
    assert main(line) == 0
    results = results_of(folder / "run", "results-two.json")
    assert (results["rows"], results["propensity"]) == (2, {"a": 0.6, "b": 2.6})
    assert results["model"]["p@5"] <= 0.2
    out = capsys.readouterr().out
    assert "A = 0.6 and B = 2.6" in out
    assert "results: run/results-two.json" in out
    assert results_of(folder / "run") == results_of(fitted)


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of an epoch."""
    step: Callable[..., torch.Tensor] = SparseClassifier.step
    left = iter(range(steps))

    def stopping(*arguments: Any) -> torch.Tensor:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(SparseClassifier, "step", stopping)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [5, 30, 60])  # of 22 an epoch
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    fitted: Path, made: Path, folder: Path, steps: int, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", str(made / "train.txt"), "--test", str(made / "test.txt"), "--valid", "0.1", "--out", "run", *SMALL]
    with pytest.MonkeyPatch.context() as patch:
        stop_after(steps, patch)
        assert main(line) == 130
    assert "go on with: lopsided fit run" in capsys.readouterr().err
    assert (folder / "run/checkpoint.safetensors").exists() == (steps > 22)
    assert main(["fit", "run"]) == 0
    assert not [path for path in (folder / "run").iterdir() if path.name.startswith(".")]
    results, expected = (results_of(run) for run in (folder / "run", fitted))
    assert results | {"seconds_per_epoch": 0} == expected | {"seconds_per_epoch": 0}
    tensors, whole = (load_file(run / "checkpoint.safetensors") for run in (folder / "run", fitted))
    assert tensors.keys() == whole.keys()
    assert all(torch.equal(tensors[name], whole[name]) for name in whole)


def test_a_finished_run_is_only_evaluated_again(fitted: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(fitted, folder / "run")
    stop_after(0, monkeypatch)
    assert main(["fit", "run"]) == 0


def test_the_bias_starts_at_the_frequencies() -> None:
    counts = torch.tensor([0, 10, 400])
    for loss in ("bce", "asl", "hill"):
        model = SparseClassifier(5, counts, rows=1000, hidden=4, loss=loss)
        posterior = lopsided.loss(loss).posterior(model.head.get_parameter("bias"))
        assert posterior.tolist() == pytest.approx(((counts + 0.5) / 1001).tolist(), rel=1e-5)
    bias = SparseClassifier(5, counts, rows=1000, hidden=4, loss="zlpr").head.get_parameter("bias")
    assert torch.sigmoid(2 * bias).tolist() == pytest.approx(((counts + 0.5) / 1001).tolist(), rel=1e-5)
    assert not SparseClassifier(5, counts, rows=1000, loss="lsep").head.get_parameter("bias").any()


BAD_LINES = {
    "no such file": (["fit", "none.txt"], "none.txt: No such file"),
    "a folder": (["fit", "."], "a folder, but neither a data file nor a run folder"),
    "unknown ending": (["fit", "a.parquet"], "a.parquet: cannot tell its format; name it .txt, .svm"),
    "unknown loss": (["fit", "train.txt", "--loss", "asll"], "--loss: unknown loss 'asll'"),
    "share of validation": (
        ["fit", "train.txt", "--valid", "1.5"],
        "--valid: a share of the training rows must lie bet",
    ),
    "nothing to validate on": (["fit", "tiny.txt", "--valid", "0.01"], "--valid: a share of 0.01 of 2 rows leaves a"),
    "no labels": (["fit", "bare.txt"], "no labels at all in the training rows"),
    "no features": (["fit", "flat.svm"], "no features at all in the training rows"),
    "another header": (["fit", "train.txt", "--test", "tiny.txt"], "says 9 features and 4 labels, but the training"),
    "hidden": (["fit", "train.txt", "--hidden", "0"], "--hidden: Input should be greater than or equal to 1"),
    "a run fixes its settings": (
        ["fit", "run", "--epochs", "9"],
        "run is a run folder, which fixes all settings; leave",
    ),
    "other settings": (["fit", "train.txt", "--out", "run"], "run: holds a run with other settings"),
    "a run of another command": (["compare", "run"], "run: a run of lopsided fit, expected one of lopsided compare"),
    "not a run": (["evaluate", "train.txt"], "train.txt: not a run folder"),
    "no test file": (["evaluate", "bare"], "bare: was trained without --test; name the file to evaluate on"),
    "nothing trained yet": (
        ["evaluate", "bare", "tiny.txt"],
        "bare: no epoch is finished yet; go on with: lopsided fit",
    ),
    "damaged": (["evaluate", "damaged"], "checkpoint.safetensors: damaged"),
    "cut": (["evaluate", "cut"], "checkpoint.safetensors: damaged"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_errors_are_one_line(
    name: str, fitted: Path, made: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(made / "train.txt", folder)
    (folder / "tiny.txt").write_text("2 9 4\n1 0:1\n2 8:1\n")
    (folder / "bare.txt").write_text("2 9 4\n 0:1\n 8:1\n")
    (folder / "flat.svm").write_text("1\n2\n")
    for copy in ("run", "damaged", "cut"):
        shutil.copytree(fitted, folder / copy)
    (folder / "damaged/checkpoint.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    whole = (fitted / "checkpoint.safetensors").read_bytes()
    (folder / "cut/checkpoint.safetensors").write_bytes(whole[: len(whole) // 2])
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
    monkeypatch.setattr(SparseClassifier, "step", lambda *_: torch.tensor(math.nan))
    assert main(["fit", str(made / "train.txt"), "--out", "run"]) == 2
    assert "training diverged in epoch 1; start anew with a lower --learning-rate" in capsys.readouterr().err
    assert [path.name for path in (folder / "run").iterdir()] == ["config.json"]


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
@pytest.mark.parametrize("loss", ["bce", "asl", "zlpr"])
def test_bibtex_is_level_with_linear_classifiers(shared: Path, folder: Path, loss: str) -> None:
    """One-vs-rest logistic regression has P@1/3/5 of .630/.394/.293, with standard errors of .005 to .006."""
    data = shared / "data/xmc_bibtex"
    line = ["fit", str(data / "bibtex_train.txt"), "--test", str(data / "bibtex_test.txt"), "--loss", loss]
    assert main([*line, "--out", "run"]) == 0
    model = results_of(folder / "run")["model"]
    for name, baseline, error in (("p@1", 0.630, 0.005), ("p@3", 0.394, 0.006), ("p@5", 0.293, 0.006)):
        assert model[name] > baseline - 2 * error, f"{name} {model[name]:.3f}"
