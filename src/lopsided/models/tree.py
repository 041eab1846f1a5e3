"""A tree over labels, for more of them than can be solved one by one: a small linear model at every node.

A label's probability is the product of those on the way to it, as in probabilistic label trees (Jasinska et al. 2016,
ICML); what stands below a node is told apart on the rows alone that have a label there (Prabhu et al. 2018, WWW,
"Parabel"). Any loss whose scores stand for a probability trains the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from lopsided.data.storage import UserError
from lopsided.losses import Formula, LogSumExp, as_formula
from lopsided.losses.closed_form import implied_log_odds
from lopsided.models.direct import BagOf, NoBody
from lopsided.nn.modules import MultiLabelLoss
from lopsided.targets import SparseTargets

_LEAF = 128  # the most labels below a last node, and half of them the fewest
_BRANCHES = 5  # a node parts what is below it in 2^5 at most
BEAM = 10  # nodes of a level that are followed for a row
_GRID, _STEPS = 40.0, 100  # scores for which the meaning is tabulated, from -40 to 40, in steps of a hundredth


class Level(NamedTuple):
    """Says what the nodes of a level have below them: nodes of the next level, or labels by their place in the tree.

    node, output: the numbers of the first node, and of the first thing below one, among those of all levels.
    first: (nodes + 1,) int64, where the outputs of each node begin, among those of the level.
    """

    node: int
    output: int
    first: Tensor

    @property
    def width(self) -> int:
        return int(self.first.diff().max())


def depth_of(num_labels: int) -> int:
    """Returns how often all labels are halved."""
    return max(0, (-(-num_labels // _LEAF) - 1).bit_length())


def halves(num_labels: int, depth: int) -> Tensor:
    """Returns (2^depth + 1,) places at which the labels of each node at that depth begin.

    >>> halves(10, 2)
    tensor([ 0,  2,  5,  7, 10])
    """
    return torch.arange(2**depth + 1) * num_labels >> depth


def depths_of(num_labels: int) -> list[int]:
    """Returns the depths of the nodes of each level, from 0 on.

    >>> depths_of(100_000)
    [0, 5, 10]
    """
    depth = depth_of(num_labels)
    parts = max(1, -(-depth // _BRANCHES))
    return sorted({depth * part // parts for part in range(parts + 1)})


def levels_of(num_labels: int) -> Iterator[Level]:
    """Yields the levels of a tree, from the root down."""
    depths, node, output = depths_of(num_labels), 0, 0
    for depth, below in pairwise(depths):
        yield Level(node, output, torch.arange(2**depth + 1) << (below - depth))
        node, output = node + 2**depth, output + 2**below
    yield Level(node, output, halves(num_labels, depths[-1]))


def checked_method(method: object) -> Formula:
    """Returns a loss that a tree can be made of. Raises UserError for another, and for label powerset."""
    if isinstance(method, Formula) and (method.pool.per_label or isinstance(method.pool, LogSumExp)):
        with suppress(ValueError):
            implied_log_odds(method, torch.zeros(1))
            return method
    raise UserError(
        "a tree over labels takes zlpr, and losses that judge each label alone and whose scores stand for a "
        f"probability, not {method}; choose --model bag"
    )


class TreeBody(NoBody):
    """Hands the features on to a `TreeHead`, in which all lies that is learnt."""

    def make_tree(self, method: object, num_labels: int) -> TreeHead:
        return TreeHead(self.width, num_labels, checked_method(method))


class TreeHead(nn.Module):
    """Computes label scores by a tree; the best ones of a row along a beam, without those of the other labels.

    A score is the logit at which the loss would have settled for the probability of the label. Weights are sparse:
    those of a node for a feature lie together, and are found by one number of both.

    num_features: F. order: (L,) int64, the label at each place of the tree. keys: (K,) int64, node x F + feature,
    rising. starts: (K + 1,) int64, where the weights of each key begin. outputs: (E,) int16, what a weight is for,
    counted from the first output of the node. weights: (E, 1) float32. bias: of the outputs of all levels.

    >>> head = TreeHead(num_features=9, num_labels=3, loss="asl")
    >>> head.logits(BagOf(torch.tensor([0, 8, 1]), torch.tensor([0, 2]), torch.ones(3))).shape
    torch.Size([2, 3])
    """

    order: Tensor
    keys: Tensor
    starts: Tensor
    outputs: Tensor
    weights: Tensor
    bias: nn.Parameter
    log_odds: Tensor
    STORED: ClassVar = {
        "order": torch.int64, "keys": torch.int64, "starts": torch.int64,
        "outputs": torch.int16, "weights": torch.float32, "bias": torch.float32,
    }  # fmt: skip

    def __init__(self, num_features: int, num_labels: int, loss: Formula | str) -> None:
        super().__init__()
        self.num_features, self.num_labels, self.formula = num_features, num_labels, as_formula(loss)
        self.levels = list(levels_of(num_labels))
        self.criterion = MultiLabelLoss(self.formula, reduction="batchmean")
        of_nothing: dict[str, Tensor] = {
            name: torch.zeros(int(name == "starts"), dtype=kind) for name, kind in self.STORED.items()
        } | {"weights": torch.zeros(0, 1)}
        outputs = self.levels[-1].output + num_labels
        self.set(of_nothing | {"order": torch.arange(num_labels), "bias": torch.zeros(outputs)})
        self.line: tuple[float, float] | None = None  # of zlpr, whose scores may lie anywhere
        if not self.formula.pool.per_label:
            at_zero, at_one = implied_log_odds(self.formula, torch.tensor([0.0, 1.0])).tolist()
            self.line = at_zero, at_one - at_zero
        grid = torch.linspace(-_GRID, _GRID, int(2 * _GRID * _STEPS) + 1, dtype=torch.float64, device="cpu")
        self.register_buffer("log_odds", _rising(implied_log_odds(self.formula, grid), grid), persistent=False)

    def set(self, tensors: Mapping[str, Tensor]) -> None:
        """Sets the order of the labels, the weights and the bias. Raises ValueError for what is no tree."""
        for name, tensor in _checked(tensors, self).items():
            if name == "bias":
                self.bias = nn.Parameter(tensor, requires_grad=False)
            else:
                self.register_buffer(name, tensor)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        self.set({name: state_dict[prefix + name] for name in self.STORED})

    def forward(self, hidden: BagOf, targets: SparseTargets) -> Tensor:
        value: Tensor = self.criterion(self.logits(hidden), targets)
        return value

    def logits(self, hidden: BagOf) -> Tensor:
        """Computes (n, L) label scores; labels that the beam does not reach have the lowest of those that it does."""
        likelihood, places = self._followed(hidden, BEAM)
        missing = likelihood == -torch.inf
        reached = self._scores(likelihood)
        labels = self.order[places].masked_fill(missing, self.num_labels)  # one too many
        lowest = reached.masked_fill(missing, torch.inf).amin(1, keepdim=True)
        return lowest.repeat(1, self.num_labels + 1).scatter_(1, labels, reached)[:, :-1]

    def predict_topk(self, hidden: BagOf, k: int) -> tuple[Tensor, Tensor]:
        likelihood, places = self._followed(hidden, max(BEAM, -(-2 * k // (_LEAF // 2))))
        best = likelihood.topk(k, dim=1)
        return self._scores(best.values), self.order[places.gather(1, best.indices)]

    def _followed(self, hidden: BagOf, beam: int) -> tuple[Tensor, Tensor]:
        """Returns the log probabilities of labels, and their places, both (n, m); -inf where a place is of no label.

        beam: how many nodes of each level are followed.
        """
        rows, device = len(hidden.offsets), hidden.offsets.device
        nodes = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        likelihood = torch.zeros(rows, 1, device=device)
        for level in self.levels:
            first = level.first.to(device)
            below = first[nodes][..., None] + torch.arange(level.width, device=device)
            missing = below >= first[nodes + 1][..., None]
            below = below.clamp(max=int(first[-1]) - 1)
            scores = self._products(hidden, level.node + nodes, level.width) + self.bias[level.output + below]
            here = nn.functional.logsigmoid(self._meaning(scores))
            likelihood = (likelihood[..., None] + here).masked_fill(missing, -torch.inf).flatten(1)
            nodes = below.flatten(1)
            if level is not self.levels[-1] and beam < likelihood.shape[1]:
                best = likelihood.topk(beam, dim=1)
                likelihood, nodes = best.values, nodes.gather(1, best.indices)
        return likelihood, nodes

    def _products(self, hidden: BagOf, nodes: Tensor, width: int) -> Tensor:
        """Computes (n, m, width) products of the features of rows with the weights of their (n, m) nodes."""
        scores = torch.zeros(nodes.numel() * width, device=nodes.device)
        if not len(self.keys):
            return scores.view(*nodes.shape, width)
        row = torch.repeat_interleave(hidden.indptr.diff())
        wanted = nodes[row] * self.num_features + hidden.indices[:, None]
        key = torch.searchsorted(self.keys, wanted).clamp_(max=len(self.keys) - 1)
        entry, slot = (self.keys[key] == wanted).nonzero(as_tuple=True)
        key = key[entry, slot]
        start, count = self.starts[key], self.starts[key + 1] - self.starts[key]
        each = torch.repeat_interleave(count)
        weight = torch.arange(len(each), device=each.device) + (start - count.cumsum(0) + count)[each]
        cell = ((row[entry] * nodes.shape[1] + slot) * width)[each] + self.outputs[weight]
        scores.index_add_(0, cell, self.weights[weight, 0] * hidden.weights[entry][each])
        return scores.view(*nodes.shape, width)

    def _meaning(self, scores: Tensor) -> Tensor:
        """Maps scores to the log odds that they stand for."""
        if self.line is not None:
            return self.line[0] + self.line[1] * scores
        place = (scores.clamp(-_GRID, _GRID) + _GRID) * _STEPS
        low = place.long().clamp_(max=len(self.log_odds) - 2)
        table = self.log_odds.float()
        return torch.lerp(table[low], table[low + 1], place - low)

    def _scores(self, likelihood: Tensor) -> Tensor:
        """Maps log probabilities to scores."""
        log_p = likelihood.double().clamp(max=-1e-12)
        log_odds = log_p - torch.log(-torch.expm1(log_p))
        if self.line is not None:
            return ((log_odds - self.line[0]) / self.line[1]).float()
        high = torch.searchsorted(self.log_odds, log_odds).clamp_(1, len(self.log_odds) - 1)
        low, gap = self.log_odds[high - 1], self.log_odds[high] - self.log_odds[high - 1]
        share = ((log_odds - low) / gap).clamp(0, 1)
        return ((high - 1 + share) / _STEPS - _GRID).float()


def _rising(log_odds: Tensor, grid: Tensor) -> Tensor:
    """Lets log odds rise where they are flat, so that scores differ there, too."""
    return torch.maximum(log_odds.clamp(-60, 60), grid - 60).cummax(0).values + 1e-6 * grid


def _checked(tensors: Mapping[str, Tensor], head: TreeHead) -> dict[str, Tensor]:
    """Returns the tensors of a tree. Raises ValueError where they are of no such tree."""
    stored = {name: tensors[name] for name in head.STORED}
    order, keys, starts, outputs, weights, bias = stored.values()
    nodes, last = head.levels[-1].node + len(head.levels[-1].first) - 1, head.levels[-1].output + head.num_labels
    right = all(each.dtype == head.STORED[name] for name, each in stored.items())
    right = right and all(each.ndim == 1 for name, each in stored.items() if name != "weights")
    right = right and weights.shape == (len(outputs), 1)
    right = right and bias.shape == (last,) and len(starts) == len(keys) + 1
    right = right and torch.equal(order.sort().values, torch.arange(head.num_labels, device=order.device))
    right = right and int(starts[0]) == 0 and int(starts[-1]) == len(weights) and bool((starts.diff() > 0).all())
    right = right and bool((keys.diff() > 0).all())
    if right and len(keys):
        right = int(keys[0]) >= 0 and int(keys[-1]) < nodes * head.num_features
    if right and len(keys):
        widths = torch.cat([level.first.diff() for level in head.levels]).to(keys.device)
        width = widths[keys // head.num_features].repeat_interleave(starts.diff())
        right = bool(((outputs >= 0) & (outputs < width)).all())
    if not right:
        raise ValueError(f"no tree of {head.num_labels} labels and {head.num_features} features")
    return stored
