"""Runs `lopsided export`: a trained model with its calibration and its rule as one ONNX graph.

The graph begins with numbers: of tokens, of features, of pixels. What makes them, such as the hashing of n-grams or a
tokenizer, stands beside it:

NAME.onnx            takes numbers as they are in a file, pixels, tokens or numbers of features (docs/models.md); gives
                     scores, probabilities (where the run tells any) and decided
NAME.json            the names of inputs and labels, and the settings of the encoder
NAME.safetensors     the tensors of the encoder, if it has any
"""

from __future__ import annotations

import inspect
import logging
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lopsided.data import BUILT_IN
from lopsided.data.inputs import Inputs
from lopsided.data.readers import read_inputs
from lopsided.data.storage import UserError, replace_atomically, write_json, write_tensors
from lopsided.decision.choose import Decision
from lopsided.decision.rules import LabelThresholds, OnProbabilities, Threshold
from lopsided.jobs.predict import Predictor
from lopsided.jobs.progress import busy
from lopsided.jobs.run_header import graph, output
from lopsided.models.encoder import Encoded, InGraph
from lopsided.models.heads import Head
from lopsided.models.model import Model
from lopsided.models.tree import TreeHead

_EXAMPLES = 4  # rows that the graph is traced with; any number of rows can be given to it


class Deployed(nn.Module):
    """Maps what an encoder gives to scores, probabilities and decisions, each (n, L)."""

    def __init__(self, model: Model, body: nn.Module, decision: Decision) -> None:
        super().__init__()
        self.body, self.head, self.decision = body, model.network.head, decision

    @property
    def outputs(self) -> list[str]:
        names = {"scores": True, "probabilities": self.decision.calibrator is not None, "decided": True}
        return [name for name, given in names.items() if given]

    def forward(self, *batch: Tensor) -> tuple[Tensor, ...]:
        scores = cast("Head", self.head).logits(self.body(*batch)).float()
        calibrator = self.decision.calibrator
        middle = () if calibrator is None else (calibrator(scores).float(),)
        return (scores, *middle, self.decision.rule.decide(scores))


@busy("exporting")
def export(run: Path, out: Path, rows: Path | None = None) -> list[Path]:
    """Writes the graph and what stands beside it; returns the files.

    rows: a file of some rows, with which the graph is traced; None for the training file. Raises UserError where a part
    of the model cannot stand in a graph.
    """
    header, rest = (output(graph(out).with_suffix(ending)) for ending in (".json", ".safetensors"))
    predictor = Predictor.open(run)
    model = predictor.model
    if isinstance(model.network.head, TreeHead):
        raise UserError(
            f"{run}: a tree over labels cannot be exported, since each row goes another way; --model bag can"
        )
    rule = predictor.decision.rule
    rule = rule.rule if isinstance(rule, OnProbabilities) else rule
    if not isinstance(rule, Threshold | LabelThresholds):
        raise UserError(
            f"{run}: the rule {predictor.decision.name} orders or counts the labels of a row, which the graph cannot; "
            "train it again with thresholds: --decide per-label, global, own or macro-f1"
        )
    encoded, deployed = deployable(predictor, _some_rows(predictor, rows))
    batch = encoded.batch(torch.arange(_EXAMPLES))
    names = _input_names(deployed.body, len(batch))
    replace_atomically(out, lambda path: _write_graph(deployed, batch, names, path))
    values, tensors = model.encoder.stored()
    beside = {
        "inputs": names,
        "outputs": deployed.outputs,
        "labels": list(model.label_names),
        "loss": model.method,
        "rule": predictor.decision.name,
        "encoder": model.encoder.name,
        "encoder_values": values,
    }
    write_json(header, beside)
    if tensors:
        write_tensors(rest, tensors)
    return [out, header, *([rest] if tensors else [])]


def deployable(predictor: Predictor, inputs: Inputs) -> tuple[Encoded, Deployed]:
    """Returns rows as the graph takes them, and what the graph computes."""
    model, body = predictor.model, predictor.model.network.body
    encoder, encoded = model.encoder, None
    if isinstance(encoder, InGraph):
        encoded, body = encoder.in_graph(inputs, body)
    return encoded or model.encode(inputs), Deployed(model, body, predictor.decision).eval()


def _some_rows(predictor: Predictor, rows: Path | None) -> Inputs:
    if rows is None and str(predictor.data) == BUILT_IN:
        from lopsided.data.digits_grid import digits_grid  # and scikit-learn, which takes a second

        return digits_grid(train=_EXAMPLES, valid=0, test=0).train.inputs
    path = rows or predictor.data
    first = next(read_inputs(path, predictor.read_options), None)
    count = 0 if first is None else len(first)
    if first is None or count < _EXAMPLES:
        raise UserError(f"{path}: {count} rows; a graph is traced with {_EXAMPLES}: name more with --rows")
    return first.take(torch.arange(_EXAMPLES))


def _input_names(body: nn.Module, number: int) -> list[str]:
    """Returns the names that the body gives its arguments."""
    names = [*inspect.signature(body.forward).parameters]
    return names if len(names) == number else [f"input_{place}" for place in range(number)]


def _write_graph(deployed: Deployed, batch: tuple[Tensor, ...], names: list[str], path: Path) -> None:
    try:
        import onnxscript  # noqa: F401, torch needs it and would say so in many lines
    except ModuleNotFoundError:
        raise UserError("export needs onnx and onnxscript; install them with: pip install 'lopsided[onnx]'") from None
    for tool in ("torch.onnx", "onnxscript", "onnx_ir"):  # they tell of every step
        logging.getLogger(tool).setLevel(logging.ERROR)
    shapes = tuple(dict.fromkeys(range(tensor.ndim), torch.export.Dim.AUTO) for tensor in batch)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                deployed,
                batch,
                dynamo=True,
                dynamic_shapes=(shapes,),
                input_names=names,
                output_names=deployed.outputs,
                verbose=False,
            )
    except Exception as error:  # of any part of torch's exporter
        problem = " ".join(str(error).split())[:300]
        name = deployed.decision.name
        raise UserError(f"the model, or its rule {name}, cannot be written as ONNX: {problem}") from None
    program.save(path)
