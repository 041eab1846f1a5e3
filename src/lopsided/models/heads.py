"""Makes what stands on the body: a linear head with a loss on label scores, or one for label powerset."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lopsided.compute.topk import top_of
from lopsided.losses import Balanced, Formula
from lopsided.losses.closed_form import settled_logit
from lopsided.models.direct import DirectHead, HiddenLinear
from lopsided.models.encoder import Body, DirectBody
from lopsided.models.methods import LearntThreshold, Method, Powerset, Schedule, loss_of_scores
from lopsided.models.tree import TreeBody
from lopsided.nn.balanced import BalancedLoss
from lopsided.nn.fused import FusedStep
from lopsided.nn.head import LinearHead
from lopsided.nn.modules import MultiLabelLoss
from lopsided.nn.powerset import LabelPowerset
from lopsided.targets import SparseTargets

_DENSE = 2**28  # entries of a matrix of label sets that label powerset may take


class Head(Protocol):
    """Maps what a body gives, mostly (n, width) hidden states, to a loss or to label scores; an `nn.Module`."""

    num_labels: int

    def __call__(self, hidden: Any, targets: SparseTargets) -> Tensor:
        """Computes the loss, mean over the rows."""
        ...

    def logits(self, hidden: Any) -> Tensor:
        """Computes (n, L) label scores."""
        ...

    def predict_topk(self, hidden: Any, k: int) -> tuple[Tensor, Tensor]:
        """Computes the k highest scores of each row, falling, and their labels: both (n, k)."""
        ...


def own_threshold(method: Method) -> float | None:
    """Returns the label logit above which a method itself predicts a label, None if it has no such point."""
    loss = loss_of_scores(method)
    if isinstance(loss, Balanced):
        return None  # it depends on the counts, and for most of them on the row
    try:
        return float(settled_logit(loss, 1.0))
    except ValueError:
        return None


class PowersetHead(nn.Module):
    """A linear layer over label sets, trained by softmax; label scores are log odds of the marginals.

    targets: those of training, (rows, L), of which the most frequent sets are taken. make_linear: makes the layer, of
    as many outputs as there are sets.

    >>> head = PowersetHead(partial(nn.Linear, 4), SparseTargets.from_indices([[0], [0, 1]]), num_labels=2, max_sets=10)
    >>> head.logits(torch.zeros(3, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self, make_linear: Callable[[int], Any], targets: SparseTargets, num_labels: int, max_sets: int
    ) -> None:
        super().__init__()
        if len(targets.crow) < 2:
            raise ValueError("label powerset needs rows of which to take its label sets, got none")
        self.powerset = LabelPowerset(dense_targets(targets, num_labels), max_sets)
        self.linear = make_linear(self.powerset.num_sets)
        self.num_labels = num_labels

    def forward(self, hidden: Any, targets: SparseTargets) -> Tensor:
        truth = dense_targets(targets, self.num_labels)
        return self.powerset.loss(self.linear(hidden), truth)

    def logits(self, hidden: Any) -> Tensor:
        return self.powerset.log_odds(self.linear(hidden))

    def predict_topk(self, hidden: Any, k: int) -> tuple[Tensor, Tensor]:
        return top_of(self.logits(hidden), k)

    def get_extra_state(self) -> Tensor:
        sets: Tensor = self.powerset.sets
        return sets

    def set_extra_state(self, state: Tensor) -> None:
        self.powerset.sets = state


def stored_sets(state: dict[str, Tensor], num_labels: int) -> SparseTargets:
    """Returns the label sets in the stored state of a network, of which a head is made; none but for powerset."""
    sets = state.get("head._extra_state", torch.zeros(0, num_labels, dtype=torch.bool))
    if sets.dtype != torch.bool or sets.ndim != 2 or sets.shape[1] != num_labels:
        raise ValueError(f"label sets must be (sets, {num_labels}) bool, got {sets.dtype} {tuple(sets.shape)}")
    return SparseTargets(torch.nn.functional.pad(sets.sum(1).cumsum(0), (1, 0)), sets.nonzero()[:, 1])


def dense_targets(targets: SparseTargets, num_labels: int) -> Tensor:
    """Returns (rows, L) bool. Raises ValueError for soft and unknown labels, and for more than 2^28 entries."""
    rows = len(targets.crow) - 1
    if rows * num_labels > _DENSE:
        raise ValueError(f"label powerset holds all labels of all rows: {rows} x {num_labels} are too many")
    if targets.values is not None and not ((targets.values == 0) | (targets.values == 1)).all():
        raise ValueError("label powerset takes no soft and no unknown labels")
    truth = torch.zeros(rows, num_labels, dtype=torch.bool, device=targets.col.device)
    truth[targets.row, targets.col] = True if targets.values is None else targets.values == 1
    return truth


def make_head(
    method: Method, body: Body | DirectBody, targets: SparseTargets, counts: Tensor, rows: int, step: FusedStep | None
) -> Head:
    """Makes the head of a method over a body. targets: those of training, for label powerset.

    counts: (L,), the positives of each label in the training rows, of which there are `rows`. Their share is where
    every bias starts: with many labels, most of training would otherwise go into learning that nearly all are rare.
    """
    method = method.start if isinstance(method, Schedule) else method
    prior = (counts + 0.5) / (rows + 1)
    if isinstance(body, TreeBody):
        return body.make_tree(method, len(prior))
    make_linear = body.make_linear if isinstance(body, DirectBody) else partial(HiddenLinear, body.width)
    if isinstance(method, Powerset):
        return PowersetHead(make_linear, targets, len(prior), method.max_sets)
    if isinstance(method, LearntThreshold):
        criterion = criterion_of(method.loss, counts, rows, threshold_logit=0)
        return DirectHead(make_linear(1 + len(prior)), criterion, prior)
    if isinstance(body, DirectBody):
        return DirectHead(make_linear(len(prior)), criterion_of(method, counts, rows), prior)
    seen = counts if isinstance(method, Balanced) else None
    make = partial(LinearHead, body.width, len(prior), method, counts=seen, rows=rows)
    return make(prior=prior, reduction="batchmean", fused_step=step)


def set_loss(head: Head, loss: Formula) -> None:
    """Changes the loss by which a head is trained from now on."""
    assert isinstance(head, LinearHead | DirectHead)
    if isinstance(head, DirectHead):
        head.criterion.formula = loss
    else:
        head.formula = loss


def criterion_of(
    loss: Formula | Balanced, counts: Tensor, rows: int, threshold_logit: int | None = None
) -> MultiLabelLoss:
    """Returns the loss of label scores, mean over the rows, of a model whose training labels have these counts."""
    if isinstance(loss, Balanced):
        return BalancedLoss(loss, counts, rows, reduction="batchmean", threshold_logit=threshold_logit)
    return MultiLabelLoss(loss, reduction="batchmean", threshold_logit=threshold_logit)
