"""details.json, the pages made of it, and `lopsided report`: no browser is needed here."""

import html.parser
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from lopsided.__main__ import main
from lopsided.data.dataset import Splits
from lopsided.data.storage import write_json
from lopsided.jobs.compare_config import make_config
from lopsided.jobs.details import POINTS
from lopsided.jobs.folder import ComparisonFolder
from lopsided.jobs.schema import Results
from lopsided.losses import CATALOG
from lopsided.metrics.friedman import rank_losses
from lopsided.models.heads import dense_targets
from lopsided.models.methods import parse_method
from lopsided.report.headline import answer, findings, headline, ranks_headline
from lopsided.report.html import write_report
from lopsided.report.methods import methods
from tests.tools import load_quietly, read_results, scores_of, write_texts

LIMIT = 3_000_000  # bytes of a report


def stored_results(run: Path) -> Results:
    return ComparisonFolder.open(run).read_results()


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    test = splits_of_600().test
    assert test is not None
    targets: np.ndarray = dense_targets(test.targets, test.num_labels).numpy()
    return targets


def splits_of_600() -> Splits:
    return load_quietly(make_config({"images": 600}))


def scores(run: Path, loss: str, seed: int) -> np.ndarray:
    (path,) = (run / "runs").glob(f"?-{loss}-seed{seed}")
    loaded: np.ndarray = scores_of(path).numpy()
    return loaded


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.external: list[str] = []
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        for name, value in attrs:
            inside = (value or "").startswith(("#", "data:image/png;base64,"))
            if name in ("src", "href", "xlink:href", "srcset", "action", "poster") and not inside:
                self.external.append(f"{tag} {name}={value}")


