"""Whole programs beside what people would pick instead: time, memory, size of the model and quality.

    python benchmarks/end_to_end.py ../shared/data --environments FOLDER && python benchmarks/end_to_end.py --page

Each peer is installed into an environment of its own in that folder, once; one that cannot be installed is left out.
Contenders take turns within each set of data. Every process is counted from start to end with all that it
starts; the best labels of each test row, five or for texts all, are judged by quality.py alone. What stands in the
file of results is not run again, unless `--sets` names it. The second command writes the table of docs/speed.md from
that file.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers import TUNED, labels_of
from tables import RESULTS, ROOT, Row, grid, metrics_grid, put, read

HERE = Path(__file__).parent
PAGE, FILE = ROOT / "docs/speed.md", RESULTS / "end_to_end.csv"
TEXTS = {"reuters21578": (), "goemotions": (), "nlupp": ()}
SPARSE = {"bibtex": (), "10,000 labels": (10_000, 30_000), "100,000 labels": (100_000, 100_000)}  # labels and rows
TOOK = [f"{step} {what}" for step in ("train", "predict") for what in ("s", "CPU s", "peak MB")]
COLUMNS = ["set", "contender", *TOOK, "model MB", "mAP", "P@1", "P@3", "P@5"]
COLUMNS += ["torch", "lopsided", "commit", "processor", "python", "cores"]
PACKAGES = {
    "LinearSVC": "scikit-learn",
    TUNED: "scikit-learn",
    "logistic regression": "scikit-learn",
    "fastText": "fasttext",
    "omikuji": "omikuji",
    "napkinXC": "napkinxc",
    "LibMultiLabel": "libmultilabel",
}
ONE = ", one penalty"  # that which the training before it chose
WORDS = ", words"  # without n-grams of characters, as the peers
LOSSES = ("bce", "focal", "asl", "apl", "zlpr")
OF_TEXTS = (
    *(f"lopsided {loss}{more}" for loss in (*LOSSES, "squared_hinge") for more in ("", ONE)),  # that of LinearSVC, too
    *(f"lopsided {loss}{WORDS}{more}" for loss in ("bce", "asl") for more in ("", ONE)),
    *("LinearSVC", TUNED, "logistic regression", "fastText"),
)
OF_BIBTEX = ("lopsided bce", "lopsided asl", "omikuji", "napkinXC")
OF_MANY = (*(f"lopsided {loss}{more}" for loss in ("bce", "asl") for more in ("", ONE)), "omikuji", "napkinXC")
OF_SPARSE = (*OF_BIBTEX, "LinearSVC", "logistic regression", "LibMultiLabel")


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
        raise RuntimeError(f"{' '.join(line)}: status {os.waitstatus_to_exitcode(status)}")
    return {
        f"{step} s": f"{time.perf_counter() - start:.1f}",
        f"{step} CPU s": f"{used.ru_utime + used.ru_stime:.1f}",
        f"{step} peak MB": f"{used.ru_maxrss / 1000:.0f}",
    }


def train_and_predict(name: str, folder: Path, environments: Path) -> Row | None:
    """Returns the row of a contender; None for a peer that cannot be installed."""
    model = folder / "model"
    if name.startswith("lopsided"):
        row = ours(name, folder)
        files = [model / file for file in ("model.safetensors", "model.json", "decision.safetensors")]
    else:
        python = environment_of(name, environments)
        if python is None:
            return None
        subprocess.run(["rm", "-rf", str(model)], check=True)
        line = [str(python), str(ROOT / "benchmarks/peers.py"), name]
        row = measured([*line, "train", str(folder)], "train")
        row |= measured([*line, "predict", str(folder)], "predict")
        files = [model] if model.is_file() else [each for each in model.rglob("*") if each.is_file()]
    size = sum(file.stat().st_size for file in files)
    return row | {"model MB": f"{size / 1e6:.2f}"} | judged(folder)


def ours(name: str, folder: Path) -> Row:
    """Trains and predicts; with one penalty, that of the model which is there."""
    is_text, model = (folder / "train.jsonl").exists(), folder / "model"
    ending, best = (".jsonl", f"top-{len(labels_of(folder))}") if is_text else (".txt", "top-5")
    options = ["--loss", name.split(",")[0].split()[1], "--decide", best, "--out", str(model)]
    options += ["--model", "ngrams(characters=False)"] if WORDS in name else []
    if name.endswith(ONE):
        tried = list(csv.DictReader((model / "history.csv").open()))
        chosen = json.loads((model / "training.json").read_text())["best_epoch"]
        options += ["--l2", tried[chosen - 1]["l2"], "--valid", "0"]
    subprocess.run(["rm", "-rf", str(model)], check=True)
    command = [sys.executable, "-m", "lopsided"]
    row = measured([*command, "fit", str(folder / f"train{ending}"), *options], "train")
    predict = [*command, "predict", str(model), str(folder / f"test{ending}")]
    return row | measured([*predict, "--out", str(folder / "predicted.jsonl")], "predict")


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


def contenders(name: str) -> Sequence[str]:
    return OF_TEXTS if name in TEXTS else OF_SPARSE if name == "bibtex" else OF_MANY


def measure_all(data: Path, environments: Path, names: list[str], again: bool, only: str = "") -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in read(FILE.name)] if FILE.exists() else []
    known = facts()  # as they are before results make the working copy dirty
    for name in names:
        if not again and name in {row["set"] for row in rows}:
            continue
        with tempfile.TemporaryDirectory() as made:
            make_data(name, data, Path(made))
            chosen = only.split(";") if only else contenders(name)
            found = [(each, train_and_predict(each, Path(made), environments)) for each in chosen]
        new = {each: {"set": name, "contender": each} | row | known for each, row in found if row is not None}
        old = {row["contender"]: row for row in rows if row["set"] == name} if only else {}
        of_set = old | new
        rows = [row for row in rows if row["set"] != name] + [
            of_set[each] for each in contenders(name) if each in of_set
        ]
        with FILE.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


def judged(folder: Path) -> Row:
    """Returns how good the predictions are; computed apart, since libraries here would count as memory of programs."""
    values: Row = json.loads(subprocess.check_output([sys.executable, "quality.py", str(folder)], cwd=HERE))
    return values


def facts() -> Row:
    """Returns the machine and the versions, as run.py says them: here torch would count as memory of every program."""
    program = "import json, run; print(json.dumps(run.environment()))"
    said = subprocess.check_output([sys.executable, "-c", program], cwd=HERE)
    return {name: str(value) for name, value in json.loads(said).items()}


BESIDE = (  # ours, of every loss, and a peer of which it takes so many times
    *((name, ONE, "LinearSVC") for name in ("nlupp", "reuters21578", "goemotions")),
    ("goemotions", WORDS + ONE, "LinearSVC"),
    *((name, "", TUNED) for name in ("nlupp", "reuters21578")),  # goemotions was measured at loads that changed
    *(("bibtex", "", peer) for peer in ("LinearSVC", "omikuji", "napkinXC")),
    *((name, ONE, peer) for name in ("10,000 labels", "100,000 labels") for peer in ("omikuji", "napkinXC")),
)
RATIOS = ("train CPU s", "train s", "train peak MB", "predict CPU s", "model MB")


def ratios(rows: Sequence[Row]) -> str:
    """Returns a table of how many times what a peer takes ours take: the smallest and the largest over the losses."""
    body = []
    for name, more, peer in BESIDE:
        found = {row["contender"]: row for row in rows if row["set"] == name}
        ours = [found[f"lopsided {loss}{more}"] for loss in LOSSES if f"lopsided {loss}{more}" in found]
        if peer not in found or not ours:
            continue
        times = {what: sorted(float(row[what]) / float(found[peer][what]) for row in ours) for what in RATIOS}
        spans = [" to ".join(dict.fromkeys(f"{each[end]:.1f}" for end in (0, -1))) for each in times.values()]
        body.append([name, f"lopsided{more or ', with the search'}", peer, *spans])
    return grid(["set", "ours", "beside", *RATIOS], body)


def page() -> str:
    if not FILE.exists():
        return put(PAGE, {"end to end": "**Not measured yet.**", "ratios": "**Not measured yet.**"})
    rows = read(FILE.name)
    columns = ["train CPU s", "train s", "train peak MB", "predict CPU s", "predict peak MB", "model MB"]
    columns += ["mAP", "P@1", "P@5"]
    body = [[row["set"], row["contender"], *(row[name] or "" for name in columns)] for row in rows]
    missing = [name for name in (*TEXTS, *SPARSE) if name not in {row["set"] for row in rows}]
    note = f"\n\nNot measured: {', '.join(missing)}." if missing else ""
    last = rows[-1]
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    machine = f"{last['processor']}, {last['cores']} cores"
    source = f"Measured by `python benchmarks/end_to_end.py` on {machine}, commits {commits}."
    tables = {"ratios": ratios(rows)}
    return put(PAGE, tables | {"end to end": f"{metrics_grid(['set', 'program', *columns], body)}{note}\n\n{source}"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the sets")
    parser.add_argument("--environments", type=Path, help="folder of the environments of the peers")
    parser.add_argument("--sets", help="names of sets to measure, again too, joined with ;")
    parser.add_argument("--contenders", default="", help="measure these alone of each set, joined with ;")
    parser.add_argument("--page", action="store_true", help="write the table of docs/speed.md")
    options = parser.parse_args()
    if options.page:
        PAGE.write_text(page())
    elif options.data is None or options.environments is None:
        parser.error("the folder of the sets, or --environments, is missing")
    else:
        chosen = options.sets.split(";") if options.sets else [*TEXTS, *SPARSE]
        measure_all(
            options.data.resolve(), options.environments.resolve(), chosen, bool(options.sets), options.contenders
        )
