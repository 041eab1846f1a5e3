"""Runs `lopsided predict`: the labels that a trained model gives to rows, some thousand at a time."""

from __future__ import annotations

import json
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from rich.progress import Progress as Bars

from lopsided.data.excerpts import printable
from lopsided.data.image_files import ImageFiles
from lopsided.data.inputs import Inputs, Table, Texts
from lopsided.data.opening import STANDARD_INPUT
from lopsided.data.options import ReadOptions
from lopsided.data.readers import find_format, read_inputs
from lopsided.data.storage import UserError, write_atomically
from lopsided.decision.choose import Decision
from lopsided.jobs.config import read_otherwise
from lopsided.jobs.folder import RunFolder
from lopsided.jobs.prediction_files import check_ending, writer_for
from lopsided.jobs.progress import say
from lopsided.jobs.run_header import output
from lopsided.metrics.scores import Scores
from lopsided.models.model import Model
from lopsided.training.rows import CANDIDATES

_ALL_SCORES = 2**14  # labels up to which a rule sees all scores of a row

Prediction = dict[str, Any]


@dataclass(frozen=True)
class Predictor:
    """Holds a trained model with its rule: what `lopsided.load` returns.

    data: the file of training. read_options: how that was read, and so are those to predict.
    """

    model: Model
    decision: Decision
    data: Path
    read_options: ReadOptions

    @classmethod
    def open(cls, folder: Path) -> Predictor:
        """Reads the folder of a run. Raises UserError where it holds no model, or a damaged one."""
        run = RunFolder.open(folder)
        model = run.read_model()
        options = run.config.read_options().with_categories(model.category_names)
        return cls(model, run.read_decision(), Path(run.config.data), options)

    @property
    def values(self) -> str:
        """Returns what stands beside the labels: "probabilities", or "scores" where no one tells probabilities."""
        return "scores" if self.decision.calibrator is None else "probabilities"

    def predict(self, rows: Inputs | Sequence[str] | Any) -> list[Prediction]:
        """Returns for each row the labels that the rule predicts, the most probable first.

        [{"labels": ["billing", "login"], "probabilities": [0.93, 0.41]}, ...]

        rows: texts; an array (rows, columns) of numbers; a table with the columns of training, as a DataFrame of pandas
        or a list of dictionaries; or any `Inputs` that the model takes. Raises ValueError for rows of another kind than
        those of training, or without a column of those.
        """
        lines = _lines_of(rows)
        return list(self.stream(as_inputs(rows))) if lines is None else of_lines(self, lines)

    def stream(self, inputs: Inputs) -> Iterator[Prediction]:
        """Yields the same, row by row."""
        if not len(inputs):  # encoders need not take none
            return
        model, decision = self.model, self.decision
        keep = None if model.num_labels <= _ALL_SCORES else CANDIDATES
        for scores in model.blocks(model.encode(inputs), keep):
            decided = scores.where_listed(decision.rule.decide(scores), False)
            found = decided.nonzero(as_tuple=True)
            label, worth = found[1] if scores.columns is None else scores.columns[found], scores.values[found]
            if decision.calibrator is not None:  # of what is decided alone, as one row: of 10,000 labels, few are
                worth = decision.calibrator(Scores(worth[None], label[None], scores.num_labels))[0]
            row, place, labels, value = (each.numpy() for each in (*found, label, worth.double()))
            order = np.lexsort((place, -value, row))
            ends = np.searchsorted(row, np.arange(1, len(scores)))
            for some in np.split(order, ends):
                names = [model.label_names[label] for label in labels[some].tolist()]
                yield {"labels": names, self.values: [round(number, 6) for number in value[some].tolist()]}


def _lines_of(rows: Any) -> str | None:
    """Returns a table that a user holds as JSON lines; None for rows of another kind."""
    if hasattr(rows, "to_json") and hasattr(rows, "columns"):
        lines: str = rows.to_json(orient="records", lines=True, double_precision=15)
        return lines
    if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
        return "".join(json.dumps(row, default=_plain) + "\n" for row in rows)
    return None


def _plain(value: Any) -> Any:
    """Returns a number of numpy or torch as Python's."""
    if not hasattr(value, "item"):
        raise ValueError(f"expected cells of texts and numbers, got {type(value).__name__}")
    return value.item()


