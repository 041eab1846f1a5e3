"""Solves the nodes of a tree over labels: each is a linear model of its own, on the rows that have a label below it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from lopsided.data.inputs import csr_entries
from lopsided.data.storage import UserError
from lopsided.losses.closed_form import settled_logit
from lopsided.models.direct import BagOf
from lopsided.models.model import Model
from lopsided.models.tree import TreeHead, depths_of, halves
from lopsided.nn.functional import multilabel_loss
from lopsided.targets.checks import logits_of_a_model
from lopsided.training.newton import Problem, minimise, side_by_side
from lopsided.training.rows import Rows
from lopsided.training.solve import SparseProducts, scores_of, slope_of

_L2 = 0.1  # on rows of unit length; on Bibtex and on made data .03 to .3 are within a point of P@1
_TOLERANCE = 0.01
_SMALL = 0.1  # weights below are left out: a tenth of the memory, and .2 points of P@1
_MEANS_STEPS = 8  # of 2-means, which hardly moves after that


class TreeSolver:
    """Makes the tree of a model and minimises at each node the loss plus l2/2 times the squared weights, as `Solver`.

    A node judges what is below it, each as if it were one label, on the rows that have a label below the node; the root
    does on all rows. Labels are halved again and again by balanced 2-means of the mean features of their rows.

    model: one whose head is a `TreeHead`. rows: those of training. Raises UserError for soft and unknown labels.
    """

    def __init__(self, model: Model, rows: Rows) -> None:
        self.targets, self.num_labels = rows.data.targets, model.num_labels
        if self.targets.values is not None:
            raise UserError("a tree takes no soft and no unknown labels; choose --model bag")
        self.head = cast("TreeHead", model.network.head)
        bag: BagOf = model.hidden(rows.encoded, torch.arange(len(rows)))
        self.bag = BagOf(*(each.cpu() for each in bag))
        self.indptr = self.bag.indptr
        self.solution = nn.Module()

    def penalty(self, number: int) -> float:
        """Returns the penalty of a place of the path, from 1; each is half of the one before."""
        return _L2 / 2.0 ** (number - 1)

    @logits_of_a_model()
    def solve(self, l2: float, on_block: Callable[[], object] = lambda: None) -> float:
        """Sets the tree and its weights; returns the sum of the losses at the last nodes, without the penalty."""
        order, total = self._order(), 0.0
        keys, outputs, weights, bias = [], [], [], []
        for node, rows, below in self._nodes(order):
            features, known = self._features_of(rows)
            weight, added, loss = self._solved(known, len(features), below, l2)
            feature, output = (weight.abs() > _SMALL).nonzero(as_tuple=True)
            keys.append(node * self.head.num_features + features[feature])
            outputs.append(output.to(torch.int16))
            weights.append(weight[feature, output])
            bias.append(added)
            total += loss if node >= self.head.levels[-1].node else 0.0
            on_block()
        key, count = torch.cat(keys).unique_consecutive(return_counts=True)
        starts = nn.functional.pad(count.cumsum(0), (1, 0))
        tensors = {"order": order, "keys": key, "starts": starts, "outputs": torch.cat(outputs)}
        tensors |= {"weights": torch.cat(weights)[:, None], "bias": torch.cat(bias)}
        device = self.head.bias.device
        self.head.set({name: tensor.to(device) for name, tensor in tensors.items()})
        return total

    def _nodes(self, order: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yields the nodes by number, each with its (n,) rows, and (n, outputs), 1 where they have what is below it."""
        rows, count = len(self.indptr) - 1, self.num_labels
        place = torch.empty_like(order).scatter_(0, order, torch.arange(count))[self.targets.col]
        row = self.targets.row
        by_place = (place * rows + row).argsort()
        place, row = place[by_place], row[by_place]
        depths = depths_of(count)
        ends = [*(halves(count, depth) for depth in depths), torch.arange(count + 1)]
        for level, (here, below) in zip(self.head.levels, pairwise(ends), strict=True):
            cut = torch.searchsorted(place, here).tolist()
            output = torch.searchsorted(below, place, right=True) - 1
            for node, (first, last) in enumerate(pairwise(level.first.tolist())):
                part = slice(cut[node], cut[node + 1])
                chosen, number = row[part].unique(return_inverse=True)
                if not level.node + node:  # the root
                    chosen, number = torch.arange(rows), row[part]
                has = torch.zeros(len(chosen), last - first)
                has[number, output[part] - first] = 1.0
                yield level.node + node, chosen, has

    def _features_of(self, rows: Tensor) -> tuple[Tensor, BagOf]:
        """Returns the features that rows have, by number, and the rows with these features alone, numbered anew."""
        indptr, entries = csr_entries(self.indptr, rows)
        features, number = self.bag.indices[entries].unique(return_inverse=True)
        return features, BagOf(number, indptr[:-1], self.bag.weights[entries])

    def _solved(self, bag: BagOf, num_features: int, has: Tensor, l2: float) -> tuple[Tensor, Tensor, float]:
        """Returns (features, outputs) weights, what is added to the scores of each output, and the sum of the loss.

        Labels of no row are as rare as the loss can say; nothing is learnt of them.
        """
        formula = self.head.formula
        share = (has.sum(0).double() + 0.5) / (len(has) + 1)
        start = settled_logit(formula, share / (1 - share)).float().clamp(-20, 20)
        if not len(has):
            return torch.zeros(0, len(start)), start, 0.0
        products, total = SparseProducts(bag, num_features), 0.0
        loss = partial(multilabel_loss, loss=formula, reduction="sum")
        weights, bias = torch.zeros(num_features, len(start)), start.clone()
        present = has.any(0).nonzero()[:, 0]
        for labels in present.split(side_by_side(len(has)) if formula.pool.per_label else max(len(present), 1)):
            truth, begin = has[:, labels], start[labels]
            problem = Problem(partial(scores_of, products), slope_of(loss, begin, truth), formula.pool.per_label)
            pulls = minimise(problem, torch.zeros(len(has), len(labels)), l2, _TOLERANCE)
            weights[:, labels] = products.weights(pulls)
            bias[labels] += pulls.sum(0)
            total += loss(problem.product(pulls) + begin, truth).item()
        return weights, bias, total

    def _order(self) -> Tensor:
        """Returns the labels so that those whose rows have the same features stand together."""
        import numpy as np
        from scipy import sparse

        shape = len(self.indptr) - 1, self.head.num_features
        rows = sparse.csr_matrix((self.bag.weights.numpy(), self.bag.indices.numpy(), self.indptr.numpy()), shape)
        row, col = self.targets.row.numpy(), self.targets.col.numpy()
        of_label = sparse.csr_matrix((np.ones(len(col), np.float32), (col, row)), (self.num_labels, shape[0]))
        means = of_label @ rows
        length = np.sqrt(np.asarray(means.multiply(means).sum(1)).ravel())
        means = (sparse.diags(1 / np.where(length > 0, length, 1)) @ means).tocsr()
        order, random = np.arange(self.num_labels), np.random.default_rng(0)
        for depth in range(depths_of(self.num_labels)[-1]):
            ends = halves(self.num_labels, depth + 1).tolist()
            for first, middle, last in zip(ends[:-1:2], ends[1::2], ends[2::2], strict=True):
                labels = order[first:last]
                order[first:last] = labels[_parted(means[labels], middle - first, random)]
        return torch.from_numpy(order)


def _parted(means: Any, half: int, random: Any) -> Any:
    """Returns the order of so many (n, F) sparse means in which the first half is one of two clusters."""
    import numpy as np

    order, with_rows = np.arange(len(means.indptr) - 1), np.flatnonzero(np.diff(means.indptr))
    if len(with_rows) < 2:
        return order
    one, other = random.choice(with_rows, 2, replace=False)
    way = (means[one] - means[other]).toarray()[0]
    for _ in range(_MEANS_STEPS):
        before, order = order, (-(means @ way)).argsort(kind="stable")
        if np.array_equal(np.sort(before[:half]), np.sort(order[:half])):
            break
        centres = [np.asarray(means[part].sum(0))[0] for part in (order[:half], order[half:])]
        lengths = [max(float(np.linalg.norm(centre)), 1e-12) for centre in centres]
        way = centres[0] / lengths[0] - centres[1] / lengths[1]
    return order
