"""Writes the tables of the documentation from the files in benchmarks/results, between their markers.

python benchmarks/tables.py
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
Row = dict[str, str]
LOSSES = {"bce": "BCE", "focal": "focal", "asl": "ASL", "apl": "APL", "zlpr": "ZLPR"}
NON_INTEGER = "asl(gamma_neg=3.7, gamma_pos=1.3)"
LOSSES[NON_INTEGER] = "ASL, gamma 3.7 and 1.3"
SMALL_LOSSES = LOSSES | {"lsep": "LSEP", "softmax": "softmax", "bp_mll": "BP-MLL", "two_way": "two-way"}
SMALL_LOSSES |= {"atl": "ATL", "mean_sat": "mean-SAT", "hinge_abl": "HingeABL"}
SMALL_LOSSES |= {"decoupled": "decoupled softmax", "ncrl": "NCRL"}
WAYS = ("native", "streamed", "eager", "published", "published, compiled")
OTHERS = ("torch soft margin", "focal kornia", "limit")


def read(name: str) -> list[Row]:
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(file))


def select(rows: list[Row], case: str, way: str, threads: str) -> dict[str, Row]:
    """contender -> row."""
    return {row["contender"]: row for row in rows if (row["case"], row["pass"], row["threads"]) == (case, way, threads)}


def grid(head: list[str], body: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *body))


def as_measured(cell: str) -> str:
    """Writes metrics as the tool does, without a zero before the point: .712; a text keeps its settings."""
    return re.sub(r"(?<![\d.])0(?=\.\d)", "", cell) if re.match(r"[*+-]*\d", cell) else cell


def metrics_grid(head: list[str], body: list[list[str]]) -> str:
    return grid(head, [[as_measured(cell) for cell in line] for line in body])


def ratio(row: Row | None) -> str:
    return "" if row is None else row["ratio to torch bce"] or "wrong"


def detailed(rows: list[Row]) -> str:
    """A table for each case, pass and number of threads."""
    parts = []
    for case, way, threads in dict.fromkeys((row["case"], row["pass"], row["threads"]) for row in rows):
        found = select(rows, case, way, threads)
        shown = [name for name in WAYS if any(f"{loss} {name}" in found for loss in LOSSES)]
        body = [[title, *(ratio(found.get(f"{loss} {name}")) for name in shown)] for loss, title in LOSSES.items()]
        others = ", ".join(f"{name} {ratio(found[name])}" for name in OTHERS if name in found)
        took = float(found["torch bce"]["microseconds"])
        head = f"**{case}, {way}, threads: {threads}.** torch's BCE takes {took:,.0f} µs; {others}."
        parts.append(f"{head}\n\n{grid(['', *shown], body)}")
    return "\n\n".join(parts)


def summary(rows: list[Row]) -> str:
    """Ours as ratios to torch's BCE, and against the published code: float32, forward and backward, two threads."""
    cases = [case for case in dict.fromkeys(row["case"] for row in rows) if case.endswith("float32 float")]
    body = []
    for loss, title in LOSSES.items():
        line = [title]
        for case in cases:
            found = select(rows, case, "forward+backward", "2")
            ours, theirs = found[f"{loss} native"], found.get(f"{loss} published")
            times = float(theirs["microseconds"]) / float(ours["microseconds"]) if theirs else 0
            line.append(ratio(ours) + (f" ({times:.0f}x)" if theirs else ""))
        body.append(line)
    return grid(["", *(case.split()[0] for case in cases)], body)


def small(rows: list[Row]) -> str:
    """Ratios to torch's BCE on a small batch, by loss and by what is said of the labels."""
    found = {(row["loss"], row["said"]): row for row in rows}
    shown = [what for what in dict.fromkeys(row["said"] for row in rows) if what != "torch bce"]
    timed = {loss: title for loss, title in SMALL_LOSSES.items() if (loss, "targets") in found}
    body = [[title, *(ratio(found.get((loss, what))) for what in shown)] for loss, title in timed.items()]
    return grid(["", *shown], body)


def compiled(rows: list[Row]) -> str:
    names = ["case", "loss", "graph breaks", "inside to outside", "compiled to alone", "alone us"]
    return grid(["case", "loss", "graph breaks", "step", "alone", "alone, not compiled, µs"], columns(rows, names))


def weights(rows: list[Row]) -> str:
    """Sizes, and metrics with what bfloat16 adds to them."""
    names = [name.removesuffix(" by bf16") for name in rows[0] if name.endswith(" by bf16")]
    body = [
        [row[name] for name in ("set", "loss", "fp32 MB", "bf16 MB", "smallest peer")]
        + [f"{row[name]} ({row[f'{name} by bf16']})" for name in names]
        for row in rows
    ]
    return grid(["set", "loss", "MB in fp32", "MB in bf16", "smallest peer", *names], body)


