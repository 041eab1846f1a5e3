"""All metrics of a multi-label classifier, collected batch by batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from lopsided.metrics.batch import SCALES, Batch, member, read_batch
from lopsided.metrics.binned import binned_values, histogram
from lopsided.metrics.calibration_error import calibration_sums, expected_error
from lopsided.metrics.decision_sums import Sums, coco_values, decision_sums, decision_values, precision_recall_f1
from lopsided.metrics.kept import Kept, label_values, micro_values, stored_label_values
from lopsided.metrics.lists import Array, ratio
from lopsided.metrics.state import State, gather
from lopsided.metrics.top_k import RankedMetrics
from lopsided.targets import SparseTargets

_COCO = 3  # labels of the second half of the COCO tables


@dataclass(frozen=True)
class MetricValues:
    """What a collection found.

    values: every metric by name, NaN where it is undefined. per_label: (L,) float64 tensors, NaN likewise.
    """

    rows: int
    rows_without_labels: int
    labels: int
    labels_without_positives: int  # left out of every mean over labels but that of calibration
    labels_without_negatives: int  # these have no AUROC either
    values: dict[str, float]
    per_label: dict[str, Tensor]


class MultiLabelMetrics:
    """Collects the metrics of batches of rows; they do not depend on how the rows are cut into batches.

    Args:
        num_labels: L.
        scale: "logits" or "probabilities": what the scores are, in every batch.
        decide: a threshold t on the same scale, for `scores > t`, or a function of (n, L) scores that gives (n, L)
            bool and looks at one row at a time. Probability one half when left out.
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
        decide: float | Callable[[Tensor], Tensor] | None = None,
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
        if decide is not None and not callable(decide) and not (isinstance(decide, float | int) and decide == decide):
            raise ValueError(f"decide must be a number or a function, got {decide!r}")
        if propensity is not None and propensity.shape != (num_labels,):
            raise ValueError(f"propensity must have shape ({num_labels},), got {tuple(propensity.shape)}")
        if propensity is not None and not ((propensity > 0) & (propensity <= 1)).all():
            raise ValueError(f"propensity must lie in (0, 1], got {propensity.min():g} to {propensity.max():g}")
        self.num_labels, self.scale, self.binned, self.calibration_bins = num_labels, scale, binned, calibration_bins
        threshold = (0.0 if scale == "logits" else 0.5) if decide is None else decide
        self.decide = threshold if callable(threshold) else float(threshold)  # of Python: compared in the scores' dtype
        self.ks, self.propensity = tuple(sorted({1, *ks})), propensity
        self._state = self._empty()

    @property
    def rows(self) -> int:
        return self._state.rows

    @torch.no_grad()
    def update(self, scores: Tensor, targets: Tensor | SparseTargets) -> None:
        """Add rows.

        scores: (n, L) float, or a sparse CSR tensor: entries that are not stored rank below all that are, equal to
        each other, and have probability 0. targets: (n, L) of 0 and 1, dense or sparse CSR, or `SparseTargets`.

        Raises ValueError for shapes that do not match, NaN, targets beside 0 and 1, and scores outside the scale.
        """
        batch = read_batch(scores, targets, self.num_labels, self.scale)
        stored = batch.places is not None
        parts = [State(self._sums(part, self._decided(part)), part.rows, stored) for part in batch.parts()]
        if parts and self.binned is None:
            parts[0].kept = [Kept.of(batch)]
        for part in parts:
            self._state.add(part)

    def merge(self, other: MultiLabelMetrics) -> None:
        """Add the rows of another collection with the same settings; `decide` and `propensity` are not compared."""
        for name in ("num_labels", "scale", "ks", "calibration_bins", "binned"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"collections must have the same settings to merge: {name} is {mine} and {theirs}")
        self._state.add(other._state)

    def gathered(self, group: dist.ProcessGroup | None = None) -> MultiLabelMetrics:
        """A new collection with the rows of all ranks of `torch.distributed`, the same on each of them.

        Tensors of the CPU travel, all that is kept to all ranks. Every rank must call it, also one without rows.
        """
        if not dist.is_initialized():
            raise RuntimeError("gathered() needs torch.distributed: call init_process_group, or launch with torchrun")
        whole = copy.copy(self)
        whole._state = self._empty()
        for state in gather(self._state, self.num_labels, group):
            whole._state.add(state)
        return whole

    def result(self) -> MetricValues:
        """All metrics of the rows so far. Raises ValueError without any."""
        state = self._state
        if not state.rows:
            raise ValueError("no rows were collected: call update(scores, targets) first")
        positives = state.sums["labels"][2].copy()  # the sums go on
        ranked, micro = self._ranked_labels(positives)
        table = {"positives": positives, **_decision_table(state.sums["labels"]), **ranked}
        table |= {"ece": expected_error(state.sums["bins"]), "brier": state.sums["brier"] / state.rows}
        values = {
            **means("map", ranked, "average_precision", positives),
            **means("auroc", ranked, "auroc", positives),
            **micro,
            **decision_values(state.sums, state.rows),
            **coco_values(state.sums["top_labels"], f"@{_COCO}"),
            **self._row_values(),
            **calibration_values(table, state.sums["bins"]),
        }
        return MetricValues(
            state.rows,
            int(state.sums["row_ranks"][0]),
            self.num_labels,
            int((positives == 0).sum()),
            int((positives == state.rows).sum()),
            values,
            {name: torch.from_numpy(column) for name, column in table.items()},
        )

    def _empty(self) -> State:
        nothing = np.empty(0, np.int64)
        batch = Batch(0, self.num_labels, nothing, np.empty((0, self.num_labels), np.float32))
        return State(self._sums(batch, nothing))

    def _decided(self, batch: Batch) -> Array:
        """The places of the labels decided for, rising."""
        if not callable(self.decide):
            above = batch.scores > self.decide
            return np.flatnonzero(above) if batch.places is None else batch.places[above]
        scores = batch.dense_scores(-math.inf if self.scale == "logits" else 0.0)
        decided = self.decide(scores)
        if not isinstance(decided, Tensor) or decided.dtype != torch.bool or decided.shape != scores.shape:
            kind = f"{decided.dtype} {tuple(decided.shape)}" if isinstance(decided, Tensor) else type(decided).__name__
            raise ValueError(f"decide must give a bool tensor of shape {tuple(scores.shape)}, got {kind}")
        return np.flatnonzero(decided.cpu().numpy())

    def _sums(self, batch: Batch, decided: Array) -> Sums:
        """Of a few rows."""
        top = batch.top(max(_COCO, *self.ks))
        best = top[:, :_COCO]
        places = np.sort((np.arange(batch.rows)[:, None] * batch.labels + best)[best < batch.labels])
        sums = decision_sums(batch, decided)
        sums["top_labels"] = decision_sums(batch, places[member(places, decided)])["labels"]
        ranked = RankedMetrics(self.ks, self.propensity)
        crow = batch.true.searchsorted(np.arange(batch.rows + 1) * batch.labels)
        truth = SparseTargets(torch.from_numpy(crow), torch.from_numpy(batch.true % batch.labels))
        ranked.update(torch.from_numpy(top), truth)
        sums["top"] = ranked.sums.numpy()
        sums["row_ranks"] = row_rank_sums(batch, self.ks)
        sums |= calibration_sums(batch, self.scale, self.calibration_bins)
        if self.binned is not None:
            sums["histogram"] = histogram(batch, self.scale, self.binned)
        return sums

    def _ranked_labels(self, positives: Array) -> tuple[dict[str, Array], dict[str, float]]:
        """Per label and of all labels as one list: average precision, AUROC and what goes with them."""
        state = self._state
        if self.binned is not None:
            counts = state.sums["histogram"]
            names = "average_precision", "average_precision_error", "auroc", "auroc_error"
            micro = (float(each[0]) for each in binned_values(counts.sum(1, keepdims=True)))
            micro_names = "map_micro", "map_micro_error", "auroc_micro", "auroc_micro_error"
            return dict(zip(names, binned_values(counts), strict=True)), dict(zip(micro_names, micro, strict=True))
        micro_found = micro_values(state.kept, state.stored is True, state.rows * self.num_labels, int(positives.sum()))
        if state.stored:
            return stored_label_values(state.kept, positives.astype(np.int64), state.rows), micro_found
        return label_values(state.kept, self.num_labels, self.scale, self.calibration_bins), micro_found

    def _row_values(self) -> dict[str, float]:
        """The metrics of rankings of labels."""
        state = self._state
        ranked = RankedMetrics(self.ks, self.propensity)
        ranked.sums, ranked.rows = torch.from_numpy(state.sums["top"]), state.rows
        found = ranked.result()
        _, lrap, loss, coverage, *ndcg = (state.sums["row_ranks"] / state.rows).tolist()
        return {
            **found,
            **{f"ndcg@{k}": value for k, value in zip(self.ks, ndcg, strict=True)},
            "lrap": lrap,
            "ranking_loss": loss,
            "coverage": coverage,
            "one_error": 1 - found["p@1"],
        }


