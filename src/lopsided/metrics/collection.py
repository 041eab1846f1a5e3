"""All metrics of a multi-label classifier, collected batch by batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from lopsided.metrics.batch import SCALES, Batch, read_batch
from lopsided.metrics.binned import binned_values, histogram
from lopsided.metrics.calibration_error import calibration_sums, expected_error
from lopsided.metrics.counts import Counts, Sums
from lopsided.metrics.exact_scores import ExactScores, label_values, micro_values, stored_label_values
from lopsided.metrics.lists import Array, ratio
from lopsided.metrics.registry import METRICS, Metric, top_k_metrics
from lopsided.metrics.scores import Scores
from lopsided.metrics.state import State, gather
from lopsided.metrics.summary import Summary, add_up
from lopsided.metrics.truth import Truth, as_tensor, member, places

_BOUNDED = {"map": "average_precision", "auroc": "auroc"}  # metrics whose error is bounded where binned, by column


@runtime_checkable
class Decider(Protocol):
    """A rule of `lopsided.decision.rules`."""

    def decide(self, scores: Scores, /) -> Tensor: ...


@dataclass(frozen=True)
class MetricValues:
    """The metrics of a collection.

    values: every metric by name, NaN where it is undefined. per_label: (L,) float64 tensors, NaN likewise.
    """

    rows: int
    rows_without_labels: int
    labels: int
    labels_without_positives: int  # left out of every mean over labels but that of calibration
    labels_without_negatives: int  # these have no AUROC either
    unknown: int  # labels of rows of which nothing is known: left out of everything
    values: dict[str, float]
    per_label: dict[str, Tensor]


class MultiLabelMetrics:
    """Collects the metrics of batches of rows; they do not depend on how the rows are cut into batches.

    Args:
        num_labels: L.
        scale: "logits" or "probabilities": what the scores are, in every batch.
        decide: a threshold t on the same scale, for `scores > t`: a number or a tensor, one for all labels or (L,); a
            loss, such as `lopsided.loss("asl")`, for the threshold that it implies; a rule of
            `lopsided.decision.rules`; or a function of (n, L) scores that gives (n, L) bool and looks at one row at a
            time. Probability one half when left out.
        ks: the ranks k of P@k, nDCG@k and PSP@k; 1 is always among them.
        propensity: (L,) in (0, 1], or None to leave out PSP@k (`lopsided.metrics.top_k.propensities`).
        calibration_bins: M of the expected calibration errors.
        binned: None for exact average precision and AUROC, which keep the scores: 4 bytes (8 if float64) for each row
            and label, and 8 for each positive. Or a number of bins: then memory does not grow with the rows, these
            values come with the most by which they can be wrong, and there is no adaptive calibration error.

    >>> metrics = MultiLabelMetrics(num_labels=3, scale="probabilities")
    >>> metrics.update(torch.tensor([[0.9, 0.2, 0.4], [0.3, 0.6, 0.1]]), torch.tensor([[1, 0, 0], [1, 1, 0]]))
    >>> result = metrics.result()
    >>> result.values["map"], result.labels_without_positives
    (1.0, 1)
    >>> result.per_label["recall"]
    tensor([0.5000, 1.0000,    nan], dtype=torch.float64)
    """

    def __init__(
        self,
        num_labels: int,
        scale: str,
        *,
        decide: float | Tensor | Decider | Callable[[Tensor], Tensor] | None = None,
        ks: Sequence[int] = (1, 3, 5),
        propensity: Tensor | None = None,
        calibration_bins: int = 15,
        binned: int | None = None,
    ) -> None:
        if scale not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(SCALES)}; got {scale!r}")
        _check_whole(num_labels=num_labels, calibration_bins=calibration_bins, binned=2 if binned is None else binned)
        for k in ks or (ks,):
            _check_whole(k=k)
        propensity = None if propensity is None else as_tensor(propensity)
        if propensity is not None and propensity.shape != (num_labels,):
            raise ValueError(f"propensity must have shape ({num_labels},), got {tuple(propensity.shape)}")
        if propensity is not None and not ((propensity > 0) & (propensity <= 1)).all():
            raise ValueError(f"propensity must lie in (0, 1], got {propensity.min():g} to {propensity.max():g}")
        self.num_labels, self.scale, self.binned, self.calibration_bins = num_labels, scale, binned, calibration_bins
        half = 0.0 if scale == "logits" else 0.5
        self.decide = _decider(half if decide is None else decide, num_labels, scale)
        self.ks, self.propensity = tuple(sorted({1, *ks})), propensity
        self._state = self._empty()

    @property
    def rows(self) -> int:
        return self._state.rows

    def reset(self) -> None:
        """Forgets all rows."""
        self._state = self._empty()

    @torch.no_grad()
    def update(self, scores: Any, targets: Any, *, mask: Any = None, ignore_index: int | None = None) -> None:
        """Adds rows.

        scores: (n, L) float, a tensor, numpy array or list; or sparse: a CSR tensor, a sparse matrix of scipy, or
        `Scores` of candidates. Entries that are not stored rank below all that are, equal to each other, and have
        probability 0. targets: (n, L) of 0 and 1, in the same forms, or `SparseTargets`. Unknown labels, by NaN,
        `mask`, (n, L) bool, True = known, or `ignore_index`, are left out of everything and counted.

        Raises ValueError for shapes that do not match, NaN scores, soft targets, and scores outside the scale.
        """
        scores = Scores.of(scores, self.num_labels)
        batch = read_batch(scores, Truth.of(targets, len(scores), self.num_labels, mask, ignore_index), self.scale)
        stored = batch.places is not None
        parts = [State(self._sums(part, self._decided(part, scores)), part.rows, stored) for part in batch.parts()]
        if parts and self.binned is None:
            parts[0].exact = [ExactScores.of(batch)]
        for part in parts:
            self._state.add(part)

    def merge(self, other: MultiLabelMetrics) -> None:
        """Adds the rows of another collection with the same settings; `decide` and `propensity` are not compared."""
        for name in ("num_labels", "scale", "ks", "calibration_bins", "binned"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"collections must have the same settings to merge: {name} is {mine} and {theirs}")
        self._state.add(other._state)

    def gathered(self, group: dist.ProcessGroup | None = None) -> MultiLabelMetrics:
        """Returns a new collection with the rows of all ranks of `torch.distributed`, the same on each of them.

        Tensors of the CPU travel, exact scores to all ranks. Every rank must call it, also one without rows.
        """
        if not dist.is_initialized():
            raise RuntimeError("gathered() needs torch.distributed: call init_process_group, or launch with torchrun")
        joined = copy.copy(self)
        joined._state = self._empty()
        for state in gather(self._state, self.num_labels, group):
            joined._state.add(state)
        return joined

    def compute(self) -> dict[str, float]:
        """Returns all metrics of the rows so far by name, to be logged; raises ValueError without any."""
        return self.result().values

    def result(self) -> MetricValues:
        """Returns all metrics of the rows so far, and of each label, and what was left out; ValueError without rows."""
        sums, rows = self._state.sums, self._state.rows
        if not rows:
            raise ValueError("no rows were collected: call update(scores, targets) first")
        positives, known = sums["labels"][2].copy(), sums["known"]  # the sums go on
        table, micro = self._ranked_labels()
        table = {"positives": positives, **_decision_table(Counts(*sums["labels"])), **table}
        table |= {"ece": expected_error(sums["bins"]), "brier": ratio(sums["brier"], known)}
        micro["ece"] = float(expected_error(sums["bins"].sum(1)))
        summary = Summary(sums, table, micro, self.ks)
        return MetricValues(
            rows,
            int(sums["row_ranks"][0]),
            self.num_labels,
            int((positives == 0).sum()),
            int((positives == known).sum()),
            int(rows * self.num_labels - known.sum()),
            {name: metric.value(summary) for name, metric in self._metrics(table).items()} | _errors(summary),
            {name: torch.from_numpy(column) for name, column in table.items()},
        )

    def _metrics(self, table: dict[str, Array]) -> dict[str, Metric]:
        """Returns the metrics that these settings make."""
        metrics = {
            name: metric
            for name, metric in METRICS.items()
            if "@" not in name or (name.endswith("@3") and name[0] in "CO")
        }
        metrics |= top_k_metrics(self.ks)
        left_out = [name for name in metrics if name.startswith("psp@") and self.propensity is None]
        left_out += ["ece_adaptive"] * ("ece_adaptive" not in table)
        return {name: metric for name, metric in metrics.items() if name not in left_out}

    def _empty(self) -> State:
        nothing = np.empty(0, np.int64)
        truth = Truth(0, self.num_labels, nothing, nothing)
        return State(self._sums(Batch(truth, np.empty((0, self.num_labels), np.float32)), nothing))

    def _decided(self, batch: Batch, scores: Scores) -> Array:
        """Returns the places of the labels decided for, rising, without unknown ones. scores: those of all its rows."""
        if isinstance(self.decide, np.ndarray | float):
            thresholds: Any = self.decide
            if isinstance(thresholds, np.ndarray) and batch.places is not None:
                thresholds = thresholds[batch.places % batch.labels]
            above = batch.scores > thresholds
            decided = np.flatnonzero(above) if batch.places is None else batch.places[above]
        elif isinstance(self.decide, Decider):
            part = scores if batch.places is not None else Scores.of(torch.from_numpy(batch.scores))
            decided = part.places(_checked(self.decide.decide(part), part.values))
        else:
            dense = batch.dense_scores(-math.inf if self.scale == "logits" else 0.0)
            decided = places(_checked(self.decide(dense), dense))
        return decided if not len(batch.truth.unknown) else decided[~member(decided, batch.truth.unknown)]

    def _sums(self, batch: Batch, decided: Array) -> Sums:
        """Returns the sums over a few rows."""
        batch = batch.without_unknown()
        sums = add_up(batch, decided, self.ks, self.propensity)
        sums |= calibration_sums(batch, self.scale, self.calibration_bins)
        if self.binned is not None:
            sums["histogram"] = histogram(batch, self.scale, self.binned)
        return sums

    def _ranked_labels(self) -> tuple[dict[str, Array], dict[str, float]]:
        """Computes average precision, AUROC and what goes with them, per label and of all labels as one list."""
        state = self._state
        if self.binned is not None:
            counts = state.sums["histogram"]
            names = "average_precision", "average_precision_error", "auroc", "auroc_error"
            of_all = (float(each[0]) for each in binned_values(counts.sum(1, keepdims=True)))
            return dict(zip(names, binned_values(counts), strict=True)), dict(zip(names, of_all, strict=True))
        positives, known = state.sums["labels"][2].astype(np.int64), state.sums["known"]
        micro = micro_values(state.exact, state.stored is True, int(known.sum()), int(positives.sum()))
        if state.stored:
            return stored_label_values(state.exact, positives, known), micro
        return label_values(state.exact, self.num_labels, self.scale, self.calibration_bins), micro


def _errors(summary: Summary) -> dict[str, float]:
    """Returns the most by which binned values can be wrong, none where they are exact."""
    errors = {}
    for name, column in _BOUNDED.items():
        if f"{column}_error" in summary.table:
            error = summary.table[f"{column}_error"]
            errors[f"{name}_error"] = summary.mean(error)
            errors[f"{name}_weighted_error"] = summary.mean(error, weighted=True)
            errors[f"{name}_micro_error"] = summary.micro[f"{column}_error"]
    return errors


def _decider(decide: Any, num_labels: int, scale: str) -> Any:
    """Returns a float of Python, compared in the dtype of the scores; (L,) thresholds; a rule; or a function."""
    if hasattr(decide, "decision_threshold"):
        if scale != "logits":
            raise ValueError(f"decide: the threshold of a loss is a logit, and the scores are {scale}")
        decide = decide.decision_threshold()
    if callable(decide) or isinstance(decide, Decider):
        return decide
    thresholds = as_tensor(decide).double().cpu()
    if thresholds.isnan().any() or thresholds.shape not in ((), (num_labels,)):
        raise ValueError(
            f"decide must be a number, a tensor of one or {num_labels} thresholds, a rule or a function, got {decide!r}"
        )
    return float(thresholds) if thresholds.ndim == 0 else thresholds.numpy()


def _checked(decided: Any, scores: Tensor) -> Tensor:
    if not isinstance(decided, Tensor) or decided.dtype != torch.bool or decided.shape != scores.shape:
        kind = f"{decided.dtype} {tuple(decided.shape)}" if isinstance(decided, Tensor) else type(decided).__name__
        raise ValueError(f"decide must give a bool tensor of shape {tuple(scores.shape)}, got {kind}")
    return decided.cpu()


def _decision_table(counts: Counts) -> dict[str, Array]:
    """Returns (L,) precision, recall and F1, NaN for labels without positives."""
    columns = {"precision": counts.precision(), "recall": counts.recall(), "f1": counts.f_beta()}
    return {name: np.where(counts.positives > 0, column, np.nan) for name, column in columns.items()}


def _check_whole(**given: object) -> None:
    for name, number in given.items():
        if type(number) is not int or number < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}")