def test_the_report_is_self_contained(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.external == []
    assert not {"link", "iframe", "object", "base", "form"} & set(tags.found)
    assert tags.found.count("script") == 1
    assert "url(http" not in page
    assert "@import" not in page
    assert tags.found.count("img") == 12
    for sentence in findings(stored_results(finished)):
        assert sentence in page


def test_the_order_is_the_verdict_first(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert f"<h1>{answer(stored_results(finished))}</h1>" in page
    ids = re.findall(r'<section id="([\w-]+)"', page)
    assert ids == ["results", "where", "training", "decisions", "calibration", "labels", "rows", "settings", "methods"]
    assert page.index("<h1>") < page.index("<section")


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["bce", "asl", "zlpr"])
def test_the_label_table_is_that_of_the_scores(finished: Path, truth: np.ndarray, loss: str) -> None:
    labels = read(finished / "details.json")["labels"]
    train = splits_of_600().train
    columns = [train.label_names.index(name) for name in labels["names"]]
    assert sorted(columns) == list(range(90))
    assert labels["test_positives"] == truth.sum(0)[columns].tolist() == sorted(truth.sum(0), reverse=True)
    assert labels["train_positives"] == train.hard_counts()[columns].tolist()
    tuned = read_results(finished)["losses"][loss]["tuned_thresholds"]
    for place, column in enumerate(columns):
        y = truth[:, column]
        seeds = [scores(finished, loss, seed)[:, column] for seed in (0, 1)]
        precision, f1 = labels["average_precision"][loss][place], labels["f1"][loss][place]
        if y.any():
            assert precision == pytest.approx(np.mean([average_precision_score(y, s) for s in seeds]), abs=1e-5)
            decided = [f1_score(y, s > t, zero_division=0) for s, t in zip(seeds, tuned, strict=True)]
            assert f1 == pytest.approx(np.mean(decided), abs=1e-5)
        else:
            assert precision is None


def test_the_curves_are_those_of_the_scores(finished: Path, truth: np.ndarray) -> None:
    curve = read(finished / "details.json")["curves"]["asl"]
    values = scores(finished, "asl", 0)
    assert curve["seed"] == 0
    assert POINTS * 0.9 < len(curve["threshold"]) <= POINTS
    assert curve["recall"][0] == 1
    assert np.diff(curve["recall"]).max() < 0
    positives = np.sort(values[truth])
    present = truth.any(0)
    for place in range(0, len(curve["threshold"]), 20):
        lowest = positives[round((1 - curve["recall"][place]) * len(positives))]
        assert curve["threshold"][place] == pytest.approx(lowest, abs=1e-5)
        decided = values >= lowest
        assert curve["precision"][place] == pytest.approx(precision_score(truth, decided, average="micro"), abs=1e-5)
        assert curve["recall"][place] == pytest.approx(recall_score(truth, decided, average="micro"), abs=1e-5)
        assert curve["micro_f1"][place] == pytest.approx(f1_score(truth, decided, average="micro"), abs=1e-5)
        macro = f1_score(truth[:, present], decided[:, present], average="macro", zero_division=0)
        assert curve["macro_f1"][place] == pytest.approx(macro, abs=1e-5)


def test_calibration_before_and_after(finished: Path, truth: np.ndarray) -> None:
    found = read(finished / "details.json")["reliability"]
    p = 1 / (1 + np.exp(-scores(finished, "asl", 0).astype(float)))
    bins = np.clip(np.ceil(p * 15), 1, 15)
    gaps = [abs(p[bins == b].mean() - truth[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    assert found["asl"]["logit"]["calibration_error"] == pytest.approx(sum(gaps))
    assert set(found["zlpr"]) == {"logit", "fitted"}, "zlpr implies no probability of a label"
    for readings in found.values():
        assert readings["fitted"]["calibration_error"] < readings["logit"]["calibration_error"]


@pytest.mark.slow
def test_the_best_and_the_worst_rows(finished: Path, truth: np.ndarray) -> None:
    rows, results = read(finished / "details.json")["rows"], read_results(finished)
    means = {loss: entry["metrics"]["map"]["mean"] for loss, entry in results["losses"].items()}
    assert rows["loss"] == max(means, key=lambda loss: means[loss])
    decided = scores(finished, rows["loss"], 0) > results["losses"][rows["loss"]]["tuned_thresholds"][0]
    f1 = np.sort([f1_score(y, d, zero_division=1.0) for y, d in zip(truth, decided, strict=True)])
    assert [row["f1"][rows["loss"]] for row in rows["worst"]] == pytest.approx(f1[:6].tolist(), abs=1e-3)
    assert [row["f1"][rows["loss"]] for row in rows["best"]] == pytest.approx(f1[:-7:-1].tolist(), abs=1e-3)
    names = splits_of_600().train.label_names
    for row in rows["best"] + rows["worst"]:
        true = {names[label] for label in truth[row["row"] - 1].nonzero()[0]}
        assert set(row["right"]) | set(row["missed"]) == true
        assert not set(row["wrong"]) & true
        assert row["png"].startswith("iVBORw0KGgo"), "a PNG in base 64"


@pytest.mark.slow
def test_what_was_tuned_is_told(finished: Path, folder: Path) -> None:
    shutil.copytree(finished, folder / "run", ignore=shutil.ignore_patterns("runs"))
    results = read_results(finished)
    results["losses"]["asl"]["tuned_settings"] = {"gamma_neg": 3.25, "learning_rate": 0.0125}
    write_json(folder / "run/results.json", results)
    page = write_report(folder / "run").read_text()
    assert "tuned: gamma neg 3.25, learning rate 0.0125" in page
    assert "gamma neg 3.25, learning rate 0.0125 for asl" in methods(stored_results(folder / "run"))


@pytest.mark.parametrize("loss", [*CATALOG, "powerset(max_sets=9)"])
def test_every_loss_is_found_again_by_its_settings(loss: str) -> None:
    method = parse_method(loss)
    assert parse_method(str(method)) == method


@pytest.mark.slow
def test_a_report_is_written_where_everything_diverged(folder: Path) -> None:
    huge = "apl(epsilon_pos=1e300, monotone=False)", "apl(epsilon_pos=1e301, monotone=False)"
    options = ["--images", "60", "--epochs", "1", "--seeds", "1", "--losses", ",".join(huge)]
    assert main(["compare", *options, "--out", "run"]) == 0
    assert read(folder / "run/details.json")["curves"] == {}
    page = (folder / "run/report.html").read_text()
    assert f"Nothing can be said in mAP: {huge[0]} has none, see the notes; take another reference." in page


@pytest.mark.slow
def test_a_report_is_rewritten_from_the_files_alone(finished: Path, folder: Path) -> None:
    shutil.copytree(finished, folder / "run", ignore=shutil.ignore_patterns("runs", "report.html"))
    assert main(["report", "run"]) == 0
    page = (folder / "run/report.html").read_text()
    for before, after in (("fit --like ", " "), ("compare ", "/config.json")):  # of the command that is told
        page = page.replace(f"{before}run{after}", f"{before}{finished}{after}")
    assert page == (finished / "report.html").read_text()
    assert main(["report", "run", "--out", "elsewhere/page.html"]) == 0
    assert (folder / "elsewhere/page.html").exists()


@pytest.mark.slow
def test_a_file_whose_name_is_no_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_texts(folder / "name\udcff.jsonl", 60)
    options = ["--epochs", "1", "--seeds", "1", "--losses", "bce,asl", "--out", "run"]
    assert main(["compare", "name\udcff.jsonl", *options]) == 0
    assert "name?.jsonl: 3 labels" in capsys.readouterr().out
    assert "<bdi>name?.jsonl</bdi>" in (folder / "run/report.html").read_text()


@pytest.mark.slow
def test_files_of_one_name_are_two_data_sets(texts: Path, folder: Path) -> None:
    for place in ("here", "there"):
        shutil.copytree(texts, folder / place / "run", ignore=shutil.ignore_patterns("runs"))
        config = read(texts / "config.json")
        config["config"]["data"] = f"/{place}/texts.jsonl"
        write_json(folder / place / "run/config.json", config)
    assert main(["report", "here/run", "there/run"]) == 0
    page = (folder / "report.html").read_text()
    for place in ("here", "there"):
        assert page.count(f"<bdi>texts.jsonl ({place}/run)</bdi>") == 3


def test_runs_of_several_data_sets_are_merged(finished: Path, texts: Path, folder: Path) -> None:
    assert main(["report", str(finished), str(texts)]) == 0
    page = (folder / "report.html").read_text()
    losses = ("bce", "asl", "zlpr")
    values = [
        [read_results(run)["losses"][loss]["metrics"]["map"]["mean"] for loss in losses] for run in (finished, texts)
    ]
    ranks = rank_losses(values, losses)
    body = re.search(r'<section id="results">.*?</table>', page, re.DOTALL)
    assert body is not None
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", line) for line in re.findall(r"<tr>.*?</tr>", body[0], re.DOTALL)]
    assert [[float(cell.split(" ±")[0]) for cell in row] for row in cells[1:3]] == [
        [round(value, 3) for value in row] for row in values
    ]
    assert [float(cell) for cell in cells[3]] == [
        round(ranks.mean_ranks[ranks.losses.index(loss)], 2) for loss in losses
    ]
    assert f"<h1>{ranks_headline(ranks, 'map')}.</h1>" in page
    assert f"CD = {ranks.critical_difference:.2f}" in page
    assert headline(stored_results(texts)) in page


def test_what_is_no_comparison_is_told_with_what_to_do(
    finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "v").mkdir()
    (folder / "v/report.html").touch()
    for name, told in (
        (f"{finished}/runs/0-bce-seed0", f"; name the comparison that it is a part of, {finished}\n"),
        ("v", "v: a verdict on scores, not a run folder; its report is v/report.html\n"),
        ("gone", "gone: not a run folder: name one that lopsided compare, or lopsided fit, has printed\n"),
    ):
        assert main(["report", str(finished), name]) == 2
        assert capsys.readouterr().err.endswith(told)


@pytest.mark.slow
def test_captions_explain_what_the_page_has(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of scores alone, without validation rows: no threshold is tuned, and no map fitted."""
    truth = np.eye(4)[np.arange(40) % 4]
    np.save("y.npy", truth)
    for name in ("bce", "mine"):
        np.save(f"{name}.npy", 4 * truth - 2)
    assert main(["verdict", "--truth", "y.npy", "bce.npy", "mine.npy", "--out", "v"]) == 0
    page = " ".join((folder / "v/report.html").read_text().split())
    printed = " ".join(capsys.readouterr().out.split())
    for text in (page, printed):
        assert "wn: the threshold that the loss implies. Macro-F1 is" in text
    for absent in (
        "the one with",
        "tuned threshold",
        "Platt",
        "Dashed",
        "Holm&#39;s",
        "Holm's",
        "initial weights",
        ">after<",
    ):
        assert absent not in page
    assert "No test row has a wrong or a missed label." in page
    assert "Labels that gain and lose" not in page


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"losses": "bce,asl"}, "its losses: asl, bce, but"),
        ({"metric": "p@1"}, "its metric: p@1, but"),
        ({}, "are of the same data"),
    ],
)
def test_what_cannot_be_merged_is_told(
    finished: Path, folder: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], told: str
) -> None:
    shutil.copytree(finished, folder / "other")
    results = read_results(finished)
    results["metric"] = settings.get("metric", "map")
    if "losses" in settings:
        results["losses"] = {loss: results["losses"][loss] for loss in ("bce", "asl")}
    write_json(folder / "other/results.json", results)
    assert main(["report", str(finished), "other"]) != 0
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_a_loss_that_diverged_cannot_be_ranked(
    finished: Path, texts: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(texts, folder / "other")
    results = read_results(texts)
    results["losses"]["asl"]["metrics"]["map"]["mean"] = None
    write_json(folder / "other/results.json", results)
    assert main(["report", str(finished), "other"]) != 0
    assert "mAP cannot be ranked: asl has the value nan on data set 2 of 2" in capsys.readouterr().err


def test_an_unfinished_run_is_told(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished, folder / "run", ignore=shutil.ignore_patterns("results.json", "runs"))
    assert main(["report", "run"]) != 0
    assert "run: not finished; go on with: lopsided compare run" in capsys.readouterr().err
    assert main(["report", str(folder)]) != 0
    assert "not a run folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["results.json", "details.json", "history.csv"])
def test_a_damaged_file_is_named(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    shutil.copytree(finished, folder / "run", ignore=shutil.ignore_patterns("runs"))
    whole = (folder / "run" / name).read_text()
    for content in (whole[: len(whole) // 2] + ",x", "[]" if name.endswith("json") else "a,b\n1,2\n"):
        (folder / "run" / name).write_text(content)
        assert main(["report", "run"]) != 0
        assert f"run/{name}: damaged (" in capsys.readouterr().err


def test_a_history_of_other_losses_is_refused(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished, folder / "run")
    path = folder / "run/history.csv"
    path.write_text(path.read_text().replace("\nasl,", "\napl,"))
    assert main(["report", "run"]) == 2
    assert "history.csv: damaged (its losses are bce, apl, zlpr; those of results.json" in capsys.readouterr().err
