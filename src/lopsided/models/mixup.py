"""Mixes hidden states of two rows, and their labels: mixup between body and head."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.targets import SparseTargets


def mixed(hidden: Tensor, targets: SparseTargets, alpha: float, num_labels: int) -> tuple[Tensor, SparseTargets]:
    """Returns w h + (1 - w) h' and the same of the labels, h' being the states of the rows in another order.

    hidden: (n, width). w is drawn from Beta(alpha, alpha), once for all rows. A label that is unknown in one of two
    rows is unknown in their mixture.

    Source: Zhang et al., mixup, arXiv 1710.09412; between layers as in Verma et al., Manifold mixup, arXiv 1806.05236.
    """
    weight = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(hidden), device=hidden.device)
    return weight * hidden + (1 - weight) * hidden[order], mixed_targets(targets, order, weight, num_labels)


def mixed_targets(targets: SparseTargets, order: Tensor, weight: float, num_labels: int) -> SparseTargets:
    """Returns weight times the targets plus 1 - weight times those of the rows in another order, (n,) int64.

    >>> both = mixed_targets(SparseTargets.from_indices([[0], [1]]), torch.tensor([1, 0]), 0.75, 2)
    >>> both.col, both.values
    (tensor([0, 1, 0, 1]), tensor([0.7500, 0.2500, 0.2500, 0.7500]))
    """
    values = torch.ones(len(targets.col), device=targets.col.device) if targets.values is None else targets.values
    place_of = order.argsort()  # where each row comes to stand
    places = torch.cat([targets.row, place_of[targets.row]]) * num_labels + targets.col.repeat(2)
    known, entry = places.unique(return_inverse=True)
    sums = torch.zeros(len(known), dtype=values.dtype, device=values.device)
    sums.index_add_(0, entry, torch.cat([values * weight, values * (1 - weight)]))
    crow = torch.nn.functional.pad(torch.bincount(known // num_labels, minlength=len(order)).cumsum(0), (1, 0))
    return SparseTargets(crow, known % num_labels, sums.clamp(max=1), num_labels)
