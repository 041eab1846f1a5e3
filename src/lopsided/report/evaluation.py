"""Prints what `lopsided evaluate` found on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lopsided.jobs.evaluate import Evaluation, labels_beside
from lopsided.jobs.numbers import share

_DECISION_TITLES = {
    "micro_f1": "micro-F1",
    "micro_precision": "micro-precision",
    "micro_recall": "micro-recall",
    "macro_f1": "macro-F1",
    "sample_f1": "F1 of a row",
    "subset_accuracy": "subset accuracy",
    "empty_rows": "rows without a prediction",
    "predicted_per_row": "predicted labels a row",
}


def print_evaluation(evaluation: Evaluation, written: Path, console: Console) -> None:
    """Prints a line per metric: the model, and the popularity baseline; and the file that has them."""
    table = Table("", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(evaluation.loss, justify="right")
    table.add_column("most frequent labels", justify="right")
    titles = {"p": "P", "ndcg": "nDCG", "psp": "PSP", "map": "mAP"}
    for name, value in evaluation.model.items():
        kind, at, k = name.partition("@")
        if kind in ("p", "psp") and 1 < int(k) >= evaluation.labels:  # the same for every ranking
            continue
        popular = evaluation.popularity.get(name)
        table.add_row(titles.get(kind, "mAP") + at + k, share(value), "" if popular is None else share(popular))
    console.print(f"\n{evaluation.rows} rows of {evaluation.data}", highlight=False, markup=False, soft_wrap=True)
    if evaluation.rows_seen:
        seen = f"{evaluation.rows_seen} of them also stand among those that this model was trained or tuned on"
        console.print(f"{seen}, and say nothing about new ones", highlight=False, soft_wrap=True)
    if evaluation.changed:
        console.print("this file has changed since the run began", highlight=False, markup=False)
    console.print(table)
    constants = f"A = {evaluation.propensity.a:g} and B = {evaluation.propensity.b:g}"
    console.print(f"[dim]PSP: propensities of the training label counts, {constants}.[/dim]", highlight=False)
    table = Table("", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"decided: {evaluation.rule}", justify="right")
    for name, value in evaluation.decisions.items():
        table.add_row(_DECISION_TITLES[name], share(value))
    console.print(table)
    if evaluation.never_predicted:
        never = f"never predicted: {evaluation.never_predicted} of the labels that these rows have"
        console.print(never, highlight=False, soft_wrap=True)
    console.print(f"each label: {labels_beside(written)}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"results: {written}", highlight=False, markup=False, soft_wrap=True)
