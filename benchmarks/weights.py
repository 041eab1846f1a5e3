"""What it costs to store the weights of a model that is solved in bfloat16: metrics and size against float32.

    python benchmarks/weights.py ../shared/data --work FOLDER && python benchmarks/tables.py

A model is trained by `lopsided fit --dtype fp32`, with the rule that is tuned then; its weights are rounded, and both
are evaluated on the same test rows. Trainings that FOLDER has already are not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import run
from end_to_end import SPARSE, TEXTS, make_data
from tables import RESULTS, read

from lopsided.jobs.folder import RunFolder

SETS = (*TEXTS, next(iter(SPARSE)))
LOSSES = ("bce", "asl")
METRICS = ("map", "p@1", "p@5", "psp@5", "micro_f1", "macro_f1", "sample_f1")


def lopsided(*line: str) -> None:
    subprocess.run([sys.executable, "-m", "lopsided", *line], check=True, stdout=subprocess.DEVNULL)


def trained(name: str, loss: str, data: Path, work: Path) -> RunFolder:
    """Returns the run of a set of data and a loss, in float32."""
    rows = work / name
    rows.mkdir(exist_ok=True, parents=True)
    if not any(rows.glob("train.*")):
        make_data(name, data, rows)
    (train,) = rows.glob("train.*")
    out = rows / f"{loss}-fp32"
    if not (out / "training.json").exists():
        lopsided("fit", str(train), "--loss", loss, "--dtype", "fp32", "--out", str(out))
    return RunFolder.open(out)


def rounded(folder: RunFolder) -> RunFolder:
    """Returns a copy of a run, of which the weights are rounded."""
    to = folder.path.with_name(folder.path.name.replace("fp32", "bf16"))
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder.path, to)
    copy = RunFolder.open(to)
    copy.write_model(copy.read_model().rounded("bf16"))
    return copy


def metrics(folder: RunFolder, test: Path) -> dict[str, float]:
    lopsided("evaluate", str(folder.path), str(test))
    found = json.loads((folder.path / f"results-{test.stem}.json").read_text())
    known = found["model"] | found["decisions"]
    return {name: 100 * known[name] for name in METRICS if known.get(name) is not None}


def measure(name: str, loss: str, data: Path, work: Path) -> dict[str, object]:
    wide = trained(name, loss, data, work)
    half = rounded(wide)
    (test,) = wide.path.parent.glob("test.*")
    before, after = metrics(wide, test), metrics(half, test)
    sizes = {
        f"{dtype} MB": round(
            sum((each.path / f"model.{end}").stat().st_size for end in ("json", "safetensors")) / 1e6, 2
        )
        for dtype, each in (("fp32", wide), ("bf16", half))
    }
    peers = [
        row for row in read("end_to_end.csv") if row["set"] == name and not row["contender"].startswith("lopsided")
    ]
    smallest = min(peers, key=lambda row: float(row["model MB"]))
    return {
        "set": name,
        "loss": loss,
        **sizes,
        "smallest peer": f"{smallest['contender']}, {smallest['model MB']} MB",
        **{name: round(value, 2) for name, value in before.items()},
        **{f"{name} by bf16": f"{after[name] - value:+.3f}" for name, value in before.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the sets")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--out", type=Path, default=RESULTS / "weights.csv")
    asked = parser.parse_args()
    run.environment()  # as it is before
    run.write(asked.out, [measure(name, loss, asked.data, asked.work) for name in SETS for loss in LOSSES])


if __name__ == "__main__":
    main()
