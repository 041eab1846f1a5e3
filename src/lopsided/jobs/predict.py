"""Runs `lopsided predict`: the labels that a trained model gives to rows, some thousand at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rich.progress import Progress as Bars

from lopsided.data.inputs import Inputs
from lopsided.data.readers import read_inputs
from lopsided.data.storage import UserError, write_atomically
from lopsided.decision.choose import Decision
from lopsided.jobs.folder import RunFolder
from lopsided.models.model import Model
from lopsided.training.rows import CANDIDATES

_ALL_SCORES = 2**14  # labels up to which a rule sees all scores of a row


def predict_rows(model: Model, decision: Decision, inputs: Inputs) -> Iterator[dict[str, Any]]:
    """Yields for each row the labels that the rule predicts, the most probable first.

    {"labels": ["billing", "login"], "probabilities": [0.93, 0.41]}

    Where neither validation rows nor the loss tell probabilities, "scores" stand in their place.
    """
    keep = None if model.num_labels <= _ALL_SCORES else CANDIDATES
    name = "scores" if decision.calibrator is None else "probabilities"
    for scores in model.blocks(model.encode(inputs), keep):
        decided = scores.where_listed(decision.rule.decide(scores), False)
        values = scores.values if decision.calibrator is None else decision.calibrator(scores)
        for row, (chosen, value) in enumerate(zip(decided, values, strict=True)):
            places = chosen.nonzero().flatten()
            falling, order = value[places].sort(descending=True, stable=True)
            places = places[order]
            labels = places if scores.columns is None else scores.columns[row][places]
            names = [model.label_names[label] for label in labels.tolist()]
            yield {"labels": names, name: [round(number, 6) for number in falling.tolist()]}


def write_predictions(folder: RunFolder, data: Path, out: Path, bars: Bars) -> str:
    """Writes a line of JSON for each row of a file, see `predict_rows`; returns the name of the rule."""
    if out.exists() and data.exists() and out.samefile(data):
        raise UserError(f"--out: {out} holds the rows to predict; name another file")
    model, decision = folder.read_model(), folder.read_decision()
    bar = bars.add_task("predicting", total=None)

    def write(file: BinaryIO) -> None:
        for inputs in read_inputs(data, folder.config.read_options()):
            for prediction in predict_rows(model, decision, inputs):
                file.write(json.dumps(prediction, ensure_ascii=False).encode() + b"\n")
            bars.advance(bar, len(inputs))

    try:
        write_atomically(out, write)
    except ValueError as error:
        raise UserError(f"{data}: {error}") from None
    return decision.name
