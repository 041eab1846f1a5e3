"""Measures the most memory that whole commands hold, all their processes together.

    OMP_NUM_THREADS=1 python benchmarks/memory.py && python benchmarks/memory.py --page

Texts are made: each has about 17 words of a vocabulary, most of them words of its labels, whose frequencies have a long
tail. `compare` is of 300,000 texts with 20,000 labels, to the report; `predict` of 100,000 and of 1,000,000 rows in
each format, and of one text of 10 MB. All of it takes half an hour of one core; what stands in the file of results is
not run again. The second command writes the table of docs/extreme.md from that file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, cycle, islice
from pathlib import Path
from threading import Event, Thread

import psutil
import pyarrow as pa
from pyarrow import parquet
from run import write
from tables import RESULTS, ROOT, Row, environment, grid, put, read

from lopsided.data.make_xmc import XmcMaker

PAGE, FILE = ROOT / "docs/extreme.md", RESULTS / "memory.csv"
LABELS, TEXTS = 20_000, 300_000  # of the comparison
FEW, PREDICTED = 100, (100_000, 1_000_000)
LONG = 10_000_000  # characters of a text


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
    """Runs a command; returns its processor time and the most memory that its processes held together."""
    process = subprocess.Popen([sys.executable, "-m", "lopsided", *line], stdout=subprocess.DEVNULL)
    ended, seen = Event(), [0]

    def look() -> None:
        while not ended.wait(0.2):
            seen.append(held(process.pid))

    watch = Thread(target=look)
    watch.start()
    _, status, used = os.wait4(process.pid, 0)  # its ru_maxrss counts what this process held when it started that one
    ended.set()
    watch.join()
    if status:
        raise SystemExit(f"lopsided {' '.join(line)}: status {status}")
    return {"peak MiB": f"{max(seen) / 2**20:.0f}", "CPU s": f"{used.ru_utime + used.ru_stime:.0f}"}


def held(number: int) -> int:
    """Returns the bytes that a process and those that it started hold; what they share counts once.

    Or the most that the first held so far, if that is more: it sees what comes and goes between two looks.
    """
    with suppress(psutil.Error, OSError):  # one may end before it is asked
        first = psutil.Process(number)
        together: int = sum(each.memory_full_info().pss for each in [first, *first.children(recursive=True)])
        highest = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{number}/status").read_text())
        return max(together, 1024 * int(highest[1]) if highest else 0)
    return 0


def measure_compare(folder: Path) -> Row:
    """Two losses in an epoch each, at a fixed rate; then the bootstrap, the verdict and the report, as always."""
    texts = make_texts(folder / "texts.jsonl", LABELS, TEXTS)
    options = ["--losses", "bce,asl", "--seeds", "1", "--epochs", "1", "--learning-rate", "3"]
    return measure("compare", str(texts), *options, "--out", str(folder / "compared"))


def trained(folder: Path) -> tuple[Path, Path]:
    """Returns the run of a model of words, of 100 labels, and its texts."""
    run, train = folder / "run", folder / "train.jsonl"
    if not run.exists():
        make_texts(train, FEW, 3000)
        measure("fit", str(train), "--model", "ngrams(characters=False)", "--epochs", "1", "--out", str(run))
    return run, train


def measure_predict(folder: Path, ending: str, rows: int) -> Row:
    """The answers have the format of the questions."""
    run, train = trained(folder)
    path = make_inputs(folder / f"rows.{ending}", train, rows)
    return measure("predict", str(run), str(path), "--out", str(folder / f"predicted.{ending}"))


def measure_long(folder: Path) -> Row:
    run, train = trained(folder)
    words = " ".join(json.loads(line)["text"] for line in train.read_text().splitlines()) + " "
    (folder / "long.jsonl").write_text(json.dumps({"text": words * (LONG // len(words) + 1)}) + "\n")
    return measure("predict", str(run), str(folder / "long.jsonl"), "--out", str(folder / "long-predicted.jsonl"))


def make_inputs(path: Path, source: Path, rows: int) -> Path:
    """Writes the texts of a file again and again, without labels."""
    lines = source.read_text().splitlines()
    texts = islice(cycle(json.loads(line)["text"] for line in lines), rows)
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"text": list(texts)}), path)
        return path
    with path.open("w") as file:
        if path.suffix == ".csv":
            file.writelines(f"{line}\n" for line in chain(["text"], texts))
        else:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    return path


FORMATS = {"jsonl": "JSON lines", "csv": "CSV", "parquet": "Parquet"}
ONE_LONG = "JSON lines, of 10 MB each"


def measure_all(folder: Path) -> Iterator[Row]:
    """Yields a row for each command that is not in the file; it keeps the machine and the commit of its measurement."""
    known = {(row["command"], row["format"], row["rows"]) for row in (read(FILE.name) if FILE.exists() else [])}
    for ending, name in FORMATS.items():
        for rows in PREDICTED:
            if ("predict", name, f"{rows}") not in known:
                what = {"command": "predict", "format": name, "rows": f"{rows}", "labels": f"{FEW}"}
                yield what | measure_predict(folder, ending, rows)
    if ("predict", ONE_LONG, "1") not in known:
        yield {"command": "predict", "format": ONE_LONG, "rows": "1", "labels": f"{FEW}"} | measure_long(folder)
    if ("compare", FORMATS["jsonl"], f"{TEXTS}") not in known:
        what = {"command": "compare", "format": FORMATS["jsonl"], "rows": f"{TEXTS}", "labels": f"{LABELS}"}
        yield what | measure_compare(folder)


def page() -> str:
    rows, numbers = read(FILE.name), ("labels", "rows", "peak MiB", "CPU s")
    body = [
        [
            f"`{row['command']}`",
            row["format"],
            *(f"{int(row[name]):,}" for name in numbers),
        ]
        for row in rows
    ]
    table = grid(["command", "format", "labels", "rows", "peak, MiB", "CPU seconds"], body)
    return put(PAGE, {"memory": f"{table}\n\n{environment(rows, 'memory.py')}"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="write the table of docs/extreme.md")
    if parser.parse_args().page:
        PAGE.write_text(page())
    else:
        with tempfile.TemporaryDirectory() as made:
            for row in measure_all(Path(made)):
                print(*(f"{name}: {value}" for name, value in row.items()), sep=", ", flush=True)
                write(FILE, [*(read(FILE.name) if FILE.exists() else []), row])