def row_rank_sums(batch: Batch, ks: Sequence[int]) -> Array:
    """Rows without labels, LRAP, ranking loss, coverage, then nDCG at each k, ties in the mean over their orders."""
    ranks = batch.row_ranks()
    discounts = 1 / np.log2(np.arange(2, max(ks) + 2))
    ideal = np.concatenate([[1.0], discounts.cumsum()])  # 0 / 1 without labels
    ndcg = [ranks.gain(discounts[:k]) / ideal[ranks.positives.clip(max=k)] for k in ks]
    lrap = np.nan_to_num(ranks.average_precision(), nan=1.0)  # as scikit-learn has it
    columns = (ranks.positives == 0, lrap, ranks.ranking_loss(), ranks.coverage(), *ndcg)
    return np.array([column.sum() for column in columns], np.float64)


def means(name: str, table: dict[str, Array], column: str, positives: Array) -> dict[str, float]:
    """Over the labels where it is defined, and the same weighted by their positives; with the bound of the error."""
    found = {}
    for ending in ("", "_error"):
        if column + ending in table:
            values = table[column + ending]
            defined = ~np.isnan(values)
            weights = positives[defined]
            found[name + ending] = float(ratio(values[defined].sum(), defined.sum()))
            found[f"{name}_weighted{ending}"] = float(ratio((values[defined] * weights).sum(), weights.sum()))
    return found


def calibration_values(table: dict[str, Array], bins: Array) -> dict[str, float]:
    """Means over all labels, and the error of all labels in the same bins."""
    names = [name for name in ("ece", "ece_adaptive", "brier") if name in table]
    return {**{name: float(table[name].mean()) for name in names}, "ece_micro": float(expected_error(bins.sum(1)))}


def _decision_table(counts: Array) -> dict[str, Array]:
    """(L,) precision, recall and F1, NaN for labels without positives."""
    columns = (np.where(counts[2] > 0, column, np.nan) for column in precision_recall_f1(counts))
    return dict(zip(("precision", "recall", "f1"), columns, strict=True))


def _check_whole(**given: object) -> None:
    for name, number in given.items():
        if type(number) is not int or number < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}")
