"""The benchmark runs, and the tables of the documentation are those of the measured file."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lopsided.compute.native import run as native

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif(isinstance(native.library(), str), reason=f"no C library: {native.library()}")
def test_runs_and_times_only_what_is_right(tmp_path: Path) -> None:
    path = tmp_path / "cpu.csv"
    options = ["--quick", "--seconds", "0.1", "--threads", "1", "--cases", "256x80 float32", "--out", str(path)]
    subprocess.run([sys.executable, ROOT / "benchmarks/run.py", *options], check=True, capture_output=True)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    contenders = {row["contender"]: row for row in rows if row["case"] == "256x80 float32 float"}
    assert {"limit", "torch bce", "asl native", "asl streamed", "asl eager", "asl published"} <= set(contenders)
    for name, row in contenders.items():
        assert float(row["microseconds"]) > 0, f"{name}: {row['microseconds']}"
        assert row["torch"]
        assert row["commit"]
    assert contenders["torch bce"]["ratio to torch bce"] == "1.0"


@pytest.mark.slow
@pytest.mark.skipif(isinstance(native.library(), str), reason=f"no C library: {native.library()}")
def test_small_batches_are_right_whatever_is_said_of_the_labels(tmp_path: Path) -> None:
    path = tmp_path / "small.csv"
    options = ["--seconds", "0.1", "--out", str(path)]
    subprocess.run([sys.executable, ROOT / "benchmarks/small_batches.py", *options], check=True, capture_output=True)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"sparse targets", "mask", "weight", "NaN"} <= {row["said"] for row in rows if row["loss"] == "bp_mll"}
    assert all(float(row["microseconds"]) > 0 for row in rows)


@pytest.mark.slow
def test_the_gpu_benchmark_runs_and_says_where_it_did_not(tmp_path: Path) -> None:
    """On the CPU only to see that it runs."""
    script = ROOT / "benchmarks/gpu.py"
    options = ["--device", "cpu", "--quick", "--shapes", "4x20", "--heads", "50", "--seconds", "0.1"]
    subprocess.run([sys.executable, script, *options, "--out", tmp_path], check=True, capture_output=True)
    for name, limit in (("gpu.csv", "share of limit"), ("gpu_linear.csv", "ratio")):
        with (tmp_path / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {"asl", "zlpr"} <= {row["contender"].split()[0] for row in rows}
        assert all(float(row["milliseconds"]) > 0 and row[limit] and row["commit"] for row in rows)
    if not torch.cuda.is_available():
        result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
        assert result.returncode == 1
        assert "needs a GPU, and torch sees none: nothing was measured" in result.stderr


def test_tables_are_those_of_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import decisions
    import diagnostics
    import end_to_end
    import memory
    import missing
    import real_data
    import significance
    import split
    import tables
    import text_models
    import verdicts

    assert decisions.PAGE.read_text() == decisions.page(), "stale: run python benchmarks/decisions.py --tables"
    assert diagnostics.PAGE.read_text() == diagnostics.page(), "stale: run python benchmarks/diagnostics.py"
    assert end_to_end.PAGE.read_text() == end_to_end.page(), "stale: run python benchmarks/end_to_end.py --page"
    assert memory.PAGE.read_text() == memory.page(), "stale: run python benchmarks/memory.py --page"
    assert missing.PAGE.read_text() == missing.page(), "stale: run python benchmarks/missing.py --page"
    assert real_data.PAGE.read_text() == real_data.page(), "stale: run python benchmarks/real_data.py --page"
    assert significance.PAGE.read_text() == significance.page(), "stale: run python benchmarks/significance.py"
    assert split.PAGE.read_text() == split.page(), "stale: run python benchmarks/split.py --tables"
    assert verdicts.PAGE.read_text() == verdicts.page(), "stale: run python benchmarks/verdicts.py --page"
    assert text_models.PAGE.read_text() == text_models.page(), "stale: run python benchmarks/text_models.py --page"
    for path, text in tables.pages().items():
        assert path.read_text() == text, f"{path.name} is stale: run python benchmarks/tables.py"


def test_weights_in_bfloat16_cost_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import tables

    rows = tables.read("weights.csv")
    added = [float(value) for row in rows for name, value in row.items() if name.endswith(" by bf16") and value]
    assert "at a cost\nbelow a tenth of a point" in (ROOT / "docs/speed.md").read_text()
    assert max(map(abs, added)) < 0.1


def test_ratios_are_of_the_rows_that_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import end_to_end

    took = ("8", "4", "2", "3", "1"), ("4", "4", "6", "3", "2"), ("2", "8", "4", "6", "1")
    names = ("lopsided bce", "lopsided asl", "omikuji")
    rows = [
        {"set": "bibtex", "contender": name, **dict(zip(end_to_end.RATIOS, each, strict=True))}
        for name, each in zip(names, took, strict=True)
    ]
    line = end_to_end.ratios(rows).splitlines()[2:]
    expected = "| bibtex | lopsided, with the search | omikuji | 2.0 to 4.0 | 0.5 | 0.5 to 1.5 | 0.5 | 1.0 to 2.0 |"
    assert line == [expected], "and none for peers that were not measured"


def test_on_reuters_the_loss_of_linear_svc_is_ahead_of_the_five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import end_to_end
    import tables

    rows = [row for row in tables.read("end_to_end.csv") if row["set"] == "reuters21578"]
    found = {row["contender"].removeprefix("lopsided "): float(row["mAP"]) for row in rows}
    best = max(found[loss + more] for loss in end_to_end.LOSSES for more in ("", end_to_end.ONE))
    assert found["squared_hinge"] >= found["LinearSVC"] > best, "as docs/speed.md says"


def test_the_page_on_real_data_tells_what_is_behind_a_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import real_data

    row = {"set": "nlupp", "command": "fit --like"}
    for title, value, error in zip(real_data.METRICS, (0.855, 0.795, 0.85), (0.01, 0.005, 0.01), strict=False):
        row |= {title: f"{value}", f"SE of {title}": f"{error}"}
    start = "Behind the linear baseline by more than one standard error: "
    assert real_data.behind([row]) == start + "nlupp in mAP (.855, .866 of the baseline)."
    assert real_data.behind([row | {"mAP": "0.857"}]) == start + "none, in any metric."
