"""Label powerset: every set of labels that occurs is a class of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


class LabelPowerset:
    """The strategy that turns a multi-label problem into a single-label one.

    A model for it gives `num_sets` scores a row instead of L; train them with `loss`, turn them into label
    probabilities with `marginals` or into label scores with `log_odds`. Sets that did not occur cannot be predicted
    by their own class, and there are often as many sets as rows: keep the most frequent with `max_sets`.

    Args:
        targets: (rows, L) bool or 0/1, the training targets.
        max_sets: how many of the most frequent sets to keep; all if None. Rows with another set are trained as the
            kept set that differs in the fewest labels, the more frequent one if several do.

    >>> powerset = LabelPowerset(torch.tensor([[1, 0], [1, 0], [0, 1]]))
    >>> powerset.num_sets, powerset.encode(torch.tensor([[0, 1]])).tolist()
    (2, [1])
    >>> powerset.marginals(torch.zeros(1, 2))
    tensor([[0.5000, 0.5000]])

    Source: Tsoumakas & Katakis 2007; pruning as in Read et al. 2008, but with the nearest set instead of subsets.
    """

    def __init__(self, targets: Tensor, max_sets: int | None = None) -> None:
        _check_hard(targets)
        if max_sets is not None and max_sets < 1:
            raise ValueError(f"max_sets must be at least 1, got {max_sets}")
        sets, counts = targets.bool().unique(dim=0, return_counts=True)
        self.sets = sets[counts.argsort(descending=True, stable=True)[:max_sets]]  # (num_sets, L) bool

    @property
    def num_sets(self) -> int:
        return len(self.sets)

    def encode(self, targets: Tensor) -> Tensor:
        """Maps (rows, L) targets of 0 and 1 to (rows,) index of the nearest set."""
        _check_hard(targets, self.sets.shape[1])
        sets = self.sets.to(targets.device).float()
        y = targets.float()
        differing: Tensor = y.sum(1, keepdim=True) + sets.sum(1) - 2 * _product(y, sets.T)
        return differing.argmin(1)  # the first among equals

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Maps (rows, num_sets) scores and (rows, L) targets to mean softmax cross entropy."""
        if scores.shape != (len(targets), self.num_sets):
            raise ValueError(f"scores must be ({len(targets)}, {self.num_sets}), got {tuple(scores.shape)}")
        return cross_entropy(scores.float(), self.encode(targets))

    def marginals(self, scores: Tensor) -> Tensor:
        """Maps (rows, num_sets) scores to (rows, L) label probabilities."""
        return _product(scores.float().softmax(1), self.sets.to(scores.device).float())

    def log_odds(self, scores: Tensor) -> Tensor:
        """Returns them as logits: log p - log(1 - p) without cancellation, +-1e30 for labels in all sets or in none."""
        log_p = scores.float().log_softmax(1).unsqueeze(2)
        inside = self.sets.to(scores.device)
        sides = [log_p.masked_fill(~side, -torch.inf).logsumexp(1) for side in (inside, ~inside)]
        return sides[0].clamp_min(-1e30) - sides[1].clamp_min(-1e30)


def _product(one: Tensor, other: Tensor) -> Tensor:
    """Returns one @ other in float32, under autocast too: bfloat16 would round numbers of labels above 256."""
    with torch.autocast(one.device.type, enabled=False):
        result: Tensor = one @ other
    return result


def _check_hard(targets: Tensor, labels: int | None = None) -> None:
    """Checks targets; their values on the CPU only, where looking waits for nothing."""
    right = targets.ndim == 2 and labels in (None, targets.shape[1])
    if right and targets.dtype != torch.bool and targets.device.type == "cpu":
        right = bool(((targets == 0) | (targets == 1)).all())
    if not right:
        expected = f"(rows, {labels})" if labels else "(rows, labels)"
        raise ValueError(f"targets must be {expected} of 0 and 1, got {targets.dtype} {tuple(targets.shape)}")
