"""Measures the most memory that whole commands take.

    python benchmarks/memory.py compare && python benchmarks/memory.py predict

Texts are made: each has about 17 words of a vocabulary, most of them words of its labels, whose frequencies have a long
tail. `compare` is of 300,000 texts with 20,000 labels; `predict` of 100,000 and of 1,000,000 rows in each format.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain, cycle, islice
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet
from tables import Row

from lopsided.data.make_xmc import XmcMaker

LABELS, TEXTS = 20_000, 300_000  # of the comparison
FEW, PREDICTED = 100, (100_000, 1_000_000)


def make_texts(path: Path, labels: int, rows: int, part: int = 0) -> Path:
    blocks = XmcMaker(labels, 5 * labels).blocks(rows, part)
    next(blocks)  # the header
    with path.open("w") as file:
        for block in blocks:
            for line in block:
                names, *features = line.split(" ")
                text = " ".join(f"w{feature.partition(':')[0]}" for feature in features)
                file.write(json.dumps({"text": text, "labels": [f"label {name}" for name in names.split(",")]}) + "\n")
    return path


def measure(*line: str) -> Row:
    """Runs a command; returns its processor time and the most memory that it held."""
    process = subprocess.Popen([sys.executable, "-m", "lopsided", *line], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"lopsided {' '.join(line)}: status {status}")
    return {"peak MiB": f"{used.ru_maxrss / 1024:.0f}", "CPU s": f"{used.ru_utime + used.ru_stime:.0f}"}


def measure_compare(folder: Path) -> Row:
    texts = make_texts(folder / "texts.jsonl", LABELS, TEXTS)
    options = ["--losses", "bce,asl", "--seeds", "1", "--epochs", "1", "--metric", "p@1"]
    used = measure("compare", str(texts), *options, "--out", str(folder / "compared"))
    return {"command": "compare", "format": "JSON lines", "rows": f"{TEXTS}", "labels": f"{LABELS}"} | used


def measure_predict(folder: Path) -> Iterator[Row]:
    """A model of words, of 100 labels; the answers have the format of the questions."""
    run = str(folder / "run")
    train = make_texts(folder / "train.jsonl", FEW, 3000)
    measure("fit", str(train), "--model", "ngrams(characters=False)", "--epochs", "1", "--out", run)
    for ending, name in {"jsonl": "JSON lines", "csv": "CSV", "parquet": "Parquet"}.items():
        for rows in PREDICTED:
            path = make_inputs(folder / f"rows.{ending}", folder / "train.jsonl", rows)
            used = measure("predict", run, str(path), "--out", str(folder / f"predicted.{ending}"))
            yield {"command": "predict", "format": name, "rows": f"{rows}", "labels": f"{FEW}"} | used


def make_inputs(path: Path, source: Path, rows: int) -> Path:
    """Writes the texts of a file again and again, without labels."""
    lines = source.read_text().splitlines()
    texts = islice(cycle(json.loads(line)["text"] for line in lines), rows)
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"text": list(texts)}), path)
    elif path.suffix == ".csv":
        path.write_text("".join(f"{line}\n" for line in chain(["text"], texts)))
    else:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["compare", "predict"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        for row in measure_predict(Path(made)) if options.command == "predict" else [measure_compare(Path(made))]:
            print(*(f"{name}: {value}" for name, value in row.items()), sep=", ", flush=True)
