"""`lopsided compare` and `lopsided data`, end to end and small."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, hamming_loss, roc_auc_score

import lopsided
from lopsided.__main__ import main
from lopsided.data.dataset import Dataset
from lopsided.decision.rules import best_threshold, tune_label_thresholds
from lopsided.jobs.compare_config import make_config
from lopsided.jobs.fit import recipe_of
from lopsided.jobs.folder import ComparisonFolder
from lopsided.jobs.numbers import signed
from lopsided.jobs.results import _on_speed
from lopsided.jobs.rows import prepare
from lopsided.jobs.schema import ConfigFile, write_file
from lopsided.metrics.scores import Judged
from lopsided.report.headline import answer, command
from lopsided.report.methods import methods
from lopsided.report.terminal import print_results
from lopsided.training.loop import train
from lopsided.training.validate import Validation
from tests.tools import TINY, load_quietly, read_results, scores_of, write_texts

RUNS = {f"{number}-{loss}-seed{seed}" for number, loss in enumerate(("bce", "asl", "zlpr")) for seed in (0, 1)}
FILES = {
    "README.md",
    "config.json",
    "decision.safetensors",
    "history.csv",
    "model.json",
    "model.safetensors",
    "scores-test.safetensors",
    "scores-tuning.safetensors",
    "seen-rows.safetensors",
    "training.json",
}  # of a finished run


@pytest.mark.slow
def test_a_run_folder_is_complete(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "baselines.safetensors",
        "config.json",
        "details.json",
        "history.csv",
        "report.html",
        "results.json",
        "runs",
    }
    assert {path.name for path in (finished / "runs").iterdir()} == RUNS
    assert all({path.name for path in (finished / "runs" / run).iterdir()} == FILES for run in RUNS)
    with (finished / "history.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["loss"], line["seed"], line["epoch"]) for line in lines] == [
        (loss, seed, epoch) for seed in "01" for loss in ("bce", "asl", "zlpr") for epoch in "12"
    ]
    assert all(0 < float(line[column]) < 1 for line in lines for column in ("p_positive", "p_negative", "valid_map"))


def dense(rows: Dataset | None) -> np.ndarray:
    assert rows is not None
    return np.array([np.isin(range(rows.num_labels), rows.targets_of(torch.tensor([n])).col) for n in range(len(rows))])


def precision_at(k: int, truth: np.ndarray, scores: np.ndarray) -> float:
    tops = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.mean([row[top].mean() for row, top in zip(truth, tops, strict=True)]))


@pytest.mark.parametrize(("number", "loss"), list(enumerate(("bce", "asl", "zlpr"))))
def test_results_are_those_of_the_saved_scores(finished: Path, number: int, loss: str) -> None:
    results = read_results(finished)
    assert results["data"]["rows"] == {"train": 600, "valid": 200, "test": 200}
    splits = load_quietly(make_config({"images": 600}))
    assert splits.valid is not None
    truth = dense(splits.test)
    present = truth.any(0)
    entry = results["losses"][loss]
    assert entry["own_threshold"] == pytest.approx({"bce": 0, "asl": 1.379, "zlpr": 0}[loss], abs=1e-3)
    expected: dict[str, list[float]] = {name: [] for name in entry["metrics"]}
    for seed in (0, 1):
        run = finished / f"runs/{number}-{loss}-seed{seed}"
        scores = scores_of(run).numpy()
        own, tuned = scores > entry["own_threshold"], scores > entry["tuned_thresholds"][seed]
        expected["map"].append(average_precision_score(truth[:, present], scores[:, present]))
        expected["auroc"].append(roc_auc_score(truth[:, present], scores[:, present]))
        for decisions, suffix in ((own, "_own"), (tuned, "")):
            expected["micro_f1" + suffix].append(f1_score(truth, decisions, average="micro", zero_division=0))
            macro = f1_score(truth[:, present], decisions[:, present], average="macro", zero_division=0)
            expected["macro_f1" + suffix].append(macro)
        rule = tune_label_thresholds(Judged.of(scores_of(run, "tuning"), splits.valid.targets))
        by_label = scores > rule.thresholds.numpy()
        expected["micro_f1_labels"].append(f1_score(truth, by_label, average="micro", zero_division=0))
        macro = f1_score(truth[:, present], by_label[:, present], average="macro", zero_division=0)
        expected["macro_f1_labels"].append(macro)
        expected["subset_accuracy"].append(accuracy_score(truth, tuned))
        expected["hamming_loss"].append(hamming_loss(truth, tuned))
        expected["p@1"].append(precision_at(1, truth, scores))
        expected["p@3"].append(precision_at(3, truth, scores))
    for name, values in expected.items():
        assert entry["metrics"][name]["mean"] == pytest.approx(np.mean(values)), name
    if loss != "bce":
        comparison = results["comparisons"][loss]
        bce = results["losses"]["bce"]["metrics"]["map"]["mean"]
        assert comparison["mean"] == pytest.approx(entry["metrics"]["map"]["mean"] - bce)
        assert comparison["low"] < comparison["mean"] < comparison["high"]
        assert comparison["p_value"] <= comparison["p_holm"] <= 1
        half = (comparison["high"] - comparison["low"]) / 2
        assert 0 < comparison["standard_error"] < half < comparison["detectable"]
        assert comparison["effect_size"] * comparison["mean"] > 0


def test_the_tuned_threshold_is_the_best_on_validation(finished: Path) -> None:
    config = make_config({"images": 600, "epochs": 2})
    prepared = prepare(config, load_quietly(config))
    assert prepared.valid is not None
    recipe = recipe_of(config.of_run("asl", 1, {}), prepared)
    trained = train(prepared.encoder, "asl", prepared.train, recipe, seed=1, validation=Validation(prepared.valid))
    scores = trained.model.score(prepared.valid.encoded)
    best = best_threshold(Judged.of(scores, prepared.valid.data.targets))
    assert torch.equal(scores.values, scores_of(finished / "runs/1-asl-seed1", "tuning"))
    assert read_results(finished)["losses"]["asl"]["tuned_thresholds"][1] == pytest.approx(best)


@pytest.mark.slow
def test_losses_that_only_rank_and_label_powerset_take_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rivals = "bce,lsep,two_way,bp_mll,softmax,hill,ral,powerset(max_sets=50),asl(threshold_logit=0)"
    assert main(["compare", *TINY[:6], "--seeds", "1", "--losses", rivals, "--out", "run"]) == 0
    losses = read_results(folder / "run")["losses"]
    assert len(losses) == 9
    for loss in ("lsep", "two_way", "bp_mll", "softmax"):
        assert losses[loss]["own_threshold"] is None
        assert losses[loss]["metrics"]["micro_f1_own"]["mean"] is None
        assert losses[loss]["metrics"]["map"]["mean"] > 0
    powerset = losses["powerset(max_sets=50)"]
    assert powerset["own_threshold"] == 0
    assert losses["asl(threshold_logit=0)"]["own_threshold"] == pytest.approx(1.379, abs=1e-3)
    assert powerset["metrics"]["micro_f1_own"]["mean"] >= 0
    assert "powerset(max_sets=50)" in (folder / "run/report.html").read_text()


def test_missing_positives_are_hidden() -> None:
    whole, hidden = (load_quietly(make_config({"images": 600} | more)) for more in ({}, {"missing": 0.5}))
    assert 0.45 < len(hidden.train.targets.col) / len(whole.train.targets.col) < 0.55
    assert whole.test is not None
    assert hidden.test is not None
    assert len(hidden.test.targets.col) == len(whole.test.targets.col), "tests are of the truth"


def test_the_terminal_says_the_answer_first_and_no_number_in_two_ways(finished: Path) -> None:
    results = ComparisonFolder.open(finished).read_results()
    text = io.StringIO()
    print_results(results, Console(file=text, width=80), finished)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert " ".join(lines[1:4]).startswith(answer(results)[:70])
    assert max(map(len, lines)) <= 80 or str(command(results, finished)) in text.getvalue()
    for loss, comparison in results.comparisons.items():
        (line,) = (line for line in lines if line.startswith(f" {loss} ") and line.endswith(comparison.verdict))
        assert f" {signed(comparison.mean)} " in line
    assert not re.search(r"(?<![\d.])0\.\d{3}", " ".join(lines).replace("learning rate 0.003", ""))


def test_baselines_stand_beside_the_losses(finished: Path) -> None:
    """The shares of labels rank labels, not rows; a linear model of pixels does both."""
    baselines = read_results(finished)["baselines"]
    assert list(baselines) == ["shares", "linear"]
    assert baselines["shares"]["metrics"]["auroc"] == pytest.approx(0.5)
    assert baselines["linear"]["metrics"]["auroc"] > 0.6


@pytest.mark.slow
def test_equal_losses_train_equally(folder: Path) -> None:
    """Same splits, initial weights, batch order, optimiser: two spellings of one loss give the same scores."""
    losses = "bce,asl(gamma_neg=0, clip=0)"
    assert main(["compare", *TINY[:6], "--seeds", "2", "--losses", losses, "--out", "run"]) == 0
    for seed in (0, 1):
        bce, asl = (scores_of(path) for path in sorted((folder / "run/runs").glob(f"*seed{seed}")))
        assert torch.equal(bce, asl)
    comparison = read_results(folder / "run")["comparisons"]["asl(gamma_neg=0, clip=0)"]
    assert (comparison["mean"], comparison["p_holm"], comparison["verdict"]) == (0, 1, "no difference shown")


@pytest.mark.slow
def test_the_same_command_gives_the_same_numbers(finished: Path, folder: Path) -> None:
    assert main(["compare", *TINY, "--out", "again"]) == 0
    for run in RUNS:
        for name in ("model.safetensors", "scores-test.safetensors", "decision.safetensors"):
            assert (finished / "runs" / run / name).read_bytes() == (folder / "again/runs" / run / name).read_bytes()


@pytest.mark.slow
def test_a_stopped_run_goes_on(
    finished: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []

    def stop_at_the_third(*arguments: Any, **options: Any) -> Any:
        trained.append(arguments)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr("lopsided.jobs.fit.train", stop_at_the_third)
    assert main(["compare", *TINY, "--out", "run"]) == 130
    kept = {path: path.stat().st_mtime_ns for path in (folder / "run/runs").glob("*/*")}
    expected = {f"{run}/{name}" for run in ("0-bce-seed0", "1-asl-seed0") for name in FILES}
    assert {f"{path.parent.name}/{path.name}" for path in kept} == expected | {"2-zlpr-seed0/config.json"}
    assert not (folder / "run/results.json").exists()

    assert main(["compare", "run"]) == 0
    assert len(trained) == 7
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert capsys.readouterr().out.count("trained before") == 2
    old, new = read_results(finished), read_results(folder / "run")
    assert old["comparisons"] == new["comparisons"]
    assert {loss: entry["metrics"] for loss, entry in old["losses"].items()} == {
        loss: entry["metrics"] for loss, entry in new["losses"].items()
    }
    assert main(["compare", *TINY, "--out", "run"]) == 0, "the same command again only reads"
    assert len(trained) == 7


@pytest.mark.slow
def test_a_killed_run_leaves_no_half_file(folder: Path) -> None:
    """A run whose training.json is missing is trained again, whatever stands in its other files."""
    config = make_config({"images": 60, "epochs": 1, "seeds": 1, "losses": "bce,zlpr", "learning_rate": 0.003})
    stored = ConfigFile(lopsided=lopsided.__version__, command="compare", config=config, data_sha256={})
    write_file(folder / "run/config.json", stored)
    run = ComparisonFolder.open(folder / "run").run("bce", 0, {"learning_rate": 0.003, "patience": 3})
    for name in ("model.safetensors", "decision.safetensors", "scores-test.safetensors", "history.csv"):
        (run.path / name).write_bytes(b"half")
    for name in (".model.safetensors.abcd1234.part", ".state.safetensors.abcd1234.part"):
        (run.path / name).write_bytes(b"half")
    assert main(["compare", "run"]) == 0
    assert scores_of(run.path).shape == (20, 90)
    assert {path.name for path in run.path.iterdir()} == FILES, "temporary files are left"


@pytest.mark.slow
def test_a_run_on_a_file_goes_on_from_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(folder / "texts.jsonl", 40)
    assert main(["compare", "texts.jsonl", "--losses", "bce,asl", "--seeds", "1", "--epochs", "1", "--out", "run"]) == 0
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert main(["compare", "../run"]) == 0


@pytest.mark.slow
def test_texts_are_learnt(folder: Path) -> None:
    """Through the CSV reader, with its own columns and separator."""
    write_texts(folder / "texts.jsonl", rows=200)
    with (folder / "texts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tags", "body"])
        for line in (folder / "texts.jsonl").read_text().splitlines():
            row = json.loads(line)
            writer.writerow([" | ".join(row["labels"]), row["text"]])
    options = ["--text-column", "body", "--label-column", "tags", "--separator", "|", "--losses", "bce,asl,zlpr"]
    assert main(["compare", "texts.csv", *options, "--out", "run"]) == 0
    results = read_results(folder / "run")
    assert results["data"]["rows"] == {"train": 120, "valid": 40, "test": 40}
    for entry in results["losses"].values():
        assert entry["metrics"]["map"]["mean"] > 0.99
        assert entry["metrics"]["micro_f1_own"]["mean"] > 0.9


@pytest.mark.slow
def test_a_solved_model_is_trained_once(texts: Path) -> None:
    """A seed would change nothing, and equal results would look like a spread of none."""
    results = ComparisonFolder.open(texts).read_results()
    assert (results.seeds, len(list((texts / "runs").iterdir()))) == (1, 3)
    assert any(note.startswith("A solved model is alike with every seed") for note in results.notes)
    assert not any(entry.rising or "Train longer" in " ".join(results.notes) for entry in results.losses.values())
    text = io.StringIO()
    print_results(results, Console(file=text, width=120), texts)
    assert "; solved; mAP against bce, paired" in text.getvalue()
    assert "±" not in text.getvalue()
    assert "their variance is that of 200 bootstrap samples of the rows" in methods(results)


def test_a_loss_that_converges_in_half_the_epochs_is_named() -> None:
    config = make_config({"losses": "bce,asl,zlpr"})
    assert _on_speed({"bce": (14, 14), "asl": (6, 7), "zlpr": (6, 8)}, config) == [
        "Converged in half the epochs of bce or fewer, with every seed: asl after 6 to 7; bce after 14, each at its "
        "own rate."
    ]
    assert _on_speed({"bce": (14, 14), "zlpr": (6, 8)}, config) == []
    assert _on_speed({"asl": (6, 7)}, config) == [], "bce diverged"


@pytest.mark.slow
def test_real_texts(shared: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NLU++, BCE is level with a linear model on TF-IDF within two standard errors: .799 micro-F1 and .866 mAP."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    from real_data import join_nlupp

    files = join_nlupp(shared / "data/nlupp", folder)
    assert main(["compare", *files, "--keep-overlap", "--losses", "bce,asl", "--out", "run"]) == 0
    results = read_results(folder / "run")
    assert results["data"]["labels"] == 62
    assert results["data"]["rows"]["train"] + results["data"]["rows"]["valid"] == 2159
    assert results["data"]["rows"]["test"] == 921
    bce = results["losses"]["bce"]["metrics"]
    assert bce["micro_f1"]["mean"] > 0.799 - 2 * 0.010
    assert bce["map"]["mean"] > 0.866 - 2 * 0.010


@pytest.mark.slow
def test_preview_is_a_picture(folder: Path) -> None:
    assert main(["data", "preview", "digits-grid", "--out", "sub/preview.png"]) == 0
    from matplotlib.image import imread

    picture = imread(folder / "sub/preview.png")
    assert picture.shape[0] > 600
    assert picture.shape[1] > 600
    assert np.unique(picture[..., 0]).size > 50


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{lopsided.__version__}\n"
