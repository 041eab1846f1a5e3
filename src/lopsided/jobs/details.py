"""Makes details.json from the scores of the runs: what the report shows beside the tables of results.json.

Curves and rows are of the first seed whose training did not diverge, since a user deploys one model; what stands per
label is the mean over all such seeds. Sizes are bounded, whatever the data: POINTS per curve, LABELS labels, ROWS best
and ROWS worst rows, texts cut to TEXT characters.
"""

from __future__ import annotations

import base64
import io
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from matplotlib.image import imsave
from torch import Tensor

from lopsided.compute.native import run as native
from lopsided.data import MultiLabelData, Splits
from lopsided.decision.calibrators import ClosedForm, fit_platt
from lopsided.jobs.folder import TrainedRun
from lopsided.jobs.schema import (
    DecisionCurves,
    Details,
    FrequencyGroups,
    GradientCurves,
    LabelTable,
    ReliabilityCurve,
    Results,
    RowExample,
    RowExamples,
)
from lopsided.losses.closed_form import profile
from lopsided.metrics.counts import Counts
from lopsided.metrics.reliability import reliability
from lopsided.metrics.scores import Judged
from lopsided.metrics.weighted import label_precision
from lopsided.training.objective import Powerset, parse_method

POINTS = 200
LABELS = 1000
ROWS = 6
TEXT = 300
_NAME = 80  # characters of a label
_NAMES = 12  # labels of a row, of each kind


def details(splits: Splits, runs: Sequence[TrainedRun], results: Results) -> Details:
    """Returns the label table, best and worst rows, curves of decisions and of losses, and where it was computed."""
    finished = [run for run in runs if not run.history[-1].is_lost]
    seeds = {loss: [run for run in finished if run.loss == loss] for loss in results.losses}
    known = {loss: group for loss, group in seeds.items() if group}
    decided = {
        loss: [run.scores > _finite(results.losses[loss].tuned_thresholds[run.seed]) for run in group]
        for loss, group in known.items()
    }
    trained = {loss: entry.settings for loss, entry in results.losses.items()}  # with tuned values, if it was tuned
    first = {loss: group[0] for loss, group in decided.items()}
    winner = results.best_loss(results.metric)
    return Details(
        labels=_label_table(splits, known, decided, winner),
        rows=_row_examples(splits.test, first, winner) if winner else None,
        curves={loss: _curves(group[0], splits.test.targets) for loss, group in known.items()},
        reliability={loss: _reliability(trained[loss], group[0], splits) for loss, group in known.items()},
        gradients={loss: _gradients(spec) for loss, spec in trained.items()},
        environment=_environment(),
    )


def _label_table(
    splits: Splits, runs: Mapping[str, list[TrainedRun]], decided: Mapping[str, list[Tensor]], winner: str | None
) -> LabelTable:
    """Returns positives, and for each loss average precision and F1 at the tuned threshold, of the labels shown."""
    truth = splits.test.targets
    precision = {
        loss: torch.stack([torch.from_numpy(label_precision(Judged.of(run.scores, truth))) for run in group]).mean(0)
        for loss, group in runs.items()
    }
    f1 = {loss: torch.stack([_f1(one, truth, 0) for one in group]).mean(0) for loss, group in decided.items()}
    positives = truth.sum(0)
    trained = splits.train.targets.sum(0)
    shown = _shown(positives, precision[winner] if winner else positives.double())
    return LabelTable(
        total=len(splits.test.labels),
        names=[_cut(splits.test.labels[label], _NAME) for label in shown],
        train_positives=trained[shown].tolist(),
        test_positives=positives[shown].tolist(),
        average_precision={loss: _rounded(values[shown]) for loss, values in precision.items()},
        f1={loss: _rounded(values[shown]) for loss, values in f1.items()},
        by_frequency=_by_frequency(trained, positives, precision),
    )


