"""`lopsided compare --resplit`: each seed has training, validation and test rows of its own."""

import json
import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lopsided.__main__ import main
from lopsided.jobs.folder import ComparisonFolder, RunFolder
from lopsided.metrics.registry import METRICS
from lopsided.metrics.scores import Judged
from lopsided.metrics.weighted import Weighable
from tests.tools import load_quietly, read_results, scores_of, write_texts

LOSSES = ("bce", "asl")


@pytest.fixture(scope="module")
def resplit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of texts, each of which stands there twice; a third of the labels have nothing to do with them."""
    folder = tmp_path_factory.mktemp("resplit")
    rows, chance = write_texts(folder / "texts.jsonl", 100), random.Random(0)
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    for line in lines[::3]:
        line["labels"] = [label for label in ("sport", "music", "food") if chance.random() < 0.4]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines) * 2)
    line = [
        "compare",
        str(rows),
        "--losses",
        ",".join(LOSSES),
        "--resplit",
        "--seeds",
        "3",
        "--out",
        str(folder / "run"),
    ]
    assert main(line) == 0
    return folder / "run"


def run_of(comparison: Path, loss: str, seed: int) -> RunFolder:
    return ComparisonFolder.open(comparison).open_run(loss, seed)


@pytest.mark.slow
def test_values_are_those_of_the_rows_of_each_split(resplit: Path) -> None:
    results = read_results(resplit)
    values: dict[str, list[float]] = {loss: [] for loss in LOSSES}
    tests = []
    for seed in range(3):
        splits = load_quietly(run_of(resplit, "bce", seed).config)
        assert splits.test is not None
        parts = [{*part.inputs.keys()} for part in splits.parts().values()]
        assert not any(one & other for one, other in combinations(parts, 2)), "copies stay together"
        tests.append(parts[-1])
        for loss in LOSSES:
            judged = Judged.of(scores_of(run_of(resplit, loss, seed).path), splits.test.hard_targets())
            values[loss].append(METRICS["map"].value(Weighable(judged, None).summary()))
    assert tests[0] != tests[1] != tests[2]
    training = json.loads((run_of(resplit, "bce", 0).path / "training.json").read_text())["rows"]
    ratio = results["data"]["rows"]["test"] / training
    for loss in LOSSES:
        assert results["losses"][loss]["metrics"]["map"]["mean"] == pytest.approx(np.mean(values[loss]))
    error = np.sqrt((1 / 3 + ratio) * np.var(values["bce"], ddof=1))
    interval = results["losses"]["bce"]["metrics"]["map"]
    assert (interval["mean"] - interval["low"]) / error == pytest.approx(stats.t.ppf(0.975, 2)), "splits share rows"
    found, differences = results["comparisons"]["asl"], np.subtract(values["asl"], values["bce"])
    assert found["mean"] == pytest.approx(differences.mean())
    assert found["standard_error"] == pytest.approx(np.sqrt((1 / 3 + ratio) * differences.var(ddof=1)))
    assert found["freedom"] == 2


@pytest.mark.slow
def test_a_run_of_a_later_split_is_a_run(resplit: Path, folder: Path) -> None:
    run = run_of(resplit, "asl", 2)
    assert main(["evaluate", str(run.path)]) == 0, "on its own test rows"
    test = load_quietly(run.config).test
    assert test is not None
    assert json.loads((run.path / "results.json").read_text())["rows"] == len(test)
    assert main(["predict", str(run.path), str(resplit.parent / "texts.jsonl"), "--out", "out.jsonl"]) == 0
    assert len((folder / "out.jsonl").read_text().splitlines()) == 200
    assert main(["fit", "--like", str(resplit), "--loss", "asl", "--out", "fitted"]) == 0
    assert json.loads((folder / "fitted/training.json").read_text())["rows"] == 200
    history = RunFolder.open(folder / "fitted").read_history()
    named = read_results(resplit)["losses"]["asl"]["l2"]
    assert [epoch.l2 for epoch in history] == [named], "with the penalty that the answer names, however many the rows"
    rule_from = RunFolder.open(folder / "fitted").config.rule_from
    assert rule_from is not None
    assert RunFolder.open(rule_from).chosen_penalty() == named, "thresholds are those of scores by that penalty"


@pytest.mark.slow
def test_what_is_shown_of_one_split_says_so(resplit: Path) -> None:
    results, details = read_results(resplit), json.loads((resplit / "details.json").read_text())
    assert results["resplit"]
    (note,) = (note for note in results["notes"] if note.startswith("3 splits: "))
    assert note.startswith("3 splits: the rows alone vary, and"), "a solved model has neither order nor initial weights"
    assert note.endswith("Labels, rows and curves are those of the first split.")
    chosen = [run_of(resplit, "bce", seed).chosen_penalty() for seed in range(3)]
    assert results["losses"]["bce"]["l2"] == sorted(chosen)[1]
    assert any("chosen anew on each split: the median is named" in note for note in results["notes"])
    test = load_quietly(run_of(resplit, "bce", 0).config).test
    assert test is not None
    counts = dict(zip(test.label_names, test.hard_counts().tolist(), strict=True))
    shown = details["labels"]
    assert dict(zip(shown["names"], shown["test_positives"], strict=True)) == counts
    page = (resplit / "report.html").read_text()
    assert "On the test rows of the first split" in page
    assert "over seeds" not in page
    assert f"Thresholds are tuned on {results['tuned_on']}." in page
    linear = results["baselines"]["linear"]["metrics"]["map"]
    gap = results["to_linear"]["bce"]["mean"]
    assert gap == pytest.approx(results["losses"]["bce"]["metrics"]["map"]["mean"] - linear), "one for each split, too"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--test", "other.jsonl"], "--resplit splits off test rows of its own for each seed, and --test names a file"),
        (["--seeds", "1"], "ask for two --seeds or more"),
    ],
)
def test_what_does_not_suit_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    write_texts(folder / "texts.jsonl", 40)
    assert main(["compare", "texts.jsonl", "--resplit", *more]) == 2
    assert message in capsys.readouterr().err
