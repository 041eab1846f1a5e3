"""Each option of a training does what it says."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lopsided.__main__ import main
from lopsided.data.storage import UserError
from lopsided.jobs.config import FitConfig
from lopsided.jobs.fit import recipe_of
from lopsided.jobs.folder import RunFolder
from lopsided.jobs.rows import prepare
from lopsided.metrics.registry import METRICS
from lopsided.metrics.scores import Judged
from lopsided.metrics.weighted import Weighable
from lopsided.models.heads import dense_targets
from tests.tools import load_quietly, scores_of, write_texts

MODEL = ["--model", "ngrams(hidden=8)"]


@pytest.fixture
def texts_file(folder: Path) -> Path:
    return write_texts(folder / "texts.jsonl", 160)


def fitted(out: str, *options: str) -> dict[str, Tensor]:
    assert main(["fit", "texts.jsonl", "--out", out, *MODEL, *options]) == 0
    return {name: each for name, each in load_file(f"{out}/model.safetensors").items() if name.startswith("network")}


def history_of(run: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(run, "history.csv").read_text().splitlines()))


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.slow
@pytest.mark.usefixtures("texts_file")
def test_batches_of_a_step_are_one_large_batch() -> None:
    few = fitted("few", "--epochs", "2", "--batch-size", "16", "--accumulate", "4")
    one = fitted("one", "--epochs", "2", "--batch-size", "64")
    assert distance(few, one) < 1e-6
    assert distance(few, fitted("many", "--epochs", "2", "--batch-size", "16")) > 1e-2


@pytest.mark.slow
@pytest.mark.usefixtures("texts_file")
def test_schedule_norm_and_precision_change_the_weights_as_they_should() -> None:
    plain = fitted("plain", "--epochs", "1")
    assert distance(plain, fitted("same", "--epochs", "1", "--clip-norm", "1e9", "--precision", "fp32")) == 0
    low = fitted("low", "--epochs", "1", "--precision", "bf16")
    assert 0 < distance(plain, low) < 0.05
    assert all(each.dtype == torch.float32 for each in low.values()), "weights stay float32"
    start = fitted("start", "--epochs", "1", "--learning-rate", "1e-12")
    assert distance(start, fitted("clipped", "--epochs", "1", "--clip-norm", "1e-9")) < 1e-6, "steps have no length"
    for schedule in ("cosine", "one_cycle"):
        assert distance(plain, fitted(schedule, "--epochs", "1", "--schedule", schedule)) > 1e-3


@pytest.mark.slow
def test_training_stops_when_no_epoch_is_better(texts_file: Path) -> None:
    fitted("run", "--epochs", "40", "--patience", "3", "--metric", "micro_f1")
    lines = history_of("run")
    record: dict[str, Any] = json.loads(Path("run/training.json").read_text())
    values = [float(line["valid"]) for line in lines]
    first = values.index(max(values))
    assert len(values) == record["epochs"] == first + 1 + 3 < 40
    assert record["best_epoch"] == max(number for number, value in enumerate(values, 1) if value == max(values))
    valid = load_quietly(FitConfig(data=str(texts_file))).valid
    assert valid is not None
    truth = Judged.of(scores_of(Path("run"), "tuning"), valid.targets)
    assert METRICS["map"].value(Weighable(truth, None).summary()) == pytest.approx(
        float(lines[record["best_epoch"] - 1]["valid_map"])
    ), "the scores are those of the best epoch"


def test_each_option_reaches_the_recipe(texts_file: Path) -> None:
    asked: dict[str, Any] = {"epochs": 3, "batch_size": 8, "learning_rate": 0.5, "schedule": "cosine", "accumulate": 2}
    asked |= {"clip_norm": 0.25, "precision": "bf16", "model": "ngrams(solve=False)"}
    config = FitConfig(data=str(texts_file), **asked)
    recipe = recipe_of(config, prepare(config, load_quietly(config)))
    assert {name: getattr(recipe, name) for name in asked if name != "model"} | {"model": asked["model"]} == asked
    default = FitConfig(data=str(texts_file))
    prepared = prepare(default, load_quietly(default))
    assert recipe_of(default, prepared) == prepared.encoder.recipe(len(prepared.train), 3)


@pytest.mark.slow
@pytest.mark.parametrize("refitted", [True, False])
@pytest.mark.usefixtures("texts_file")
def test_validation_rows_that_were_split_off_are_solved_on_in_the_end(refitted: bool) -> None:
    """The rule is tuned on scores of rows that its model has not seen; the model that is saved has seen them."""
    line = ["fit", "texts.jsonl", "--valid", "0.3", "--loss", "bce", "--out", "run", *["--no-refit"] * (not refitted)]
    assert main(line) == 0
    record, valid = (
        json.loads(Path("run/training.json").read_text()),
        load_quietly(FitConfig(data="texts.jsonl", valid="0.3")).valid,
    )
    assert valid is not None
    model = RunFolder.open(Path("run")).read_model()
    rows = len(Path("texts.jsonl").read_text().splitlines())
    assert record["refitted"] == refitted
    assert model.rows == record["rows"] == (rows if refitted else rows - len(valid))
    unseen, tuned = scores_of(Path("run"), "tuning"), load_quietly(FitConfig(data="texts.jsonl", valid="0")).train
    if not refitted:
        torch.testing.assert_close(model.score(model.encode(valid.inputs)).values, unseen)
        return
    assert len(unseen) == rows
    signs = 2 * dense_targets(tuned.targets, 3).float() - 1
    now = model.score(model.encode(tuned.inputs)).values
    assert (signs * now).mean() > (signs * unseen).mean() + 0.01, "it knows these rows"


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("ngrams", {"clip_norm": 1.0}, '--clip-norm is for .* ngrams is solved: .* --model "ngrams\\(solve=False\\)"'),
        ("ngrams(hidden=8)", {"l2": 1.0}, "--l2 is for models that are solved, and ngrams is trained in steps"),
    ],
)
def test_options_of_steps_are_not_for_what_is_solved(
    texts_file: Path, model: str, options: dict[str, Any], message: str
) -> None:
    config = FitConfig(data=str(texts_file), model=model, **options)
    with pytest.raises(UserError, match=message):
        recipe_of(config, prepare(config, load_quietly(config)))


@pytest.mark.slow
@pytest.mark.usefixtures("texts_file")
def test_seeds_that_stop_at_different_epochs_are_compared() -> None:
    line = [
        "compare",
        "texts.jsonl",
        "--losses",
        "bce,zlpr",
        "--seeds",
        "3",
        "--epochs",
        "12",
        "--patience",
        "1",
        *MODEL,
    ]
    assert main([*line, "--out", "run"]) == 0
    lengths = {path.name: len(history_of(str(path))) for path in Path("run/runs").iterdir()}
    assert len(set(lengths.values())) > 1, lengths
    assert len(history_of("run")) == sum(lengths.values())
    assert Path("run/report.html").exists()
    assert main(["inspect", "run"]) == 0
    assert main(["compare", "run"]) == 0


def test_a_comparison_refuses_several_processes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["compare", "--out", "run"]) == 2
    assert "a comparison trains in one process; several are for lopsided fit" in capsys.readouterr().err
    assert not list(folder.iterdir())
