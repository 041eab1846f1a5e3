"""The study of losses measures each piece once, and its pages are those of what was measured."""

import csv
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
    monkeypatch.setattr(study, "FAMILIES", {"losses": ("bce", "asl"), "ranking": ("lsep", "two_way"), "gamma": ()})
    monkeypatch.setattr(study, "settings_of", lambda *_: {"data": str(folder / "tiny.jsonl")})
    line = [str(folder), "--results", str(folder), "--runs", str(folder / "runs"), "--pieces"]
    study.main([*line, "losses-tiny-40"])
    study.main([*line, "ranking-tiny-0,losses-tiny-40"])
    found = rows(folder / "results.csv")
    assert [row["family"] for row in rows(folder / "pieces.csv")] == ["losses", "ranking"], "in their order"
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
