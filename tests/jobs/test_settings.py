"""Settings from a file, from an earlier run, and from a comparison."""

import json
from pathlib import Path
from typing import Any

import pytest

from lopsided.__main__ import main
from lopsided.jobs.folder import RunFolder
from lopsided.losses import formula
from tests.jobs.test_resume import files_of
from tests.tools import read_results, write_texts

QUICK = ["--epochs", "2", "--model", "ngrams(hidden=8)"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    write_texts(folder / "texts.jsonl", 120)
    line = ["compare", str(folder / "texts.jsonl"), "--losses", "bce,asl", "--seeds", "2", "--tune", "2"]
    assert main([*line, "--missing", "0.1", *QUICK, "--out", str(folder / "run")]) == 0
    return folder / "run"


def written(run: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / name).read_text())
    return content


@pytest.mark.slow
@pytest.mark.parametrize("loss", [None, "bce", "asl"])
def test_a_loss_of_a_comparison_is_trained_on_all_rows(compared: Path, folder: Path, loss: str | None) -> None:
    assert main(["fit", "--like", str(compared), *(["--loss", loss] if loss else []), "--out", "run"]) == 0
    results = read_results(compared)
    answer = "asl" if results["comparisons"]["asl"]["verdict"] == "better" else "bce"
    chosen = loss or answer
    entry, config = results["losses"][chosen], written(folder / "run", "config.json")["config"]
    assert formula(config["loss"]) == formula(entry["settings"])
    assert config["learning_rate"] == entry["tuned_settings"]["learning_rate"]
    assert (config["batch_size"], config["model"]) == (results["recipe"]["batch_size"], "ngrams(hidden=8)")
    assert (config["missing"], config["test"]) == (0, "0"), "no positives are hidden, no rows are held out"
    record = written(folder / "run", "training.json")
    assert record["rows"] == 120
    assert record["epochs"] == round(sum(entry["best_epochs"]) / 2)
    number = ["bce", "asl"].index(chosen)
    rule = (compared / f"runs/{number}-{chosen}-seed0/decision.safetensors").read_bytes()
    assert (folder / "run/decision.safetensors").read_bytes() == rule, "its thresholds were tuned in the comparison"
    assert main(["predict", "run", str(compared.parent / "texts.jsonl"), "--out", "out.jsonl"]) == 0
    predicted = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert {label for row in predicted for label in row["labels"]} <= {"sport", "music", "food"}


@pytest.mark.slow
def test_rows_are_held_out_where_that_is_asked_for(compared: Path, folder: Path) -> None:
    assert main(["fit", "--like", str(compared), "--valid", "0.25", "--epochs", "1", "--out", "run"]) == 0
    config = written(folder / "run", "config.json")["config"]
    assert (config["decide"], config["epochs"]) == (None, 1)
    assert 80 <= written(folder / "run", "training.json")["rows"] <= 100, "copies of a text stay together"


