"""Solves a linear model, for one strength of its penalty after the other: no learning rate, no batches, no seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, cast

import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from lopsided.data.split import rest_of
from lopsided.losses import Formula
from lopsided.metrics.scores import Scores
from lopsided.models.direct import BagOf, DirectHead, NoBody, SparseLinear
from lopsided.models.encoder import Encoder
from lopsided.models.heads import PowersetHead, criterion_of
from lopsided.models.methods import loss_of_scores, parse_method
from lopsided.models.model import Model
from lopsided.targets import SparseTargets
from lopsided.targets.checks import logits_of_a_model
from lopsided.training import processes
from lopsided.training.newton import Problem, minimise, side_by_side
from lopsided.training.rows import Rows

_FACTOR = 2.0  # from one penalty to the next
_TOLERANCE = 0.003
_BLOCK = 4096  # rows that are encoded at a time


class Solution(nn.Module):
    """Holds what an unfinished training goes on from, beside the weights: the (rows, outputs) pulls, see `newton`."""

    pulls: Tensor

    def __init__(self, rows: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("pulls", torch.zeros(rows, outputs))


class Solver:
    """Minimises, over all rows, the sum of the loss plus l2/2 times the squared weights, and sets the weights to it.

    So l2 is 1/C of scikit-learn. A bias counts as the weight of a feature that is 1 everywhere, as in LIBLINEAR, but is
    pulled back not to 0 but to where it started: for most losses at the share of positives in the training rows.

    model: one whose body has nothing to train. rows: those of training.
    """

    def __init__(self, model: Model, rows: Rows) -> None:
        self.targets, self.num_labels = rows.data.targets, model.num_labels
        method, self.head = parse_method(model.method), cast("Any", model.network.head)
        self.apart = isinstance(method, Formula) and method.pool.per_label
        self.features = _features(model, rows)
        self.start = _start(self.head)
        self.mean_loss = _mean_loss(model, self.start.device)
        self.solution = Solution(len(rows), len(self.start)).to(self.start.device)

    @logits_of_a_model()
    def solve(self, l2: float, on_block: Callable[[], object] = lambda: None) -> float:
        """Solves from the last solution on; returns the sum of the loss over the rows, without the penalty."""
        pulls, total = self.solution.pulls, 0.0
        for labels, targets in self._blocks():
            problem = Problem(self._scores, self._slope(labels, targets), self.apart)
            pulls[:, labels] = minimise(problem, pulls[:, labels].contiguous(), l2, _TOLERANCE)
            total += self._loss(self._scores(pulls[:, labels].contiguous()) + self.start[labels], targets).item()
            self._write(labels)
            on_block()
        return total

    @logits_of_a_model()
    def out_of_fold(self, l2: float, folds: Sequence[Tensor]) -> Tensor:
        """Returns (rows, L) scores of the rows, those of each fold by a model that is solved without it.

        folds: numbers of rows, which together are all. None is solved from the solution of all rows: at weak penalties
        it is far, and has seen what is left out.
        """
        outputs, device = torch.empty_like(self.solution.pulls), self.start.device
        parts = [(held.to(device), rest_of(held, len(outputs)).to(device)) for held in folds]
        for labels, targets in self._blocks():
            for held, kept in parts:
                problem = Problem(self._scores, self._slope(labels, targets, kept), self.apart)
                scores = self._scores(minimise(problem, torch.zeros_like(outputs[:, labels]), l2, _TOLERANCE))
                outputs[held[:, None], labels] = scores[held] + self.start[labels]
        return self.head.powerset.log_odds(outputs) if isinstance(self.head, PowersetHead) else outputs

    def penalty(self, number: int) -> float:
        """Returns the penalty of a place of the path, from 1; each is half of the one before."""
        return self._first_penalty / _FACTOR ** (number - 1)

    @cached_property
    def _first_penalty(self) -> float:
        """One under which scores hardly move: in the (geometric) mean label, those of positive rows by about 1.

        It is a power of 2, and twice as much for a loss that is twice as large: both have the same solutions.
        """
        rises: list[Tensor] = []
        for labels, targets in self._blocks():
            slope = self._slope(labels, targets)(torch.zeros_like(self.solution.pulls[:, labels]), labels - labels[0])
            moved = self.features.scores(self.features.weights(slope.mean(0) - slope))  # but for what the bias moves
            pulled = slope < 0  # up
            rise = (moved * pulled).sum(0) / pulled.sum(0)
            rises.append(rise[rise > 0].double())
        rise = torch.cat(rises).log2()
        return 2.0 ** round(rise.mean().item()) if len(rise) else 1.0

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields labels that are solved together, by number, and their (rows, k) targets, NaN where unknown."""
        for labels in torch.arange(len(self.start), device=self.start.device).split(
            side_by_side(len(self.solution.pulls)) if self.apart else len(self.start)
        ):
            yield labels, _dense(self.targets, self.num_labels, labels if self.apart else None).to(labels.device)

    def _slope(self, labels: Tensor, targets: Tensor, kept: Tensor | None = None) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the slope of a `Problem`. kept: the only rows that have a loss, by number; None for all."""
        return slope_of(self._loss, self.start[labels], targets, kept)

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.mean_loss(logits, targets) * len(logits)

    def _scores(self, pulls: Tensor) -> Tensor:
        return scores_of(self.features, pulls)

    @torch.no_grad()
    def _write(self, labels: Tensor) -> None:
        pulls = self.solution.pulls[:, labels].contiguous()
        weights, bias = self.features.weights(pulls), self.start[labels] + pulls.sum(0)
        linear = getattr(self.head, "linear", self.head)
        if isinstance(linear, SparseLinear):
            linear.set_outputs(labels, weights, bias)
        else:
            linear.weight[labels], linear.bias[labels] = weights.T, bias


def slope_of(
    loss: Callable[[Tensor, Tensor], Tensor], start: Tensor, targets: Tensor, kept: Tensor | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns the slope of a `Problem`.

    loss: maps logits and targets, (rows, k), to their sum. start: (k,), what the logits are without weights. kept: the
    only rows that have a loss, by number; None for all.
    """
    targets = targets if kept is None else targets[kept]

    def slope(scores: Tensor, chosen: Tensor) -> Tensor:
        logits = (scores + start[chosen]).requires_grad_()
        every = len(chosen) == len(start)
        with torch.enable_grad():
            told = logits if kept is None else logits[kept]
            value = loss(told, targets if every else targets[:, chosen])
        gradient: Tensor
        (gradient,) = torch.autograd.grad(value, logits)
        return gradient

    return slope


