"""Metrics of the best-ranked labels, streaming over batches: the scores of all labels are never needed at once.

With y(i) the truth, 0 or 1, of the label that a row ranks i-th, n its number of true labels and q(l) the propensity
of label l:

    P@k     mean over the rows of  sum over i <= k of y(i) / k
    nDCG@k  mean over the rows of  sum over i <= k of y(i) / log2(i + 1)  /  sum over i <= min(k, n) of 1 / log2(i + 1)
    PSP@k   sum over the rows of  sum over i <= k of y(i) / q(l(i)), divided by the largest that any ranking could have

A row without true labels has no hit: it counts as 0 in P@k and nDCG@k, and adds nothing to either sum of PSP@k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lopsided.metrics.truth import Truth
from lopsided.targets import SparseTargets


def propensities(counts: Tensor, rows: int, a: float = 0.55, b: float = 1.5) -> Tensor:
    """Returns how likely a true label is to have been noted, (L,) float64, from its number of training rows, (L,).

    q = 1 / (1 + C (count + b)^-a)  with  C = (log rows - 1) (b + 1)^a

    Source: Jain, Prabhu and Varma, Extreme multi-label loss functions, KDD 2016, which fits a = .55 and b = 1.5;
    .5 and .4 for Wikipedia, .6 and 2.6 for Amazon.

    Raises ValueError for fewer than 3 rows, of which the formula makes no probability.

    >>> propensities(torch.tensor([0, 10, 1000]), rows=10_000)
    tensor([0.0842, 0.2199, 0.7669], dtype=torch.float64)
    """
    if rows < 3:
        raise ValueError(f"propensities need at least 3 training rows, got {rows}: log(rows) - 1 must be positive")
    scale = (torch.tensor(float(rows), dtype=torch.float64).log() - 1) * (b + 1) ** a
    odds: Tensor = scale * (counts.double() + b) ** -a
    return 1 / (1 + odds)


class RankedMetrics:
    """Collects the best-ranked labels of batches of rows.

    ks: the ranks k to report. propensity: (L,) of the labels, or None to leave out PSP.

    >>> metrics = RankedMetrics((1, 2))
    >>> metrics.update(torch.tensor([[2, 0], [1, 2]]), SparseTargets.from_indices([[2], [0, 2]]))
    >>> metrics.result()
    {'p@1': 0.5, 'p@2': 0.5, 'ndcg@1': 0.5, 'ndcg@2': 0.6934264036172708}
    """

    def __init__(self, ks: Sequence[int] = (1, 3, 5), propensity: Tensor | None = None) -> None:
        self.ks, self.propensity, self.rows = tuple(ks), propensity, 0.0
        self.sums = torch.zeros(4, len(self.ks), dtype=torch.float64)

    def update(self, top: Tensor, targets: SparseTargets) -> None:
        """Adds n rows. top: (n, max(ks) or more) label numbers, the best first; targets: 0 and 1 of all their labels.

        Where a ranking ends before k, the number of labels stands for none.
        """
        labels = 1 + int(max(part.max() if part.numel() else 0 for part in (top, targets.col)))
        truth = Truth.of(replace(targets, num_labels=None), len(top), labels)
        self.sums += top_k_sums(top, truth, self.ks, self.propensity)
        self.rows += len(top)

    def result(self) -> dict[str, float]:
        """Returns every metric by name, such as "p@1", between 0 and 1; NaN where nothing was collected."""
        return top_k_values(self.sums, self.rows, self.ks, self.propensity is not None)


def top_k_sums(
    top: Tensor, truth: Truth, ks: Sequence[int], propensity: Tensor | None, row_weights: Tensor | None = None
) -> Tensor:
    """Returns (4, len(ks)) sums over rows: P and nDCG at k, and the inverse propensity gained and possible."""
    top, width = top[:, : max(ks)], truth.labels + 1  # a place for no label
    row, col = (torch.from_numpy(each) for each in np.divmod(truth.true, truth.labels))
    counts = torch.bincount(row, minlength=len(top))
    weights = torch.ones(len(top), dtype=torch.float64) if row_weights is None else row_weights.double()
    hits = torch.isin(torch.arange(len(top))[:, None] * width + top, row * width + col).double()
    best = (torch.arange(top.shape[1]) < counts[:, None]).double()  # what a perfect ranking hits
    gained = possible = torch.zeros_like(hits)
    if propensity is not None:
        inverse = torch.nn.functional.pad(1 / propensity.double(), (0, 1))  # the last is that of no label
        gained, possible = hits * inverse[top], _heaviest(inverse[col], row, counts, best)
    discount = 1 / torch.arange(2, top.shape[1] + 2, dtype=torch.float64).log2()
    sums = []
    for k in ks:
        ideal = (best[:, :k] @ discount[:k]).clamp_min(1)  # without true labels, 0 / 1
        ndcg = (hits[:, :k] @ discount[:k]) / ideal
        columns = hits[:, :k].sum(1) / k, ndcg, gained[:, :k].sum(1), possible[:, :k].sum(1)
        sums.append(torch.stack(columns) @ weights)
    return torch.stack(sums, 1)


def top_k_values(sums: Tensor, rows: float, ks: Sequence[int], with_propensity: bool = True) -> dict[str, float]:
    """Returns what `top_k_sums` says in the mean over the rows, by name; NaN without any."""
    precision, ndcg, gained, possible = sums
    total = torch.tensor(rows, dtype=torch.float64)
    values = {"p": precision / total, "ndcg": ndcg / total}
    if with_propensity:
        values["psp"] = gained / possible
    return {f"{name}@{k}": float(v) for name, each in values.items() for k, v in zip(ks, each, strict=True)}


def _heaviest(inverse: Tensor, row: Tensor, counts: Tensor, best: Tensor) -> Tensor:
    """Returns (n, k): the largest inverse propensities of each row's true labels, falling, then zeros."""
    falling = inverse.sort(descending=True)
    by_row = row[falling.indices].sort(stable=True)
    rank = torch.arange(len(row)) - (counts.cumsum(0) - counts)[by_row.values]
    listed = rank < best.shape[1]
    heaviest = torch.zeros_like(best)
    heaviest[by_row.values[listed], rank[listed]] = falling.values[by_row.indices[listed]]
    return heaviest