def columns(rows: list[Row], names: list[str]) -> list[list[str]]:
    return [[row[name] for name in names] for row in rows]


def head(rows: list[Row]) -> str:
    """A linear head: time as a ratio to the bare products, and memory, for each number of labels."""
    sizes = list(dict.fromkeys(row["labels"] for row in rows))
    found = {(row["labels"], row["contender"]): row for row in rows}
    body = []
    for contender in dict.fromkeys(row["contender"] for row in rows):
        line = [contender]
        for size in sizes:
            row = found[size, contender]
            line += [row["ratio"] or "wrong", row["milliseconds"], row["extra peak MB"]]
        body.append(line)
    titles = [f"{int(size):,} labels: {what}" for size in sizes for what in ("ratio", "ms", "extra peak MB")]
    return grid(["", *titles], body)


def gpu(rows: list[Row]) -> str:
    """Shares of the limit of what the GPU can copy, by case; and how many times faster than the published code."""
    found = {(row["case"], row["contender"]): row for row in rows}
    cases = list(dict.fromkeys(row["case"] for row in rows))
    body = []
    for contender in dict.fromkeys(row["contender"] for row in rows):
        line = [contender]
        for case in cases:
            row = found.get((case, contender))
            line.append("" if row is None else row["share of limit"] or row["milliseconds"])
        body.append(line)
    return grid(["", *cases], body)


def gpu_head(rows: list[Row]) -> str:
    names = ["labels", "contender", "ratio", "milliseconds", "extra peak GiB"]
    return grid(names, columns(rows, names))


def instructions(rows: list[Row]) -> str:
    names = ["loss", "logits", "targets", "kernel", "positives", "instructions", "bytes", "issue bound", "registers"]
    return grid(names, columns(rows, names))


def on_gpus() -> dict[str, str]:
    """The tables of docs/gpu.md. What was not measured is said to be not."""
    counted = read("gpu_instructions.csv")
    first = counted[0]
    by = f"Counted by `python benchmarks/instructions.py` with Triton {first['triton']}, commit {first['commit']}."
    tables = {"instructions": f"{instructions(counted)}\n\n{by}"}
    for marker, name, table in (("gpu", "gpu.csv", gpu), ("gpu head", "gpu_linear.csv", gpu_head)):
        rows = read(name) if (RESULTS / name).exists() else []
        what = f"{rows[0]['device']}, Triton {rows[0]['triton']}, {environment(rows, 'gpu.py')}" if rows else ""
        tables[marker] = f"{table(rows)}\n\n{what}" if rows else "**Not measured yet.**"
    return tables


def environment(rows: list[Row], script: str) -> str:
    first = rows[0]
    machine = f"{first['processor']}, {first['cores']} cores, torch {first['torch']}, Python {first['python']}"
    commits = [*dict.fromkeys(row["commit"] for row in rows)]
    return (
        f"Measured by `python benchmarks/{script}` on {machine}, commit{'s' * (len(commits) > 1)} {', '.join(commits)}."
    )


def put(path: Path, tables: dict[str, str]) -> str:
    """The text of a page with its tables replaced."""
    text = path.read_text()
    for name, table in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if text.count(start) != 1 or text.count(end) != 1:
            raise ValueError(f"{path} must have {start.strip()} and {end} once each")
        before, _, rest = text.partition(start)
        text = before + start + table + "\n" + end + rest.partition(end)[2]
    return text


def pages() -> dict[Path, str]:
    """Every page with tables, as it should be."""
    rows, heads, few = read("cpu.csv"), read("linear.csv"), read("small_batches.csv")
    short = {"speed": f"{summary(rows)}\n\n{environment(rows, 'run.py')}"}
    linear = {"linear": f"{head(heads)}\n\n{environment(heads, 'linear.py')}"}
    some = {"small batches": f"{small(few)}\n\n{environment(few, 'small_batches.py')}"}
    graphs = read("compiled.csv")
    some["compiled"] = f"{compiled(graphs)}\n\n{environment(graphs, 'compiled.py')}"
    halves = read("weights.csv")
    some["weights"] = f"{weights(halves)}\n\n{environment(halves, 'weights.py')}"
    readme, speed, extreme = ROOT / "README.md", ROOT / "docs/speed.md", ROOT / "docs/extreme.md"
    return {
        readme: put(readme, short),
        speed: put(speed, short | some | {"all cases": detailed(rows)}),
        extreme: put(extreme, linear),
        ROOT / "docs/gpu.md": put(ROOT / "docs/gpu.md", on_gpus()),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path)
