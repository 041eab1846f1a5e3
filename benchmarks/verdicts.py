"""How often the default verdict of `lopsided compare` is right where the answer is known.

    OMP_NUM_THREADS=1 python benchmarks/verdicts.py ../shared/data --minutes 20 && python benchmarks/verdicts.py --page

The first command spends about so many minutes of CPU and writes benchmarks/results/verdicts.csv; called again it goes
on from there. The second writes the tables of docs/comparing.md. Where losses are equal, a verdict is a false alarm;
where one is spoilt on purpose, it should be found. Rows are split anew in each repetition.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from run import environment as facts
from run import write
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from tables import RESULTS, ROOT, Row, environment, metrics_grid, put, read
from verdict_data import Arrays, as_they_are, copied, evidence_of, random_labels, solve, table_of
from verdict_reference import REAL, REFERENCE, reference

import lopsided
from lopsided.jobs.begin import begin
from lopsided.jobs.compare import compare
from lopsided.jobs.compare_config import make_config
from lopsided.jobs.folder import ComparisonFolder
from lopsided.jobs.progress import Progress
from lopsided.jobs.results import summarize
from lopsided.jobs.schema import Results
from lopsided.losses import Formula, formula
from lopsided.losses.entries import CATALOG
from lopsided.losses.formulas import Curve
from lopsided.metrics.significance import LEVEL

PAGE = ROOT / "docs/comparing.md"
FILE = RESULTS / "verdicts.csv"
SETS = ("mulan_emotions", "mulan_yeast")
NEURAL = "mlp(hidden=32)"


def times(factor: float, base: str = "bce") -> Formula:
    """A loss times a constant: the same loss, in other units."""
    loss = formula(base)

    def scaled(curve: Curve) -> Curve:
        def value(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | float]:
            up, slope = curve(z)
            return factor * up, factor * slope

        return Curve(value)

    return Formula(scaled(loss.positive), scaled(loss.negative), loss.pool, named=f"times(factor={factor:g})")


def inverted(gamma: float = 2.0) -> Formula:
    """Focal loss with its weight the wrong way round: easy labels count, hard ones do not."""

    def spoilt(curve: Curve, sign: int) -> Curve:
        def value(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            up, slope = curve(z)
            weight = torch.sigmoid(sign * z) ** gamma
            return weight * up, weight * slope  # as with detached focus: the weight is no part of the slope

        return Curve(value)

    loss = formula("bce")
    return Formula(spoilt(loss.positive, 1), spoilt(loss.negative, -1), loss.pool, named=f"inverted(gamma={gamma:g})")


@dataclass(frozen=True)
class Check:
    """What is compared on what; alike: whether every verdict is a false alarm; resplit: five splits, not one."""

    losses: str
    alike: bool
    make: Callable[[Arrays, int], Arrays] = as_they_are
    model: str = "linear"
    resplit: bool = False


EQUAL = "times(factor=0.125),times(factor=0.5),times(factor=2),times(factor=8)"
CHECKS = {
    "a loss times 1/8, 1/2, 2, 8": Check(f"bce,{EQUAL}", alike=True),
    "the same, neural": Check(f"bce,{EQUAL}", alike=True, model=NEURAL),
    "three names of one loss": Check("bce,soft_margin,asl(gamma_neg=0, clip=0)", alike=True),
    "the same names, neural": Check("bce,soft_margin,asl(gamma_neg=0, clip=0)", alike=True, model=NEURAL),
    "random labels": Check("bce,asl,zlpr", alike=True, make=random_labels),
    "random labels, three copies of each row": Check("bce,asl,zlpr", alike=True, make=copied),
    "random labels, --resplit": Check("bce,asl,zlpr", alike=True, make=random_labels, resplit=True),
    "random labels, three copies, --resplit": Check("bce,asl,zlpr", alike=True, make=copied, resplit=True),
    "focus inverted": Check("bce,inverted", alike=False),
    "focus inverted, neural": Check("bce,inverted", alike=False, model=NEURAL),
}


def compared(rows: Arrays, check: Check, number: int) -> Results:
    """What `lopsided compare` finds; linear models are solved, once for each loss."""
    with tempfile.TemporaryDirectory() as made, Progress(Console(quiet=True)) as progress:
        path = Path(made, "rows.npz")
        np.savez(path, features=rows[0], labels=rows[1])
        asked = {"data": str(path), "losses": check.losses, "model": check.model}
        settings = make_config({**asked, "data_seed": number, "resplit": check.resplit})
        folder, prepared = begin(ComparisonFolder, settings, Path(made, "run"), progress)
        if check.model == "linear" and not check.resplit:
            models = {loss: solve(prepared, loss) for loss in folder.config.losses}
            return summarize(evidence_of(prepared, models), progress)
        compare(folder, prepared, progress)
        return folder.read_results()


def measured(name: str, set_: str, rows: Arrays, number: int) -> Iterator[dict[str, object]]:
    check = CHECKS[name]
    start = time.process_time()
    results = compared(check.make(rows, number), check, number)
    seconds = time.process_time() - start
    for loss, found in results.comparisons.items():
        yield {
            "check": name,
            "set": set_,
            "repetition": number,
            "loss": loss,
            "verdict": found.verdict,
            "difference": f"{found.mean:.5f}" if found.mean is not None else "",
            "p (Holm)": f"{found.p_holm:.4f}" if found.p_holm is not None else "",
            "detectable": f"{found.detectable:.5f}" if found.detectable is not None else "",
            "CPU seconds": f"{seconds:.1f}",
        }


HIDDEN = {"60 % of positives hidden": 0.6, "20 % of positives hidden": 0.2, "10 % of positives hidden": 0.1}
FLIPPED = "labels of a tenth of the classes flipped"
C = 0.1  # of logistic regression


def planted(kind: str, set_: str, rows: Arrays, number: int) -> Iterator[dict[str, object]]:
    """Logistic regression on training rows as they are, and spoilt: the verdict is that of `compare_losses`.

    A seed draws the training rows anew, with replacement.
    """
    start = time.process_time()
    generator = np.random.default_rng(number)
    order = generator.permutation(len(rows[0]))
    train, test = np.split(order, [len(order) // 2])
    features = StandardScaler().fit(rows[0][train]).transform(rows[0])
    spoilt = rows[1].copy()
    if kind in HIDDEN:
        spoilt *= generator.random(spoilt.shape) >= HIDDEN[kind]
    else:
        chosen = generator.permutation(spoilt.shape[1])[: max(1, spoilt.shape[1] // 10)]
        spoilt[:, chosen] = 1 - spoilt[:, chosen]

    def fit(labels: np.ndarray, seed: int) -> np.ndarray:
        drawn = train[np.random.default_rng(seed).integers(len(train), size=len(train))]
        model = OneVsRestClassifier(LogisticRegression(C=C, max_iter=200)).fit(features[drawn], labels[drawn])
        return np.asarray(model.decision_function(features[test]))

    outcome = lopsided.compare_losses(fit, {"as it is": rows[1], "spoilt": spoilt}, rows[1][test])
    found = outcome.results.comparisons["spoilt"]
    yield {
        "check": kind,
        "set": set_,
        "repetition": number,
        "loss": "spoilt",
        "verdict": found.verdict,
        "difference": f"{found.mean:.5f}",
        "p (Holm)": f"{found.p_holm:.4f}",
        "detectable": f"{found.detectable:.5f}",
        "CPU seconds": f"{time.process_time() - start:.1f}",
    }


PLANTED = (*HIDDEN, FLIPPED)
ALL = (*CHECKS, *PLANTED, REFERENCE)


def measure(data: Path, names: list[str], minutes: float, repetitions: int, out: Path) -> None:
    """Goes on with what is not in the file."""
    CATALOG["times"], CATALOG["inverted"] = times, inverted  # names that --losses takes
    facts()  # kept from here on: results that are written make the working copy dirty
    known = read(str(out)) if out.exists() else []
    lines: list[dict[str, object]] = [dict(row) for row in known]
    done = {(row["check"], row["set"], int(row["repetition"])) for row in known}
    rows_of = cache(lambda set_: table_of(data, set_))
    for number in range(repetitions):
        for name in names:
            for set_ in (REAL if name == REFERENCE else SETS) if name != REFERENCE or not number else ():
                if (name, set_, number) in done:
                    continue
                if time.process_time() > 60 * minutes:
                    return
                if name == REFERENCE:
                    lines += reference(data, set_)
                else:
                    lines += (measured if name in CHECKS else planted)(name, set_, rows_of(set_), number)
                write(out, lines)
                print(lines[-1])


def share(rows: Sequence[Row]) -> str:
    """How many verdicts are firm, of how many."""
    firm = sum(float(row["p (Holm)"]) < LEVEL for row in rows)
    return f"{firm} of {len(rows)} ({100 * firm / len(rows):.0f} %)" if rows else "-"


def alarms(rows: list[Row]) -> str:
    body = []
    for name, check in CHECKS.items():
        for set_ in SETS:
            found = [row for row in rows if (row["check"], row["set"]) == (name, set_) and row["p (Holm)"]]
            if check.alike and found:
                body.append([name, set_, share(found)])
    return metrics_grid(["all are equal", "set", "false alarms"], body)


def power(rows: list[Row]) -> str:
    body = []
    for name in [name for name, check in CHECKS.items() if not check.alike] + [*PLANTED]:
        for set_ in SETS:
            found = [row for row in rows if (row["check"], row["set"]) == (name, set_)]
            if found:
                true = statistics.mean(float(row["difference"]) for row in found)
                seeing = [row for row in found if float(row["detectable"]) <= abs(true)]
                middle = statistics.median(float(row["detectable"]) for row in found)
                body.append([name, set_, f"{true:+.4f}", f"{middle:.4f}", share(found), share(seeing)])
    return metrics_grid(
        ["planted", "set", "difference in mAP", "detectable, median", "found", "of those that could"], body
    )


def references(rows: list[Row]) -> str:
    names = ["set", "loss", "verdict", "exhaustive verdict", "mAP", "exhaustive mAP", "SE"]
    names += ["scikit-learn ahead", "SE of that"]
    return metrics_grid(names, [[row[name] for name in names] for row in rows if row["check"] == REFERENCE])


def page() -> str:
    rows = read(FILE.name)
    source = environment(rows, "verdicts.py")
    return put(PAGE, {"alarms": f"{alarms(rows)}\n\n{source}", "planted": power(rows), "reference": references(rows)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the sets")
    parser.add_argument("--minutes", type=float, default=20.0, help="of CPU, after which no other run begins")
    parser.add_argument("--repetitions", type=int, default=10, help="of each check on each set")
    parser.add_argument("--check", choices=ALL, action="append", help="all if left out; may be repeated")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--page", action="store_true", help="write the tables of docs/comparing.md")
    options = parser.parse_args()
    if options.page:
        PAGE.write_text(page())
    elif options.data is None:
        parser.error("the folder of the sets is missing")
    else:
        measure(
            options.data.resolve(),
            options.check or list(ALL),
            options.minutes,
            options.repetitions,
            options.out.resolve(),
        )
