"""Makes details.json from the scores of the runs: what the report shows beside the tables of results.json.

Curves and rows are of the first seed whose training did not diverge, since a user deploys one model; what stands per
label is the mean over all such seeds. Sizes are bounded, whatever the data: POINTS per curve, LABELS labels, ROWS best
and ROWS worst rows, texts cut to TEXT characters.
"""

from __future__ import annotations

import base64
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lopsided.compute.native import run as native
from lopsided.data.dataset import Dataset
from lopsided.decision.calibrators import fit_platt
from lopsided.jobs.evidence import Evidence
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
from lopsided.jobs.score import Scored
from lopsided.losses import Formula
from lopsided.losses.closed_form import posterior, profile
from lopsided.metrics.counts import Counts
from lopsided.metrics.reliability import reliability
from lopsided.metrics.scores import Judged
from lopsided.models.methods import Method

POINTS = 200
LABELS = 1000
ROWS = 6
TEXT = 300
_NAME = 80  # characters of a label
_NAMES = 12  # labels of a row, of each kind


def details(evidence: Evidence, results: Results) -> Details:
    """Returns the label table, best and worst rows, curves of decisions and of losses, and where it was computed."""
    finished = {
        loss: [(seed, one) for seed, one in enumerate(group) if not one.diverged]
        for loss, group in evidence.scored.items()
    }
    known = {loss: group for loss, group in finished.items() if group}
    methods = {loss: training.method for loss, training in evidence.trained.items()}  # with tuned values
    first = {loss: group[0][1] for loss, group in known.items()}
    winner = results.best_loss(results.metric)
    return Details(
        labels=_label_table(evidence, {loss: [one for _, one in group] for loss, group in known.items()}, winner),
        rows=_row_examples(evidence.test, first, winner) if winner else None,
        curves={loss: _curves(*group[0]) for loss, group in known.items()},
        reliability={loss: _reliability(methods[loss], one) for loss, one in first.items()},
        gradients={loss: _gradients(method) for loss, method in methods.items()},
        environment=_environment(),
    )


