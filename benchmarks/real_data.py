"""How `lopsided fit` with its default settings does on real data, beside a linear baseline.

    OMP_NUM_THREADS=1 python benchmarks/real_data.py ../shared/data && python benchmarks/real_data.py --page

The folder has a folder for each set of docs/real_data.md. A run takes seconds to minutes; what stands in the file of
results is not run again. The second command writes the table of docs/real_data.md from that file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from run import environment as facts
from run import write
from tables import RESULTS, ROOT, Row, environment, grid, put, read

PAGE = ROOT / "docs/real_data.md"
FILE = RESULTS / "real_data.csv"
LOSSES = ("bce", "asl")
# Test mAP of one-vs-rest logistic regression of scikit-learn 1.9.1 and its bootstrap standard error over test rows,
# None where it was not computed. Source: the README of the data folder, section "Baselines".
BASELINES: dict[str, tuple[float, float | None]] = {
    "goemotions": (0.419, 0.013),
    "nlupp": (0.866, 0.010),
    "reuters21578": (0.689, None),
    "mulan_yeast": (0.456, 0.010),
    "mulan_scene": (0.744, 0.012),
    "mulan_emotions": (0.704, None),
    "mulan_enron": (0.267, None),
    "mulan_medical": (0.489, None),
    "xmc_bibtex": (0.387, 0.006),
    "voc2007test_32": (0.281, None),
    "redocred": (0.145, None),
}


def join_nlupp(folder: Path, made: Path) -> list[str]:
    paths = []
    for name, folds in (("train", range(14)), ("test", range(14, 20))):
        files = [folder / domain / f"fold{fold}.json" for domain in ("banking", "hotels") for fold in folds]
        rows = [row for file in files for row in json.loads(file.read_text())]
        lines = [json.dumps({"text": row["text"], "labels": row.get("intents", [])}) for row in rows]
        paths.append(made / f"{name}.jsonl")
        paths[-1].write_text("\n".join(lines) + "\n")
    return [str(paths[0]), "--test", str(paths[1])]


def split_voc(folder: Path, made: Path) -> list[str]:
    arrays = np.load(folder / "voc2007test_32.npz")
    shares = [int(hashlib.md5(name.encode()).hexdigest(), 16) / 2**128 for name in arrays["ids"].tolist()]
    train = np.array(shares) < 0.6
    for name, rows in (("train", train), ("test", ~train)):
        parts = {key: arrays[key][rows] for key in ("images", "labels", "difficult")}
        np.savez(made / f"{name}.npz", classes=arrays["classes"], **parts)
    return [str(made / "train.npz"), "--test", str(made / "test.npz"), "--unknown-array", "difficult"]


def arguments(name: str, folder: Path, made: Path) -> list[str]:
    """The data arguments of `lopsided fit`; files that have to be made are written to `made`."""
    if name == "nlupp":
        return join_nlupp(folder, made)
    if name == "voc2007test_32":
        return split_voc(folder, made)
    short = name.removeprefix("mulan_")
    train, test = {
        "goemotions": ("train.tsv", "test.tsv"),
        "reuters21578": ("train.jsonl", "test.jsonl"),
        "xmc_bibtex": ("bibtex_train.txt", "bibtex_test.txt"),
        "redocred": ("dev_revised.json", "test_revised.json"),
    }.get(name, (f"{short}-train.arff", f"{short}-test.arff"))
    line = [str(folder / train), "--test", str(folder / test)]
    if name == "goemotions":
        line += ["--column-names", "text,labels,id", "--labels-file", str(folder / "labels.txt")]
        line += ["--valid", str(folder / "dev.tsv")]
    return line


def measure(name: str, loss: str, folder: Path) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as made:
        line = ["fit", *arguments(name, folder, Path(made)), "--loss", loss, "--out", f"{made}/run"]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "lopsided", *line], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        results = json.loads(Path(made, "run/results.json").read_text())
    decisions, (baseline, error) = results["decisions"], BASELINES[name]
    scores = {"mAP": results["model"]["map"], "micro-F1": decisions["micro_f1"], "macro-F1": decisions["macro_f1"]}
    return {
        "set": name,
        "loss": loss,
        **{metric: f"{value:.3f}" for metric, value in scores.items()},
        "rule": results["rule"],
        "seconds": f"{seconds:.0f}",
        "baseline mAP": f"{baseline:.3f}",
        "baseline SE": "" if error is None else f"{error:.3f}",
    }


def measure_all(data: Path, names: list[str]) -> None:
    """Goes on with the sets that are not in the file; what it says of machine and commit is that of the last call."""
    known = read(FILE.name) if FILE.exists() else []
    columns = facts()  # which `write` adds
    rows = [{name: value for name, value in row.items() if name not in columns} for row in known]
    for name in names:
        for loss in LOSSES:
            if (name, loss) not in {(row["set"], row["loss"]) for row in rows}:
                rows.append(measure(name, loss, data / name))
                write(FILE, rows)


def table(rows: list[Row]) -> str:
    names = ["set", "loss", "mAP", "baseline mAP", "baseline SE", "micro-F1", "macro-F1", "rule", "seconds"]
    missing = [name for name in BASELINES if name not in {row["set"] for row in rows}]
    note = f"\n\nNot measured: {', '.join(missing)}." if missing else ""
    return f"{grid(names, [[row[name] for name in names] for row in rows])}{note}"


def page() -> str:
    rows = read(FILE.name)
    return put(PAGE, {"real data": f"{table(rows)}\n\n{environment(rows, 'real_data.py')}"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the sets")
    parser.add_argument("--sets", default=",".join(BASELINES), help="names of sets, joined with commas")
    parser.add_argument("--page", action="store_true", help="write the table of docs/real_data.md")
    options = parser.parse_args()
    if options.page:
        PAGE.write_text(page())
    elif options.data is None:
        parser.error("the folder of the sets is missing")
    else:
        measure_all(options.data.resolve(), options.sets.split(","))