def of_lines(predictor: Predictor, lines: str) -> list[Prediction]:
    """Returns the predictions of a file of JSON lines, in which one is a row, whatever was joined in training.

    All goes through the reader of files, so that nothing is read in another way here than there. Raises UserError for
    rows that it cannot read.
    """
    if not lines.strip():
        return []
    options = predictor.read_options.model_copy(update={"format": "json", "join_by": None})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text(lines, "utf-8")
        try:
            return [prediction for inputs in read_inputs(file, options) for prediction in predictor.stream(inputs)]
        except UserError as error:
            raise UserError(str(error).replace(str(file), "rows")) from None


def as_inputs(rows: Any) -> Inputs:
    """Returns what a user holds as inputs: texts, or an array of numbers. Raises ValueError for anything else."""
    if hasattr(rows, "excerpt"):
        inputs: Inputs = rows
        return inputs
    if isinstance(rows, str):
        raise ValueError('expected rows, such as ["a text", "another"], got one text')
    if getattr(rows, "ndim", 0) == 1:  # an array of texts, or a Series
        rows = rows.tolist()
    if isinstance(rows, Sequence) and all(isinstance(row, str) for row in rows):
        return Texts(tuple(rows))
    try:
        numbers = torch.as_tensor(np.asarray(rows, dtype=np.float32))
    except (TypeError, ValueError):
        odd = next((row for row in rows if not isinstance(row, str)), rows) if isinstance(rows, Sequence) else rows
        kind = type(odd).__name__
        raise ValueError(f"expected a list of texts or an array (rows, columns) of numbers, got {kind}") from None
    if numbers.ndim != 2:
        raise ValueError(f"expected a list of texts or an array (rows, columns), got {tuple(numbers.shape)}")
    return Table.of_numbers(numbers)


def _named(inputs: Inputs, kept: dict[str, list[str]]) -> Iterator[Prediction]:
    """Yields what says which row it is, beside its place in a file: the name of an image, and the cells kept of it."""
    told = kept | ({"image": inputs.names} if isinstance(inputs, ImageFiles) else {})
    return (dict(zip(told, cells, strict=True)) for cells in zip(*told.values(), strict=True)) if told else repeat({})


def write_predictions(
    folder: Path, data: Path, out: Path, bars: Bars, asked: dict[str, Any] | None = None, keep: Sequence[str] = ()
) -> tuple[int, str]:
    """Writes the predictions of every row of a file; returns how many those are, and the name of the rule.

    asked: options of reading in which the file differs from that of training. out: JSON lines as of
    `Predictor.predict`, with the name of each image file; .csv or .parquet for a table; - for standard output.
    keep: columns of the file to write beside them. Memory does not grow with the rows. What is found out about the file
    is said above the bars.
    """
    if out.is_file():
        read = {"the rows to predict": data} | RunFolder.open(folder).config.files()
        for what, path in read.items():
            if path.exists() and out.samefile(path):
                raise UserError(f"--out: {out} holds {what} of the run; name another file")
    check_ending(output(out))
    predictor = Predictor.open(folder)
    options = read_otherwise(predictor.read_options, asked or {})
    if data == STANDARD_INPUT and options.format is None and predictor.data.exists():  # it has no name that says it
        options = options.model_copy(update={"format": find_format(predictor.data, options).name})
    bar = bars.add_task("predicting", total=None)
    rows = 0

    def write(file: BinaryIO) -> None:
        nonlocal rows
        kept: deque[dict[str, list[str]]] = deque()  # of the block that was read ahead
        blocks = read_inputs(
            data, options, say=lambda note: say(bars, printable(f"{data.name}: {note}")), keep=keep, on_kept=kept.append
        )
        first = next(blocks, None)
        names = list(kept[0]) if kept else []  # a pattern such as * may name several
        for name in {"labels", predictor.values, "image"}.intersection(names):
            raise UserError(f"--keep: {name!r} is a name of what is written; name the column otherwise in the file")
        names += ["image"] if isinstance(first, ImageFiles) else []
        with writer_for(out, file, predictor.values, names) as add:
            for inputs in chain([] if first is None else [first], blocks):
                named = _named(inputs, kept.popleft() if kept else {})
                add([row | each for row, each in zip(named, predictor.stream(inputs), strict=False)])
                rows += len(inputs)
                bars.advance(bar, len(inputs))

    try:
        write_atomically(out, write)
    except ValueError as error:
        name = "standard input" if data == STANDARD_INPUT else data
        raise UserError(f"{name}: {error}") from None
    return rows, predictor.decision.name