def _label_table(evidence: Evidence, scored: Mapping[str, Sequence[Scored]], winner: str | None) -> LabelTable:
    """Returns positives, and for each loss average precision and F1 at the tuned threshold, of the labels shown."""
    test, positives = evidence.test, evidence.positives["test"]
    trained = evidence.positives.get("train", positives)
    summaries = {loss: [one.at("tuned").summary() for one in group] for loss, group in scored.items()}
    precision = {
        loss: torch.from_numpy(np.mean([each.table["average_precision"] for each in group], 0))
        for loss, group in summaries.items()
    }
    f1 = {
        loss: torch.from_numpy(np.mean([each.labels.f_beta() for each in group], 0))
        for loss, group in summaries.items()
    }
    shown = _shown(positives, precision[winner] if winner else positives.double())
    return LabelTable(
        total=test.num_labels,
        names=[_cut(test.label_names[label], _NAME) for label in shown],
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


def _row_examples(test: Dataset, scored: Mapping[str, Scored], winner: str) -> RowExamples:
    """Returns the rows with the highest F1 of the winner's decisions, and with errors those with the lowest.

    Of equals, those with most labels, or errors, come first.
    """
    positives = torch.bincount(test.positives()[0], minlength=len(test))
    decided = {loss: one.decide("tuned") for loss, one in scored.items()}
    counts = {
        loss: Counts((decided[loss] & one.test.hits).sum(1), _known(decided[loss], one).sum(1), positives)
        for loss, one in scored.items()
    }
    f1 = {loss: Counts(*(each.double() for each in count)).f_beta() for loss, count in counts.items()}
    count = counts[winner]
    wrong = (count.predicted - count.hits) + (count.positives - count.hits)
    worst = np.lexsort((-wrong.numpy(), f1[winner].numpy(), wrong.numpy() == 0))[: min(ROWS, int((wrong > 0).sum()))]
    best = np.lexsort((-positives.numpy(), -f1[winner].numpy()))[:ROWS]

    def example(row: int) -> RowExample:
        values = {loss: round(float(of_rows[row]), 3) for loss, of_rows in f1.items()}
        excerpt = test.inputs.excerpt(row)
        shown: dict[str, Any] = (
            {"text": _cut(excerpt, TEXT)} if isinstance(excerpt, str) else {"png": base64.b64encode(excerpt).decode()}
        )
        return RowExample(row=row + 1, f1=values, **shown, **_names(test, scored[winner], decided[winner], row))

    return RowExamples(loss=winner, best=list(map(example, best.tolist())), worst=list(map(example, worst.tolist())))


def _known(decided: Tensor, scored: Scored) -> Tensor:
    return decided if scored.test.known is None else decided & scored.test.known


def _names(test: Dataset, scored: Scored, decided: Tensor, row: int) -> dict[str, Any]:
    """Returns labels that are rightly predicted, missed, and wrongly predicted; of many, the first."""
    columns, chosen = scored.test.scores.columns, _known(decided, scored)[row].nonzero().flatten()
    predicted = set((chosen if columns is None else columns[row][chosen]).tolist())
    truth = set(test.take(torch.tensor([row])).positives()[1].tolist())
    kinds = {"right": truth & predicted, "missed": truth - predicted, "wrong": predicted - truth}
    return {
        kind: [_cut(test.label_names[label], _NAME) for label in sorted(labels)[:_NAMES]]
        + [f"and {len(labels) - _NAMES} more"] * (len(labels) > _NAMES)
        for kind, labels in kinds.items()
    }


def _curves(seed: int, scored: Scored) -> DecisionCurves:
    """Computes precision, recall and F1 of the test rows at POINTS thresholds, which lie at equal steps of recall.

    A threshold lies just below the score of a positive. Macro-F1 leaves out labels without positives.
    """
    judged = scored.test
    positive = judged.scores.values[judged.hits].sort().values
    places = torch.linspace(0, len(positive) - 1, POINTS).round().long() if len(positive) else torch.zeros(0).long()
    thresholds = torch.nextafter(positive[places].unique(), torch.tensor(-torch.inf))
    listed = judged.scores.where_listed(torch.ones_like(judged.hits), False)
    hits, predicted = (_above(judged, thresholds, counted) for counted in (judged.hits, _known(listed, scored)))
    by_label, true = Counts(hits, predicted, judged.positives), judged.positives
    overall = Counts(hits.sum(1), predicted.sum(1), true.sum())
    return DecisionCurves(
        seed=seed,
        threshold=_rounded(thresholds),
        precision=_rounded(overall.precision()),
        recall=_rounded(overall.recall()),
        micro_f1=_rounded(overall.f_beta()),
        macro_f1=_rounded(by_label.f_beta()[:, true > 0].mean(1)),
    )


def _above(judged: Judged, thresholds: Tensor, counted: Tensor) -> Tensor:
    """Counts the scores of each label that lie above each threshold: (thresholds, L) float64."""
    scores, steps = judged.scores, len(thresholds) + 1
    passed = torch.bucketize(scores.values, thresholds)  # how many thresholds lie below each score
    cell = (scores.at(torch.arange(scores.num_labels)) * steps + passed)[counted]
    histogram = torch.bincount(cell, minlength=scores.num_labels * steps).view(scores.num_labels, steps)
    return histogram.flip(1).cumsum(1).flip(1)[:, 1:].T.double()


def _reliability(method: Method | None, scored: Scored) -> dict[str, ReliabilityCurve]:
    """Measures three readings of a score: as a logit, as the loss implies, as fitted to validation rows (Platt).

    Without candidates only: those are the most probable labels, so that they say nothing about all of them.
    """
    test = scored.test
    if test.scores.columns is not None:
        return {}
    values = test.scores.values
    readings: dict[str, Callable[[], Tensor]] = {
        "logit": lambda: torch.sigmoid(values.double()),
    }
    if isinstance(method, Formula):
        readings["implied"] = lambda: posterior(method, values)
    if scored.validated:
        readings["fitted"] = lambda: fit_platt(scored.valid)(values)
    curves = {}
    for name, read in readings.items():
        with suppress(ValueError):  # the loss implies no probability, or validation has no positive
            points = reliability(read(), scored.targets)
            filled = points.count > 0
            columns = {each: getattr(points, each)[filled] for each in ("predicted", "observed", "low", "high")}
            rounded = {each: _rounded(values) for each, values in columns.items()}
            curves[name] = ReliabilityCurve(calibration_error=points.calibration_error, **rounded)
    return curves


def _gradients(method: Method | None) -> GradientCurves | None:
    """Computes gradient sizes on a positive and a negative label; None for what has none per label, or is unknown."""
    if not isinstance(method, Formula):
        return None
    p = torch.linspace(0.001, 0.999, POINTS, dtype=torch.float64)
    positive, negative = (_rounded(profile(method, torch.logit(p), side)[1].abs()) for side in (True, False))
    return GradientCurves(p=_rounded(p), coupled=not method.pool.per_label, positive=positive, negative=negative)


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


def _rounded(values: Tensor) -> list[Any]:
    return [round(value, 5) for value in values.tolist()]
