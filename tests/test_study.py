"""The study of losses measures each piece once, and its pages are those of what was measured."""

import csv
import doctest
import json
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lopsided.jobs.schema import Results, read_file

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "studies/which_loss")
    import study

    return study


def write_texts(path: Path) -> None:
    """Texts that give their labels away, half of the time."""
    draw = random.Random(0)
    with path.open("w") as file:
        for row in range(120):
            labels = draw.sample("abcd", draw.choice([1, 1, 2]))
            words = [f"{label}{draw.randrange(3)}" if draw.random() < 0.5 else "x" for label in labels]
            file.write(json.dumps({"text": " ".join([*words, f"n{row}"]), "labels": labels}) + "\n")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_piece_is_measured_once(study: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(folder / "tiny.jsonl")
    monkeypatch.setattr(study, "SETS", {"tiny": None})
    monkeypatch.setattr(study, "ENCODED", {})
    monkeypatch.setattr(study, "SPLITS", 2)
    monkeypatch.setattr(study, "FAMILIES", {"losses": ("bce", "asl"), "ranking": ("lsep", "two_way")})
    monkeypatch.setitem(study.FAMILIES, "fixed", ("bce", "asl"))
    monkeypatch.setattr(study, "GIVEN", {"fixed": {"model": "ngrams(hidden=8)", "epochs": 2, "learning_rate": 0.01}})
    monkeypatch.setattr(study, "settings_of", lambda *_: {"data": str(folder / "tiny.jsonl")})
    line = [str(folder), "--results", str(folder), "--runs", str(folder / "runs"), "--pieces"]
    study.main([*line, "losses-tiny-40"])
    (folder / "pieces.csv").unlink()  # as a kill between the two files leaves them
    study.main([*line, "fixed,ranking-tiny-0,losses-tiny-40"])
    found = rows(folder / "results.csv")
    assert [row["family"] for row in rows(folder / "pieces.csv")] == ["losses", "ranking", "fixed"], "in their order"
    given = [(row["loss"], row["split"]) for row in found if (row["family"], row["labels"]) == ("fixed", "all")]
    assert sorted(given) == [("asl", "0"), ("asl", "1"), ("bce", "0"), ("bce", "1"), ("linear", "0"), ("shares", "0")]
    found = [row for row in found if row["family"] != "fixed"]
    whole = [(row["loss"], row["split"]) for row in found if row["labels"] == "all"]
    assert sorted(whole) == [(loss, split) for loss in sorted({loss for loss, _ in whole}) for split in "01"], "once"
    assert {loss for loss, _ in whole} == {"bce", "asl", "lsep", "two_way", "linear", "shares"}

    results = read_file(folder / "runs/losses-tiny-40/results.json", Results, "")
    assert results.data.missing == 0.4
    for name, interval in results.losses["asl"].metrics.items():
        values = [float(row[name]) for row in found if (row["loss"], row["labels"]) == ("asl", "all")]
        assert sum(values) / 2 == pytest.approx(interval.mean, abs=1e-5), name
    of_ranking: list[dict[str, Any]] = [row for row in found if row["loss"] == "lsep" and row["labels"] == "all"]
    assert all(float(row["one_error"]) == pytest.approx(1 - float(row["p@1"])) for row in of_ranking)
    assert all(row["micro_f1_own"] == "" != row["micro_f1"] for row in of_ranking), "it has no threshold of its own"


def test_a_piece_that_fails_does_not_stop_the_others(
    study: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(piece: Any, *_: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        if piece.family == "ranking":
            raise ValueError("no number")
        return [piece.key | {"map": "0.5"}], piece.key | {"CPU s": "1"}

    monkeypatch.setattr(study, "measure", measure)
    monkeypatch.setattr(study, "settings_of", lambda *_: {})
    line = [str(folder), "--results", str(folder), "--runs", str(folder), "--pieces"]
    with pytest.raises(SystemExit, match="1"):
        study.main([*line, "ranking-nlupp-0,losses-nlupp-0"])
    assert "ranking-nlupp-0: failed: no number" in capsys.readouterr().out
    assert [row["family"] for row in rows(folder / "results.csv")] == ["losses"]


def made(ahead: dict[str, float]) -> list[dict[str, str]]:
    """Lines of five splits of four sets, on which losses are ahead of bce by so much in every metric."""
    draw = random.Random(1)
    lines = []
    for number, name in enumerate(("mulan_medical", "mulan_emotions", "mulan_enron", "nlupp")):
        for split in range(5):
            base = 0.4 + draw.gauss(0, 0.05)
            for loss, gain in ({"bce": 0.0} | ahead).items():
                value = base + (gain * (1 + 0.1 * number) + draw.gauss(0, 0.002) if loss != "bce" else 0.0)
                cells = dict.fromkeys(MADE, f"{value:.5f}")
                key = {"family": "losses", "set": name, "hidden": "0", "split": str(split), "loss": loss}
                lines += [{**key, "labels": labels, **cells} for labels in ("all", "rare", "middling", "frequent")]
    return lines


def test_the_window_of_thresholds(study: ModuleType) -> None:
    import numpy as np
    from sklearn.metrics import f1_score

    from lopsided.metrics.scores import Judged

    draw = np.random.default_rng(0)
    probability, truth = draw.random((200, 4)), draw.random((200, 4)) < 0.3
    best = study.best_in_window(Judged.of(np.log(probability / (1 - probability)).astype(np.float32), truth))
    values = {
        threshold: f1_score(truth, probability > threshold, average="micro") for threshold in np.linspace(0.4, 0.6, 21)
    }
    found = 1 / (1 + np.exp(-best))
    assert f1_score(truth, probability > found, average="micro") == pytest.approx(max(values.values()), abs=1e-3)
    assert 0.4 - 1e-6 < found < 0.6 + 1e-6


MADE = ("map", *(f"{f1}_f1{end}" for f1 in ("micro", "macro") for end in ("_own", "", "_labels")))


def test_what_is_planted_is_shown(study: ModuleType) -> None:
    import measured
    import numpy as np
    import pages
    from measured import Measured
    from scipy import stats

    assert doctest.testmod(measured).failed == 0

    lines = made({"asl": 0.03, "focal": 0.0, "zlpr": -0.03})
    facts = {"family": "losses", "hidden": "0", "test rows per training row": "0.25", "labels": "50", "solved": "1"}
    data = [
        {**facts, "set": name, "training rows": "900", "positives a row": "2", "median positives of a label": "9"}
        for name in dict.fromkeys(line["set"] for line in lines)
    ]
    found = Measured(lines, data)
    gains = found.gains(("bce", "focal", "asl", "zlpr"), "map")
    assert [loss for loss, gain in gains.items() if gain.is_shown] == ["asl", "zlpr"]
    assert (gains["asl"].better, gains["asl"].worse, gains["zlpr"].worse) == (4, 0, 4)

    means = np.array([np.mean([float(r["map"]) for r in lines if key(r) == (s["set"], "asl", "all")]) for s in data])
    base = np.array([np.mean([float(r["map"]) for r in lines if key(r) == (s["set"], "bce", "all")]) for s in data])
    error = (means - base).std(ddof=1) / 2  # of four sets; it is more than that of the single ones
    assert gains["asl"].mean == pytest.approx((means - base).mean())
    assert gains["asl"].high - gains["asl"].mean == pytest.approx(stats.t.ppf(0.975, 3) * error)

    table = pages.decisions(found)
    assert "| you rank labels or rows (mAP) | **asl** | asl +.03" in table
    assert "| 20 % of the positives are missing (mAP) | not measured | 0 sets |" in table
    without = Measured([line for line in lines if line["loss"] != "asl"], data)
    assert "| you rank labels or rows (mAP) | bce | " in pages.decisions(without), "focal is not shown to be better"
    assert "shown to be behind: zlpr by" in pages.answers(without)


def key(row: dict[str, str]) -> tuple[str, str, str]:
    return row["set"], row["loss"], row["labels"]


@pytest.mark.slow
def test_pages_are_those_of_the_files(study: ModuleType) -> None:
    import pages

    for path, text in pages.texts(pages.load()).items():
        assert path.read_text() == text, f"{path.name} is stale: run python studies/which_loss/pages.py"


@pytest.mark.slow
def test_plots_are_those_of_the_files(study: ModuleType) -> None:
    import matplotlib as mpl
    import pages
    import plots

    for path, text in plots.plots(pages.load()).items():
        first, _, rest = path.read_text().partition("\n")
        if mpl.__version__ not in first:
            pytest.skip("drawn by another version of matplotlib")
        assert rest == text.partition("\n")[2], f"{path.name} is stale: run python studies/which_loss/pages.py"
