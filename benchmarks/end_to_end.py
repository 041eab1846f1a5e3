"""Whole programs beside what people would pick instead: time, memory, size of the model and quality.

    python benchmarks/end_to_end.py ../shared/data --environments FOLDER && python benchmarks/end_to_end.py --page

Each peer is installed into an environment of its own in that folder, once; one that cannot be installed is left out.
Contenders take turns within each set of data. Every process is counted from start to end with all that it
starts; the five best labels of each test row are judged by this script alone. What stands in the file of results is
not run again, unless `--sets` names it. The second command writes the table of docs/speed.md from that file.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tables import RESULTS, ROOT, Row, metrics_grid, put, read

HERE = Path(__file__).parent
PAGE, FILE = ROOT / "docs/speed.md", RESULTS / "end_to_end.csv"
TEXTS = {"reuters21578": (), "goemotions": (), "nlupp": ()}
SPARSE = {"bibtex": (), "10,000 labels": (10_000, 30_000), "100,000 labels": (100_000, 100_000)}  # labels and rows
PACKAGES = {
    "LinearSVC": "scikit-learn",
    "logistic regression": "scikit-learn",
    "fastText": "fasttext",
    "omikuji": "omikuji",
    "napkinXC": "napkinxc",
    "LibMultiLabel": "libmultilabel",
}
OF_TEXTS = ("LinearSVC", "logistic regression", "fastText")
OF_SPARSE = ("LinearSVC", "logistic regression", "omikuji", "napkinXC", "LibMultiLabel")
OURS = ("lopsided bce", "lopsided asl")


def environment_of(peer: str, folder: Path) -> Path | None:
    """Returns the Python in which a peer is installed; None where it cannot be."""
    home = folder / PACKAGES[peer]
    python = home / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", PACKAGES[peer]]
        if subprocess.run(install, check=False).returncode:
            print(f"{peer} cannot be installed here: left out")
            python.unlink()
    return python if python.exists() else None


def measured(line: list[str], step: str) -> Row:
    """Runs a program; returns what it took."""
    start = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "OPENBLAS_"))}
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(line)}: status {status}")
    return {
        f"{step} s": f"{time.perf_counter() - start:.1f}",
        f"{step} CPU s": f"{used.ru_utime + used.ru_stime:.1f}",
        f"{step} peak MB": f"{used.ru_maxrss / 1000:.0f}",
    }


def train_and_predict(name: str, folder: Path, environments: Path) -> Row | None:
    """Returns the row of a contender; None for a peer that cannot be installed."""
    ending = ".jsonl" if (folder / "train.jsonl").exists() else ".txt"
    train, test, model = folder / f"train{ending}", folder / f"test{ending}", folder / "model"
    subprocess.run(["rm", "-rf", str(model)], check=True)
    if name in OURS:
        command = [sys.executable, "-m", "lopsided"]
        fit = [*command, "fit", str(train), "--loss", name.split()[1], "--decide", "top-5", "--out", str(model)]
        row = measured(fit, "train")
        size = sum(
            (model / file).stat().st_size for file in ("model.safetensors", "model.json", "decision.safetensors")
        )
        row |= measured(
            [*command, "predict", str(model), str(test), "--out", str(folder / "predicted.jsonl")], "predict"
        )
    else:
        python = environment_of(name, environments)
        if python is None:
            return None
        line = [str(python), str(ROOT / "benchmarks/peers.py"), name]
        row = measured([*line, "train", str(folder)], "train")
        files = [model] if model.is_file() else [each for each in model.rglob("*") if each.is_file()]
        size = sum(file.stat().st_size for file in files)
        row |= measured([*line, "predict", str(folder)], "predict")
    return row | {"model MB": f"{size / 1e6:.2f}"} | quality(test, folder / "predicted.jsonl")


def quality(test: Path, predicted: Path) -> Row:
    from peers import rows_of

    _, truth = rows_of(test.parent, "test")
    found = [json.loads(line) for line in predicted.open(encoding="utf-8")]
    labels = [row["labels"] if isinstance(row, dict) else row for row in found]
    hits = {k: sum(len({*row[:k]} & {*true}) for row, true in zip(labels, truth, strict=True)) for k in (1, 3, 5)}
    return {f"P@{k}": f"{hits[k] / k / len(truth):.3f}" for k in hits}


def make_data(name: str, data: Path, folder: Path) -> None:
    """Writes train and test rows in the two formats that peers read."""
    if name == "bibtex":
        for part in ("train", "test"):
            (folder / f"{part}.txt").write_bytes((data / f"xmc_bibtex/bibtex_{part}.txt").read_bytes())
    elif name in SPARSE:
        labels, number = SPARSE[name]
        line = ["--labels", str(labels), "--rows", str(number), "--test-rows", "5000", "--out", str(folder)]
        subprocess.run([sys.executable, "-m", "lopsided", "data", "make-xmc", *line], check=True)
    elif name == "reuters21578":
        for part in ("train", "test"):
            (folder / f"{part}.jsonl").write_bytes((data / f"reuters21578/{part}.jsonl").read_bytes())
    elif name == "goemotions":
        for part in ("train", "test"):
            cells = [line.split("\t") for line in (data / f"goemotions/{part}.tsv").open(encoding="utf-8")]
            put_texts(folder / f"{part}.jsonl", [(text, labels.split(",")) for text, labels, _ in cells])
    else:
        for part, folds in (("train", range(14)), ("test", range(14, 20))):
            files = [data / f"nlupp/{domain}/fold{fold}.json" for domain in ("banking", "hotels") for fold in folds]
            rows = [row for file in files for row in json.loads(file.read_text())]
            put_texts(folder / f"{part}.jsonl", [(row["text"], row.get("intents", [])) for row in rows])


def put_texts(path: Path, rows: list[tuple[str, list[str]]]) -> None:
    lines = [json.dumps({"text": text, "labels": labels}) + "\n" for text, labels in rows]
    path.write_text("".join(lines), encoding="utf-8")


def contenders(name: str) -> list[str]:
    peers = list(OF_TEXTS if name in TEXTS else OF_SPARSE)
    many = name in SPARSE and name != "bibtex"
    return [*OURS, *(each for each in peers if not many or each in ("omikuji", "napkinXC"))]


def measure_all(data: Path, environments: Path, names: list[str], again: bool) -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in read(FILE.name)] if FILE.exists() else []
    for name in names:
        if not again and name in {row["set"] for row in rows}:
            continue
        with tempfile.TemporaryDirectory() as made:
            make_data(name, data, Path(made))
            found = [(each, train_and_predict(each, Path(made), environments)) for each in contenders(name)]
        new = [{"set": name, "contender": each} | row | facts() for each, row in found if row is not None]
        rows = [row for row in rows if row["set"] != name] + new
        with FILE.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]])
            writer.writeheader()
            writer.writerows(rows)


def facts() -> Row:
    """Returns the machine and the versions, as run.py says them: here torch would count as memory of every program."""
    program = "import json, run; print(json.dumps(run.environment()))"
    said = subprocess.check_output([sys.executable, "-c", program], cwd=HERE)
    return {name: str(value) for name, value in json.loads(said).items()}


def page() -> str:
    if not FILE.exists():
        return put(PAGE, {"end to end": "**Not measured yet.**"})
    rows = read(FILE.name)
    columns = ["train CPU s", "train s", "train peak MB", "predict CPU s", "predict peak MB", "model MB", "P@1", "P@5"]
    body = [[row["set"], row["contender"], *(row[name] for name in columns)] for row in rows]
    missing = [name for name in (*TEXTS, *SPARSE) if name not in {row["set"] for row in rows}]
    note = f"\n\nNot measured: {', '.join(missing)}." if missing else ""
    last = rows[-1]
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    machine = f"{last['processor']}, {last['cores']} cores"
    source = f"Measured by `python benchmarks/end_to_end.py` on {machine}, commits {commits}."
    return put(PAGE, {"end to end": f"{metrics_grid(['set', 'program', *columns], body)}{note}\n\n{source}"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the sets")
    parser.add_argument("--environments", type=Path, help="folder of the environments of the peers")
    parser.add_argument("--sets", help="names of sets to measure, again too, joined with ;")
    parser.add_argument("--page", action="store_true", help="write the table of docs/speed.md")
    options = parser.parse_args()
    if options.page:
        PAGE.write_text(page())
    elif options.data is None or options.environments is None:
        parser.error("the folder of the sets, or --environments, is missing")
    else:
        chosen = options.sets.split(";") if options.sets else [*TEXTS, *SPARSE]
        measure_all(options.data.resolve(), options.environments.resolve(), chosen, again=bool(options.sets))
