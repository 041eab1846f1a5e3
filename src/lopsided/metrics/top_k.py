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

import torch
from torch import Tensor

from lopsided.targets import SparseTargets


def propensities(counts: Tensor, rows: int, a: float = 0.55, b: float = 1.5) -> Tensor:
    """How likely a true label is to have been noted, (L,) float64, from its number of training rows, (L,).

    q = 1 / (1 + C (count + b)^-a)  with  C = (log rows - 1) (b + 1)^a

    Source: Jain, Prabhu and Varma, Extreme multi-label loss functions, KDD 2016, which fits a = .55 and b = 1.5;
    .5 and .4 for Wikipedia, .6 and 2.6 for Amazon.

    >>> propensities(torch.tensor([0, 10, 1000]), rows=10_000)
    tensor([0.0842, 0.2199, 0.7669], dtype=torch.float64)
    """
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
        self.ks = tuple(ks)
        self.rows = 0
        # the last is that of no label
        self._inverse = None if propensity is None else torch.nn.functional.pad(1 / propensity.double(), (0, 1))
        self._discount = 1 / torch.arange(2, max(ks) + 2, dtype=torch.float64).log2()
        self.sums = torch.zeros(4, len(self.ks), dtype=torch.float64)  # P, nDCG, gained and possible propensity

    def update(self, top: Tensor, truth: SparseTargets) -> None:
        """top: (n, max(ks) or more) label numbers, the best first; truth: the true labels of the n rows, each once.

        Where a ranking ends before k, the number of labels stands for none.
        """
        top = top[:, : max(self.ks)]
        counts = truth.crow.diff()
        row = torch.repeat_interleave(counts)
        labels = 1 + int(max(part.max() if part.numel() else 0 for part in (top, truth.col)))
        hits = torch.isin(torch.arange(len(top))[:, None] * labels + top, row * labels + truth.col).double()
        best = (torch.arange(top.shape[1]) < counts[:, None]).double()  # what a perfect ranking hits
        gained = possible = torch.zeros_like(hits)
        if self._inverse is not None:
            gained, possible = hits * self._inverse[top], self._heaviest(truth, row, best)
        for place, k in enumerate(self.ks):
            discount = self._discount[: min(k, top.shape[1])]
            ideal = (best[:, :k] @ discount).clamp_min(1)  # without true labels, 0 / 1
            ndcg = (hits[:, :k] @ discount) / ideal
            sums = (hits[:, :k].sum() / k, ndcg.sum(), gained[:, :k].sum(), possible[:, :k].sum())
            self.sums[:, place] += torch.stack(sums)
        self.rows += len(top)

    def _heaviest(self, truth: SparseTargets, row: Tensor, best: Tensor) -> Tensor:
        """(n, k): the largest inverse propensities of each row's true labels, falling, then zeros."""
        assert self._inverse is not None
        falling = self._inverse[truth.col].sort(descending=True)
        by_row = row[falling.indices].sort(stable=True)
        rank = torch.arange(len(row)) - truth.crow[by_row.values]
        kept = rank < best.shape[1]
        heaviest = torch.zeros_like(best)
        heaviest[by_row.values[kept], rank[kept]] = falling.values[by_row.indices[kept]]
        return heaviest

    def result(self) -> dict[str, float]:
        """Every metric by name, such as "p@1", between 0 and 1; NaN where nothing was collected."""
        precision, ndcg, gained, possible = self.sums
        rows = torch.tensor(self.rows, dtype=torch.float64)
        found = {"p": precision / rows, "ndcg": ndcg / rows}
        if self._inverse is not None:
            found["psp"] = gained / possible
        return {f"{name}@{k}": float(v) for name, values in found.items() for k, v in zip(self.ks, values, strict=True)}