def _by_frequency(trained: Tensor, positives: Tensor, precision: Mapping[str, Tensor]) -> FrequencyGroups:
    """Computes mean average precision of up to ten groups of labels, equally large, from rare to frequent."""
    known = positives.nonzero().flatten()
    split = known[trained[known].argsort(stable=True)].tensor_split(max(1, min(10, len(known) // 2)))
    groups = [group for group in split if len(group)]  # without any positive there is no group
    return FrequencyGroups(
        train_positives=[round(float(trained[group].double().mean()), 1) for group in groups],
        average_precision={
            loss: [round(float(values[group].mean()), 5) for group in groups] for loss, values in precision.items()
        },
    )


def _shown(positives: Tensor, precision: Tensor) -> list[int]:
    """Returns label numbers: all, by frequency, or if too many, half the most frequent, half the worst others."""
    order: list[int] = positives.argsort(descending=True, stable=True).tolist()
    if len(order) <= LABELS:
        return order
    frequent, others = order[: LABELS // 2], torch.tensor(order[LABELS // 2 :])
    worst = others[precision[others].nan_to_num(nan=2.0).argsort(stable=True)[: LABELS - len(frequent)]]
    return frequent + worst.tolist()


def _row_examples(test: MultiLabelData, decided: Mapping[str, Tensor], winner: str) -> RowExamples:
    """Returns the rows with the highest and with the lowest F1 of the winner's decisions, most labels first."""
    f1 = {loss: _f1(decisions, test.targets, 1) for loss, decisions in decided.items()}
    wrong, true = (decided[winner] != test.targets).sum(1), test.targets.sum(1)
    worst = np.lexsort((-wrong.numpy(), f1[winner].numpy(), wrong.numpy() == 0))[:ROWS]  # no error: last
    best = np.lexsort((-true.numpy(), -f1[winner].numpy()))[:ROWS]

    def example(row: int) -> RowExample:
        values = {loss: round(float(of_rows[row]), 3) for loss, of_rows in f1.items()}
        return RowExample(row=row + 1, f1=values, **_input(test, row), **_names(test, decided[winner], row))

    return RowExamples(loss=winner, best=list(map(example, best.tolist())), worst=list(map(example, worst.tolist())))


def _input(test: MultiLabelData, row: int) -> dict[str, Any]:
    """Returns the text of a row, or its picture."""
    if not isinstance(test.inputs, Tensor):
        return {"text": _cut(test.inputs[row], TEXT)}
    picture = io.BytesIO()
    pixels = test.inputs[row].permute(1, 2, 0).numpy()
    imsave(picture, pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255, format="png")
    return {"png": base64.b64encode(picture.getvalue()).decode()}


def _names(test: MultiLabelData, decisions: Tensor, row: int) -> dict[str, Any]:
    """Returns labels that are rightly predicted, missed, and wrongly predicted; of many, the first."""
    truth, predicted = test.targets[row], decisions[row]
    kinds = {"right": truth & predicted, "missed": truth & ~predicted, "wrong": predicted & ~truth}
    return {
        kind: [_cut(test.labels[label], _NAME) for label in chosen.nonzero().flatten().tolist()[:_NAMES]]
        + [f"and {int(chosen.sum()) - _NAMES} more"] * bool(chosen.sum() > _NAMES)
        for kind, chosen in kinds.items()
    }


def _f1(decisions: Tensor, truth: Tensor, dim: int) -> Tensor:
    """Returns F1 in float64; see `Counts`."""
    value: Tensor = Counts(*(each.sum(dim).double() for each in (decisions & truth, decisions, truth))).f_beta()
    return value


def _curves(run: TrainedRun, truth: Tensor) -> DecisionCurves:
    """Computes precision, recall and F1 of the test rows at POINTS thresholds, which lie at equal steps of recall.

    A threshold lies just below the score of a positive. Macro-F1 leaves out labels without positives.
    """
    positive = run.scores[truth].sort().values
    places = torch.linspace(0, len(positive) - 1, POINTS).round().long() if len(positive) else torch.zeros(0).long()
    thresholds = torch.nextafter(positive[places].unique(), torch.tensor(-torch.inf))
    hits, predicted = (_above(run.scores, thresholds, counted) for counted in (truth, torch.ones_like(truth)))
    by_label, true = Counts(hits, predicted, truth.sum(0)), truth.sum(0)
    overall = Counts(hits.sum(1), predicted.sum(1), true.sum())
    return DecisionCurves(
        seed=run.seed,
        threshold=_rounded(thresholds),
        precision=_rounded(overall.precision()),
        recall=_rounded(overall.recall()),
        micro_f1=_rounded(overall.f_beta()),
        macro_f1=_rounded(by_label.f_beta()[:, true > 0].mean(1)),
    )


def _above(scores: Tensor, thresholds: Tensor, counted: Tensor) -> Tensor:
    """Counts the scores of each label that lie above each threshold: (thresholds, L) float64."""
    labels, steps = scores.shape[1], len(thresholds) + 1
    passed = torch.bucketize(scores, thresholds)  # how many thresholds lie below each score
    cell = (torch.arange(labels) * steps + passed)[counted]
    histogram = torch.bincount(cell, minlength=labels * steps).view(labels, steps)
    return histogram.flip(1).cumsum(1).flip(1)[:, 1:].T.double()


def _reliability(spec: str, run: TrainedRun, splits: Splits) -> dict[str, ReliabilityCurve]:
    """Measures three readings of a score: as a logit, as the loss implies, as fitted to validation rows (Platt)."""
    readings: dict[str, Callable[[], Tensor]] = {
        "logit": lambda: torch.sigmoid(run.scores.double()),
        "implied": lambda: ClosedForm(spec)(run.scores),
        "fitted": lambda: fit_platt(Judged.of(run.valid_scores, splits.valid.targets))(run.scores),
    }
    curves = {}
    for name, read in readings.items():
        with suppress(ValueError):  # the loss implies no probability, or validation has no positive
            points = reliability(read(), splits.test.targets)
            filled = points.count > 0
            columns = {each: getattr(points, each)[filled] for each in ("predicted", "observed", "low", "high")}
            rounded = {each: _rounded(values) for each, values in columns.items()}
            curves[name] = ReliabilityCurve(calibration_error=points.calibration_error, **rounded)
    return curves


def _gradients(spec: str) -> GradientCurves | None:
    """Computes gradient sizes on a positive and a negative label; None for powerset, which has none per label."""
    loss = parse_method(spec)
    if isinstance(loss, Powerset):
        return None
    p = torch.linspace(0.001, 0.999, POINTS, dtype=torch.float64)
    positive, negative = (_rounded(profile(loss, torch.logit(p), side)[1].abs()) for side in (True, False))
    return GradientCurves(p=_rounded(p), coupled=not loss.pool.per_label, positive=positive, negative=negative)


def _environment() -> dict[str, str]:
    return {
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "torch": f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        "numpy": np.__version__,
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "losses computed by": "plain torch" if isinstance(native.library(), str) else "the C library",
    }


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _finite(threshold: float | None) -> float:
    return math.inf if threshold is None else threshold


def _rounded(values: Tensor) -> list[Any]:
    return [round(value, 5) for value in values.tolist()]