def scores_of(features: SparseProducts | _Dense, pulls: Tensor) -> Tensor:
    """Returns what (rows, k) pulls do to the scores, by the features and by a constant one for the bias."""
    return features.scores(features.weights(pulls)) + pulls.sum(0)


def solve_with_folds(
    encoder: Encoder, method: str, rows: Rows, l2: float, seed: int, folds: Sequence[Tensor]
) -> tuple[Model, Scores]:
    """Returns the model of a penalty, and the scores of the rows by models without their fold, `Solver.out_of_fold`."""
    torch.manual_seed(seed)
    model = Model.new(encoder, method, rows.data)
    model.network.to(processes.accelerator().device)
    solver = Solver(model, rows)
    solver.solve(l2)
    return model, Scores(solver.out_of_fold(l2, folds).cpu(), None, model.num_labels)


class SparseProducts:
    """Multiplies by the features of rows, (rows, F), as they are given to an `nn.EmbeddingBag`, and by their transpose.

    The kernel of the embedding bag is two to four times faster here than the sparse products of scipy and of torch.
    """

    def __init__(self, bag: BagOf, num_features: int) -> None:
        values, indices, indptr = (each.cpu().numpy() for each in (bag.weights, bag.indices, bag.indptr))
        columns = csr_array((values, indices, indptr), (len(bag.offsets), num_features)).tocsc()
        self.forward: tuple[Tensor, ...] = bag
        backward = BagOf(*map(torch.from_numpy, (columns.indices, columns.indptr[:-1], columns.data)))
        self.backward = tuple(each.to(like) for each, like in zip(backward, bag, strict=True))

    def scores(self, weights: Tensor) -> Tensor:
        return _sum_of(weights, *self.forward)

    def weights(self, pulls: Tensor) -> Tensor:
        return _sum_of(pulls, *self.backward)


class _Dense:
    """Multiplies by (rows, F) features, and by their transpose."""

    def __init__(self, features: Tensor) -> None:
        self.features = features

    def scores(self, weights: Tensor) -> Tensor:
        return self.features @ weights

    def weights(self, pulls: Tensor) -> Tensor:
        return self.features.T @ pulls


def _sum_of(table: Tensor, indices: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
    return embedding_bag(indices, table, offsets, mode="sum", per_sample_weights=values)


@torch.no_grad()
def _features(model: Model, rows: Rows) -> SparseProducts | _Dense:
    """Returns what the head takes of all rows. Raises ValueError for a body that is trained."""
    if any(weight.requires_grad for weight in model.network.body.parameters()):
        raise ValueError(f"{model.encoder.name} has layers below its head: they are trained in steps, not solved")
    model.network.eval()
    everything = torch.arange(len(rows))
    if isinstance(model.network.body, NoBody):
        return SparseProducts(model.hidden(rows.encoded, everything), model.network.body.width)
    return _Dense(torch.cat([model.hidden(rows.encoded, part).float() for part in everything.split(_BLOCK)]))


def _mean_loss(model: Model, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns what maps the outputs of the head's layer, and the targets, to the mean loss of the rows."""
    head = model.network.head
    if isinstance(head, PowersetHead):
        return head.powerset.loss
    if isinstance(head, DirectHead):
        return head.criterion
    return criterion_of(loss_of_scores(parse_method(model.method)), model.label_counts, model.rows).to(device)


def _start(head: Any) -> Tensor:
    """Returns (outputs,) scores where there are no weights: the share of positives, or 0 for label powerset."""
    linear = getattr(head, "linear", head)
    bias: Tensor = linear.added if isinstance(linear, SparseLinear) else linear.bias
    return torch.zeros_like(bias) if isinstance(head, PowersetHead) else bias.detach().clone()


def _dense(targets: SparseTargets, num_labels: int, labels: Tensor | None) -> Tensor:
    """Returns (rows, k) float32 targets of some labels in a row, or of all, NaN where unknown."""
    first, width = (0, num_labels) if labels is None else (int(labels[0]), len(labels))
    here = (targets.col >= first) & (targets.col < first + width)
    row = targets.row[here]
    dense = torch.zeros(len(targets.crow) - 1, width)
    dense[row, targets.col[here] - first] = 1.0 if targets.values is None else targets.values[here].float()
    return dense
