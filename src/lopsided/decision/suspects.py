"""Ranks negatives that look like forgotten positives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from lopsided.decision.calibrators import fit_platt
from lopsided.metrics.scores import Judged

_CERTAIN = 60.0  # logits beyond say nothing more; those of label powerset reach 1e30


@dataclass(frozen=True)
class Suspects:
    """Holds labels that rows do not have, the most suspicious first; n of each.

    row, label: int64. score: float32, the logit of a model that was not trained on the row. probability: float64,
    calibrated. discarded: bool, whether training on it would already count it less than less suspicious negatives.
    """

    row: Tensor
    label: Tensor
    score: Tensor
    probability: Tensor
    discarded: Tensor

    def __len__(self) -> int:
        return len(self.row)


def rank_suspects(judged: Judged, discarded_above: float = math.inf, top: int | None = None) -> Suspects:
    """Sorts the negatives by the probability that the row was given the label, by Platt's map of the label.

    judged: scores of every row from a model that was not trained on it, with the labels that were given. If every
    positive of a row is forgotten with the same probability r, a negative is a forgotten positive with probability
    r q / (1 - q) / (1 - r), q being the probability that the label was given: it rises with q, so q ranks best. Scores
    are comparable within a label only, and so each label has its map, shrunk for rare ones: see `fit_platt`.

    discarded_above: see `discarding_point`. top: how many, all if None. Equal probabilities go by row, then by label.
    Raises ValueError where no label was given at all, or a score is not finite.

    >>> import torch
    >>> scores = torch.tensor([[3.0, -4.0], [2.0, -3.0], [-3.0, 2.0], [-2.0, -2.0]])
    >>> given = torch.tensor([[1, 0], [0, 0], [0, 1], [0, 0]])
    >>> suspects = rank_suspects(Judged.of(scores, given), top=1)
    >>> suspects.row, suspects.label
    (tensor([1]), tensor([0]))
    """
    scores = judged.scores
    bounded = replace(judged, scores=replace(scores, values=scores.values.clamp(-_CERTAIN, _CERTAIN)))
    probability = fit_platt(bounded)(bounded.scores)
    negative = ~judged.hits if judged.known is None else ~judged.hits & judged.known
    row, column = negative.nonzero(as_tuple=True)
    order = probability[row, column].argsort(descending=True, stable=True)[:top]
    row, column = row[order], column[order]
    score = scores.values[row, column]
    label = column if scores.columns is None else scores.columns[row, column]
    return Suspects(row, label, score, probability[row, column], score > discarded_above)