@pytest.mark.slow
def test_other_labels_need_another_rule(compared: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = folder / "other.jsonl"
    other.write_text(write_texts(folder / "texts.jsonl", 40).read_text().replace("food", "art"))
    assert main(["fit", "other.jsonl", "--like", str(compared), "--out", "run"]) == 2
    assert "its rule is for other labels than those of these rows (only one of them has '" in capsys.readouterr().err
    assert not (folder / "run").exists()
    assert main(["fit", "other.jsonl", "--like", str(compared), "--valid", "0.2", "--out", "other"]) == 0


@pytest.mark.slow
def test_runs_of_a_comparison_are_runs(compared: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = compared / "runs/1-asl-seed0"
    assert main(["inspect", str(run)]) == 0
    assert main(["predict", str(run), str(compared.parent / "texts.jsonl"), "--out", "out.jsonl"]) == 0
    assert len((folder / "out.jsonl").read_text().splitlines()) == 120
    assert main(["evaluate", str(run)]) == 0
    evaluated, results = read_results(run), read_results(compared)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{results['data']['rows']['test']} rows of the test part of texts.jsonl" in shown
    both = [written(compared / f"runs/1-asl-seed{seed}", "training.json")["best_epoch"] for seed in (0, 1)]
    assert results["losses"]["asl"]["best_epochs"] == both
    assert main(["evaluate", str(compared / "runs/1-asl-seed1")]) == 0
    mean = (evaluated["model"]["map"] + read_results(compared / "runs/1-asl-seed1")["model"]["map"]) / 2
    assert results["losses"]["asl"]["metrics"]["map"]["mean"] == pytest.approx(mean), "the same rows, the same numbers"


TOML = """
data = "texts.jsonl"  # beside this file
valid = 0.2
text_columns = ["text"]

[model]
loss = "zlpr"
model = "ngrams(hidden=8)"

[model.training]
batch-size = 8
"""


@pytest.mark.slow
def test_a_file_has_all_settings(folder: Path) -> None:
    (folder / "sub").mkdir()
    write_texts(folder / "sub/texts.jsonl", 40)
    (folder / "sub/config.toml").write_text(TOML)
    assert main(["fit", "sub/config.toml", "--epochs", "1", "--out", "run"]) == 0
    line = ["fit", "sub/texts.jsonl", "--loss", "zlpr", "--batch-size", "8", "--valid", "0.2", "--text-columns", "text"]
    assert main([*line, "--model", "ngrams(hidden=8)", "--epochs", "1", "--out", "asked"]) == 0
    assert files_of(folder / "run") == files_of(folder / "asked")
    assert main(["fit", "run/config.json", "--out", "again"]) == 0
    assert files_of(folder / "again") == files_of(folder / "run")
    assert main(["fit", "run/config.json", "--seed", "1", "--out", "other"]) == 0
    assert RunFolder.open(folder / "other").config == RunFolder.open(folder / "run").config.changed({"seed": 1})


BAD = {
    "unknown setting": ("epoch = 3\ndata = 'texts.jsonl'", "a.toml: unknown setting 'epoch': did you mean 'epochs'?"),
    "of another command": ("seeds = 3\ndata = 'texts.jsonl'", "a.toml: unknown setting 'seeds': did you mean 'seed'?"),
    "no data": ("epochs = 3", "a.toml: no setting 'data', the file of the training rows"),
    "no TOML": ("epochs: 3", "a.toml: Expected '=' after a key in a key/value pair (at line 1, column 7)"),
    "another type": ("epochs = 'x'\ndata = 'texts.jsonl'", "--epochs: must be a valid integer, unable"),
    "a heading is no setting": ("[data]\nx = 1", "a.toml: unknown setting 'x'"),
    "twice": ("epochs = 3\ndata = 'texts.jsonl'\n[training]\nepochs = 4", "a.toml: the setting 'epochs' stands twice"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, message = BAD[name]
    write_texts(folder / "texts.jsonl", 40)
    (folder / "a.toml").write_text(text)
    before = sorted(folder.iterdir())
    assert main(["fit", "a.toml"]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert sorted(folder.iterdir()) == before
    assert main(["fit", "none.toml"]) == 2
    assert "none.toml: No such file" in capsys.readouterr().err


def test_what_cannot_be_trained_like(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit"]) == 2
    assert "no training rows: lopsided fit FILE, or --like COMPARISON" in capsys.readouterr().err
    assert main(["fit", "--like", str(finished), "--loss", "hill"]) == 2
    assert "which compares bce, asl, zlpr" in capsys.readouterr().err
    assert main(["fit", "--like", str(finished / "runs/0-bce-seed0")]) == 2
    assert "a run of lopsided fit, expected one of lopsided compare" in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_a_setting_can_be_set_by_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_texts(folder / "train.jsonl", 60)
    model = 'model = "ngrams(solve=False)"'
    (folder / "run.toml").write_text(f'\ufeffdata = "train.jsonl"\nloss = "bce"\nepochs = 4\n{model}\n')
    changes = ["--set", "training.epochs=2", "--set", "batch-size=16"]
    assert main(["fit", "run.toml", *changes, "--loss", "zlpr", "--out", "run"]) == 0
    config = RunFolder.open(folder / "run").config
    assert (config.epochs, config.batch_size, config.loss) == (2, 16, "zlpr")
    for wrong, message in (
        ("epocs=3", "did you mean 'epochs'?"),
        ("epochs", "write NAME=VALUE"),
        ("training.loss=asl", "--set training.loss=asl: loss is given twice"),
    ):
        assert main(["fit", "run.toml", "--loss", "bce", "--set", wrong]) == 2
        assert message in capsys.readouterr().err
