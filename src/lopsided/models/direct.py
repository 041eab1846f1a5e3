"""A head on any layer from what a body gives to labels; and a linear map from sparse features, which has no body."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lopsided.compute.topk import top_of
from lopsided.models.encoder import DirectLinear
from lopsided.nn.balanced import BalancedLoss
from lopsided.nn.head import LinearHead
from lopsided.nn.modules import MultiLabelLoss
from lopsided.targets import SparseTargets

_CONSTANT = 0.1  # the value of the feature whose weight is the bias


class BagOf(NamedTuple):
    """Holds the features of some rows as an `nn.EmbeddingBag` takes them."""

    indices: Tensor
    offsets: Tensor
    weights: Tensor

    @property
    def indptr(self) -> Tensor:
        """Returns (rows + 1,), where the features of each row begin."""
        return torch.cat([self.offsets, self.offsets.new_tensor([len(self.indices)])])


class NoBody(nn.Module):
    """Hands the features on to a `SparseLinear`, which takes `width` of them: all that is learnt lies there."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.width = num_features

    def forward(self, indices: Tensor, offsets: Tensor, weights: Tensor) -> BagOf:
        return BagOf(indices, offsets, weights)

    def make_linear(self, outputs: int) -> SparseLinear:
        return SparseLinear(self.width, outputs)


class SparseLinear(nn.Module):
    """Computes (n, outputs) from sparse features; weights begin at 0, and their gradient is sparse.

    The bias is the weight of one more feature, of value 0.1 in every row: about what each of a hundred features has in
    a row of unit length. With a value of 1 it would move a hundred times as fast as they do.

    >>> linear = SparseLinear(9, 2)
    >>> linear(BagOf(torch.tensor([0, 8, 1]), torch.tensor([0, 2]), torch.ones(3))).shape
    torch.Size([2, 2])
    """

    def __init__(self, num_features: int, outputs: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(num_features, outputs, mode="sum", sparse=True)
        nn.init.zeros_(self.table.weight)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def begin_at(self, bias: Tensor) -> None:
        """Sets what the scores of each label begin about, (outputs,)."""
        self.bias.data.copy_(bias / _CONSTANT)

    def forward(self, bag: BagOf) -> Tensor:
        result: Tensor = self.table(bag.indices, bag.offsets, per_sample_weights=bag.weights) + self.added
        return result

    @property
    def added(self) -> Tensor:
        """Returns (outputs,), what is added to the scores of every row."""
        return _CONSTANT * self.bias

    @torch.no_grad()
    def set_outputs(self, outputs: Tensor, weights: Tensor, added: Tensor) -> None:
        """Sets the weights of some outputs, (features, k), and what is added to them, (k,)."""
        self.table.weight[:, outputs], self.bias[outputs] = weights, added / _CONSTANT


class HiddenLinear(nn.Linear):
    """Is the layer for a body that gives hidden states."""

    def begin_at(self, bias: Tensor) -> None:
        """Sets what the scores of each label begin about, (outputs,)."""
        self.bias.data.copy_(bias)


class DirectHead(nn.Module):
    """Computes a loss, or label scores, by the layer that there is for what a body gives.

    linear: maps it to (n, L), or to (n, L + 1) where the criterion has a threshold class, the first. criterion: the
    loss. prior: (L,), the share of positives of each label, at which every bias starts, as in `lopsided.LinearHead`.

    >>> head = DirectHead(SparseLinear(9, 2), MultiLabelLoss("asl"), prior=torch.tensor([0.1, 0.5]))
    >>> head.logits(BagOf(torch.tensor([0, 8, 1]), torch.tensor([0, 2]), torch.ones(3))).shape
    torch.Size([2, 2])
    """

    def __init__(self, linear: DirectLinear, criterion: MultiLabelLoss, prior: Tensor) -> None:
        super().__init__()
        self.criterion, self.num_labels, self.linear = criterion, len(prior), linear
        bias = LinearHead(1, len(prior), criterion.formula, prior=prior).bias
        assert bias is not None
        start = criterion.counts.before(bias.data) if isinstance(criterion, BalancedLoss) else bias.data
        linear.begin_at(start if criterion.threshold_logit is None else pad(start, (1, 0)))

    def forward(self, hidden: Any, targets: SparseTargets) -> Tensor:
        value: Tensor = self.criterion(self.linear(hidden), targets)
        return value

    def logits(self, hidden: Any) -> Tensor:
        return self.criterion.scores(self.linear(hidden))

    def predict_topk(self, hidden: Any, k: int) -> tuple[Tensor, Tensor]:
        return top_of(self.logits(hidden), k)
