"""Runs `lopsided evaluate`: how well a trained model ranks and decides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress as Bars
from torch.nn.functional import pad

from lopsided.data.dataset import Dataset
from lopsided.data.excerpts import printable
from lopsided.data.inputs import Numbered
from lopsided.data.opening import shown
from lopsided.data.readers import renamed
from lopsided.data.storage import UserError, write_csv
from lopsided.decision.choose import Decision
from lopsided.jobs import schema
from lopsided.jobs.config import data_digest, fingerprint, read_otherwise
from lopsided.jobs.folder import RunFolder
from lopsided.jobs.progress import say
from lopsided.jobs.rows import load, read_rows
from lopsided.jobs.schema import Number, Record, StoredFile
from lopsided.metrics.counts import Sums
from lopsided.metrics.registry import METRICS
from lopsided.metrics.scores import Judged, Scores
from lopsided.metrics.summary import Summary
from lopsided.metrics.top_k import propensities
from lopsided.metrics.truth import Truth
from lopsided.metrics.weighted import Weighable
from lopsided.models.encoder import Part
from lopsided.models.model import Model
from lopsided.training.rows import Rows

KS = (1, 3, 5)
DECISIONS = (
    "micro_f1",
    "micro_precision",
    "micro_recall",
    "macro_f1",
    "sample_f1",
    "subset_accuracy",
    "empty_rows",
    "predicted_per_row",
)
_LABEL_COUNTS = ("training_rows", "positives", "predicted", "hits")
_LABEL_METRICS = ("precision", "recall", "f1", "average_precision")
_ROWS = 2**12  # of a block where not all scores are held


class Propensity(Record):
    """Holds the constants of the propensities."""

    a: float
    b: float


class Evaluation(StoredFile):
    """Describes results.json and results-NAME.json of a fitted model; metrics by name."""

    kind = "evaluation"
    data: str
    rows: int
    rows_seen: int  # that also stand among those that the model was trained or tuned on
    loss: str
    epochs: int
    labels: int
    propensity: Propensity
    model: Mapping[str, Number]
    popularity: Mapping[str, Number]  # of ranking the labels of every row by their number of training rows
    rule: str
    decisions: Mapping[str, Number]
    never_predicted: int = 0  # labels that some row has, and for which the rule decides in none
    changed: bool  # whether the file is one of the run's, with other content than it had then


def evaluate_run(
    folder: RunFolder, data: Path | None, propensity: Propensity, bars: Bars, asked: dict[str, Any] | None = None
) -> tuple[Evaluation, Path]:
    """Ranks the rows of a file, the test rows of the run if None; returns what is written, and where.

    asked: options of reading in which the file differs from that of training.

    Results of the run's own test rows go into results.json of its folder, of another file into results-NAME.json; and
    those of each label into labels.csv or labels-NAME.csv.
    """
    if asked and data is None:
        raise UserError("how a file is read is for another FILE than that of the run; name it")
    path = data or folder.config.files().get("test")
    if path is None and not folder.config.has_test:
        raise UserError(f"{folder.path}: was trained without --test; name the file to evaluate on")
    model, decision = folder.read_model(), folder.read_decision()
    if path is None:
        folder.refuse_other(fingerprint(folder.config))  # or other rows are split off than were held out
        rows = _encoded(model, load(folder.config, bars).test, folder.config.data)
    else:
        options = read_otherwise(folder.config.read_options(), asked or {}).with_categories(model.category_names)
        read = read_rows(path, options, bars)
        if data is not None:
            for note in _notes(read, model):
                say(bars, printable(f"{data.name}: {note}"))
        rows = _encoded(model, read, str(path))
    counts = pad(model.label_counts, (0, rows.data.num_labels - model.num_labels))
    weights = _propensities(counts, model.rows, propensity)
    summary = _summary(_blocks(model, rows, decision, weights, bars))
    training = folder.read_training()
    evaluation = Evaluation(
        data=str(path or f"the test part of {folder.config.name}"),
        rows=len(rows),
        rows_seen=int(torch.isin(rows.data.hashes, folder.read_seen_hashes()).sum()),
        loss=folder.config.loss,
        epochs=training.epochs,
        labels=model.num_labels,
        propensity=propensity,
        model=ranking(summary) | ({} if rows.keep else {"map": METRICS["map"].value(summary)}),
        popularity=ranking(_summary(_popular(counts, rows, weights))),
        rule=decision.name,
        decisions={name: METRICS[name].value(summary) for name in DECISIONS},
        never_predicted=int(((summary.labels.positives > 0) & (summary.labels.predicted == 0)).sum()),
        changed=path is not None and _has_changed(folder, path),
    )
    written = folder.path / "results.json" if data is None else folder.result_of("results", data, ".json")
    _write_labels(labels_beside(written), rows, counts, summary)
    schema.write_file(written, evaluation)
    return evaluation, written


def labels_beside(results: Path) -> Path:
    """Returns the file that has the results of each label.

    >>> labels_beside(Path("run/results-new.json")).name
    'labels-new.csv'
    """
    return results.with_name(f"labels{results.stem.removeprefix('results')}.csv")


def _write_labels(path: Path, rows: Rows, training: torch.Tensor, summary: Summary) -> None:
    """Writes the counts and metrics of each label; one that is undefined, for want of positives, is left empty."""
    counts, names = summary.labels, rows.data.label_names
    precision = summary.table["average_precision"] if rows.keep is None else np.full(len(names), np.nan)
    metrics = [
        ["" if math.isnan(value) else f"{value:.6g}" for value in np.where(counts.positives > 0, column, np.nan)]
        for column in (counts.precision(), counts.recall(), counts.f_beta(), precision)
    ]
    numbers = [column.astype(np.int64).tolist() for column in (counts.positives, counts.predicted, counts.hits)]
    lines = zip(names, training.long().tolist(), *numbers, *metrics, strict=True)
    write_csv(path, ("label", *_LABEL_COUNTS, *_LABEL_METRICS), lines)


def _notes(read: Dataset, model: Model) -> Iterator[str]:
    yield from read.notes
    if new := _names_like(model, read)[model.num_labels :]:
        yield f"labels that the model does not know, and misses: {len(new)}, such as {shown(new[0])}"


def _has_changed(folder: RunFolder, path: Path) -> bool:
    """Tells whether a data file of the run has changed since the run began."""
    names = [name for name, file in folder.config.files().items() if file == path.absolute()]
    return any(folder.data_sha256.get(name) != data_digest(path) for name in names)


def _propensities(counts: torch.Tensor, rows: int, constants: Propensity) -> torch.Tensor:
    """Returns the propensities of the labels; NaN, which leaves PSP undefined, after training on one row or two."""
    if rows < 3:
        return torch.full(counts.shape, torch.nan, dtype=torch.float64)
    return propensities(counts, rows, constants.a, constants.b)


def _encoded(model: Model, data: Dataset | None, name: str) -> Rows:
    """Encodes the rows of a file; labels that the model does not know come after its own."""
    assert data is not None
    try:
        return Rows(model.encode(data.inputs), renamed(data, _names_like(model, data)))
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


def _names_like(model: Model, data: Dataset) -> Sequence[str]:
    """Returns the names of the labels of both, those of the model first."""
    if isinstance(model.label_names, Numbered) and isinstance(data.label_names, Numbered):
        return Numbered(max(model.num_labels, data.num_labels))
    return tuple(dict.fromkeys((*model.label_names, *data.label_names)))


def ranking(summary: Summary) -> dict[str, float]:
    """Returns P, nDCG and PSP at each k."""
    return {f"{name}@{k}": summary.top_k(f"{name}@{k}") for name in ("p", "ndcg", "psp") for k in KS}


def _blocks(model: Model, rows: Rows, decision: Decision, weights: torch.Tensor, bars: Bars) -> Iterator[Weighable]:
    """Yields rows with their decisions: all at once where all scores are held, else some thousand at a time."""
    bar = bars.add_task("evaluating", total=len(rows))
    for part in torch.arange(len(rows)).split(len(rows) if rows.keep is None else _ROWS):
        scores = model.score(Part(rows.encoded, part), rows.keep, lambda count: bars.advance(bar, count))
        decided = decision.rule.decide(scores)
        yield _weighable(scores, decided, rows.data.take(part), weights)
    bars.remove_task(bar)


def _weighable(scores: Scores, decided: torch.Tensor | None, data: Dataset, weights: torch.Tensor) -> Weighable:
    """Joins scores with the truth, in which there may be labels that the scores do not know."""
    more = data.num_labels - scores.num_labels
    if more and scores.columns is None:
        scores = Scores(pad(scores.values, (0, more), value=-1e30), None, data.num_labels)
        decided = None if decided is None else pad(decided, (0, more))
    elif more:
        columns = scores.columns
        assert columns is not None
        columns = torch.where(columns == scores.num_labels, data.num_labels, columns)
        scores = Scores(scores.values, columns, data.num_labels)
    targets = data.hard_targets()
    truth = None if scores.columns is None else Truth.of(targets, len(data), data.num_labels)
    return Weighable(Judged.of(scores, targets), decided, KS, truth, weights)


def _popular(counts: torch.Tensor, rows: Rows, weights: torch.Tensor) -> Iterator[Weighable]:
    """Yields the rows with the labels ranked by their number of training rows."""
    top = counts.topk(min(max(KS), len(counts)))
    for part in torch.arange(len(rows)).split(_ROWS):
        shape = len(part), len(top.indices)
        scores = Scores(top.values.float().expand(shape), top.indices.expand(shape), len(counts))
        yield _weighable(scores, None, rows.data.take(part), weights)


def _summary(blocks: Iterator[Weighable]) -> Summary:
    """Adds up what metrics are made of."""
    sums: Sums = {}
    table = {}
    for block in blocks:
        part = block.summary()
        sums = {name: sums.get(name, np.zeros(())) + part.sums[name] for name in ("labels", "rows", "known", "top")}
        table = {"average_precision": part.table["average_precision"]}
    return Summary(sums, table, ks=KS)
