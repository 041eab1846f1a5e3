"""Compares the losses of the catalog on real sets, piece by piece; what is measured already is not measured again.

    OMP_NUM_THREADS=1 python studies/which_loss/study.py ../shared/data

The folder has a folder for each set of docs/real_data.md. A piece is a `lopsided compare` of one set, with a share of
the training positives hidden, over five splits of its rows. A comparison that was stopped goes on; a finished piece
adds its lines to results.csv and pieces.csv.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from sets import ENCODED, LARGE, MANY_COMBINATIONS, SETS, SPLIT, Settings, settings_of

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from run import environment

from lopsided.data.storage import UserError, write_csv
from lopsided.jobs.begin import begin
from lopsided.jobs.compare import Worker, compare
from lopsided.jobs.compare_config import make_config
from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.console import Console
from lopsided.jobs.evidence import Evidence
from lopsided.jobs.folder import ComparisonFolder
from lopsided.jobs.groups import NAMES, thirds
from lopsided.jobs.progress import Progress
from lopsided.jobs.results import Round, evidence_of
from lopsided.jobs.score import Scored, evaluate, evaluate_labels
from lopsided.metrics.collection import MultiLabelMetrics
from lopsided.metrics.lists import Array
from lopsided.metrics.scores import Judged

HERE = Path(__file__).parent
SPLITS = 5
HIDDEN = (0.0, 0.2, 0.4)  # shares of the training positives
GAMMAS = {gamma: f"asl(gamma_neg={gamma}, clip=0)" for gamma in (1, 2, 4, 8)}  # bce is that of 0
PUBLISHED = ("bce", "focal", "cb", "rebalanced", "ntr", "cb_ntr", "db")  # of Huang et al., see GIVEN
FAMILIES = {  # of losses, which are compared together; all have the same rows
    "losses": ("bce", "squared_hinge", "focal", "asl", "apl", "hill", "ral", "zlpr"),
    "ranking": ("lsep", "two_way", "bp_mll", "softmax", "powerset"),
    "gamma": tuple(GAMMAS.values()),
    "balanced": ("cb", "rebalanced", "ntr", "cb_ntr", "db", "ldam"),
    "adaptive": ("atl", "mean_sat", "hinge_abl", "decoupled"),
    "fixed": PUBLISHED,
    "chosen": PUBLISHED,
}
# the settings of Huang et al. (arXiv 2109.04712) for all losses, and the same model with those of `lopsided compare`
GIVEN: dict[str, Settings] = {
    "fixed": {"learning_rate": 1e-4, "batch_size": 32, "epochs": 40, "metric": "micro_f1"},
    "chosen": {},
}
WINDOW = (0.4, 0.6)  # of probability, in which they look for a threshold
RANKS = ("one_error", "coverage", "ranking_loss", "lrap")  # of published comparisons, beside METRICS
OF_ROWS = ("subset_accuracy", "hamming_loss", "sample_f1")
OF_LABELS = [name for name in METRICS if name.startswith(("map", "auroc", "micro_f1", "macro_f1"))]
Row = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """Names one comparison: of five splits, or with the given test rows for a family in GIVEN."""

    family: str
    set: str
    hidden: float

    @property
    def folder(self) -> str:
        return f"{self.family}-{self.set.replace(', ', '-')}-{100 * self.hidden:.0f}"

    @property
    def key(self) -> Row:
        return {"family": self.family, "set": self.set, "hidden": f"{self.hidden:g}"}


def pieces() -> list[Piece]:
    """Returns all, in the order in which the answer grows evenly: what two cores measure in eight hours."""
    others = [name for name in FAMILIES if name != "losses" and name not in GIVEN]
    wanted = [("losses", share) for share in HIDDEN] + [(name, 0.0) for name in others]
    resplit = [Piece(family, name, share) for family, share in wanted for name in (*SETS, *ENCODED)]
    small = [name for name in (*SETS, *ENCODED) if name not in LARGE]
    wanted = [(name, share) for name in others if name != "gamma" for share in HIDDEN[1:]]
    resplit += [Piece(family, name, share) for family, share in wanted for name in small]
    return [*resplit, *(Piece(family, f"{SPLIT}, {family}", 0.0) for family in GIVEN)]


def measure(piece: Piece, settings: Settings, runs: Path) -> tuple[list[Row], Row]:
    """Compares; returns a row for each split, loss and group of labels, and one of the data."""
    how = GIVEN.get(piece.family, {"resplit": True})
    losses = FAMILIES[piece.family]
    if "unknown_array" in settings or piece.set in MANY_COMBINATIONS:
        losses = tuple(loss for loss in losses if loss != "powerset")  # no unknown labels; hours with many combinations
    asked = {"losses": losses, "missing": piece.hidden, "seeds": SPLITS, **how}
    began = time.process_time()
    with Progress(Console(quiet=True)) as progress:
        folder, prepared = begin(ComparisonFolder, make_config(settings | asked), runs / piece.folder, progress)
        compare(folder, prepared, progress)
        worker = Worker(folder, prepared, progress)
        rounds = worker.rounds()
        chosen = {loss: worker.candidate(loss) for loss in folder.config.losses}
        evidence = evidence_of(folder.config, chosen, worker.recipe, rounds)
    found = [piece.key | row for row in rows_of(evidence, rounds)]
    return found, piece.key | about(evidence, rounds) | {"CPU s": f"{time.process_time() - began:.0f}"}


def rows_of(evidence: Evidence, rounds: Sequence[Round]) -> Iterator[Row]:
    """Yields the metrics of each split and model: of all labels, then of the rare, middling and frequent ones."""
    models = dict(evidence.scored)
    if "bce" in models:  # the baselines are the same for all families
        models |= {name: list(each.scored) for name, each in evidence.baselines.items()}
    for split, round_ in enumerate(rounds):
        assert round_.splits.test is not None
        trained, tested = (part.hard_counts().numpy() for part in (round_.splits.train, round_.splits.test))
        edges = np.array(evidence.bins or thirds(trained[tested > 0]))
        group_of = np.searchsorted(edges, trained, side="right")
        for loss, scored in models.items():
            if split >= len(scored):  # a baseline of the same rows for all seeds
                continue
            yield {"split": split, "loss": loss, "labels": "all", **of_all(scored[split])}
            for number, name in enumerate(NAMES):
                labels = group_of == number
                if (labels & (tested > 0)).any():
                    yield {"split": split, "loss": loss, "labels": name, **of_some(scored[split], labels)}


def of_all(scored: Scored) -> Row:
    values = {name: evaluate(name, scored) for name in METRICS}
    if not scored.diverged:
        values |= of_rows(scored, scored.tuned, (*RANKS, "sample_f1"))
        in_window = of_rows(scored, best_in_window(scored.valid), ("micro_f1", "macro_f1"))
        values |= {f"{name}_window": value for name, value in in_window.items()}
    if not scored.diverged and scored.own is not None:
        own = scored.own if math.isfinite(scored.own) else scored.tuned  # as in Scored.decide
        values |= {f"{name}_own": value for name, value in of_rows(scored, own, OF_ROWS).items()}
    return {name: written(value) for name, value in values.items()}


def of_rows(scored: Scored, threshold: float, names: Sequence[str]) -> dict[str, float]:
    assert scored.scores is not None
    metrics = MultiLabelMetrics(scored.scores.num_labels, "logits", decide=threshold, binned=100)
    metrics.update(scored.scores, scored.targets)
    values = metrics.result().values
    return {name: values[name] for name in names}


def best_in_window(valid: Judged) -> float:
    """Returns the logit of the threshold with the best micro-F1 among 21 probabilities in WINDOW."""
    scores, positives = valid.scores.values, int(valid.positives.sum())
    thresholds: list[float] = torch.linspace(*WINDOW, 21).logit().tolist()
    decided = {threshold: scores > threshold for threshold in thresholds}
    if valid.known is not None:
        decided = {threshold: each & valid.known for threshold, each in decided.items()}
    hits = {threshold: int((each & valid.hits).sum()) for threshold, each in decided.items()}
    return max(hits, key=lambda threshold: 2 * hits[threshold] / (int(decided[threshold].sum()) + positives))


def of_some(scored: Scored, labels: Array) -> Row:
    return {name: written(evaluate_labels(name, scored, labels)) for name in OF_LABELS}


def written(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.5f}"


def about(evidence: Evidence, rounds: Sequence[Round]) -> Row:
    """Describes the data of the first split, and how its models are trained."""
    splits = rounds[0].splits
    assert splits.test is not None
    counts = splits.train.hard_counts()
    assert evidence.recipe is not None
    return {
        "training rows": len(splits.train),
        "test rows": len(splits.test),
        "test rows per training row": f"{evidence.resplit or 0.0:.4f}",
        "labels": len(counts),
        "positives a row": f"{int(counts.sum()) / len(splits.train):.3f}",
        "median positives of a label": int(counts.median()),
        "solved": int(evidence.recipe.solved),
    }


def add(results: Path, found: Sequence[Row], data: Row) -> None:
    """Adds what a piece gave to the two files, in the order of the pieces; pieces.csv last, which says what is done."""
    order = {tuple(piece.key.values()): number for number, piece in enumerate(pieces())}
    with FileLock(results / "lock"):
        for name, rows in (("results.csv", found), ("pieces.csv", [data])):
            file = results / name
            before = [row for row in read(file) if key_of(row) != key_of(data)]  # an interruption may have left some
            lines = sorted([*before, *rows], key=lambda row: order[key_of(row)])
            names = list(dict.fromkeys(column for line in lines for column in line))
            write_csv(file, names, [[line.get(column, "") for column in names] for line in lines])
    (results / "lock").unlink(missing_ok=True)


def key_of(row: Row) -> tuple[str, ...]:
    return row["family"], row["set"], row["hidden"]


def read(file: Path) -> list[Row]:
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def study(asked: Sequence[Piece], data: Path, runs: Path, results: Path, encoder: str | None) -> bool:
    """Measures the pieces that are not in the files yet, nor measured by another process; returns whether all went."""
    facts, failed = environment(), False  # as it is before
    for piece in asked:
        try:
            with FileLock(runs / f"{piece.folder}.lock", timeout=0):
                if key_of(piece.key) not in map(key_of, read(results / "pieces.csv")):
                    settings = settings_of(piece.set, data, runs / "data", encoder)
                    if settings is None:
                        print(f"{piece.folder}: left out, needs --encoder", flush=True)
                        continue
                    found, about_data = measure(piece, settings, runs)
                    add(results, found, about_data | facts)
                    print(f"{piece.folder}: {about_data['CPU s']} s", flush=True)
        except Timeout:
            print(f"{piece.folder}: in work elsewhere", flush=True)
        except (ValueError, UserError) as error:  # the others can be measured without it
            failed = True
            print(f"{piece.folder}: failed: {error}", flush=True)
    return not failed


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of the sets")
    parser.add_argument("--encoder", help="folder of a sentence encoder, such as all-MiniLM-L6-v2, for texts")
    parser.add_argument("--runs", type=Path, default=Path("runs/which_loss"), help="folder of the comparisons")
    parser.add_argument("--results", type=Path, default=HERE, help="folder of the two files of results")
    parser.add_argument("--pieces", help="only those whose folders begin with one of these, joined with commas")
    options = parser.parse_args(arguments)
    starts = tuple(options.pieces.split(",")) if options.pieces else ("",)
    asked = sorted(
        (piece for piece in pieces() if piece.folder.startswith(starts)),
        key=lambda piece: next(number for number, start in enumerate(starts) if piece.folder.startswith(start)),
    )
    paths = options.data.resolve(), options.runs.resolve(), options.results.resolve()
    if not study(asked, *paths, options.encoder):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
