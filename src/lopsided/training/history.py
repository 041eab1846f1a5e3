"""Defines what an epoch of training is remembered by."""

from __future__ import annotations

import math
from dataclasses import dataclass

JUDGES = (  # the metrics of the registry that training can be judged by: those that a `Weighable` makes
    *("map", "map_weighted", "CP", "CR", "CF1", "OP", "OR", "OF1", "micro_f1", "micro_precision", "micro_recall"),
    *("macro_f1", "sample_precision", "sample_recall", "sample_f1", "subset_accuracy", "empty_rows", "hamming_loss"),
    *("p@1", "p@3", "p@5", "one_error"),
)


@dataclass(frozen=True)
class Epoch:
    """Records what an epoch of training showed; NaN for what does not apply.

    Probabilities, gradients and logits are those of some training rows, the same after every epoch, without dropout;
    gradients as in `lopsided.Diagnostics`, NaN where a method, such as label powerset, trains no label logits.
    What is measured on validation rows is NaN without any.
    """

    epoch: int
    train_loss: float  # mean over the rows, in the units of the loss: not comparable between losses
    seconds: float  # training alone
    valid: float = math.nan  # the metric that training is judged by
    valid_map: float = math.nan  # NaN where only the best labels of a row are scored
    valid_p_at_1: float = math.nan
    p_positive: float = math.nan  # mean probability given to the right answer on positive labels: p
    p_negative: float = math.nan  # and on negative labels: 1 - p
    gradient_positive: float = math.nan  # share of the absolute gradient on the logits that acts on positives
    gradient_hard: float = math.nan  # share that acts on negatives with p > .5
    effective_gamma: float = math.nan  # gradient of a negative ~ p^(1 + gamma)
    logit_positive: float = math.nan  # means over the rows
    logit_negative: float = math.nan
    dead_labels: float = math.nan  # number of labels predicted for no validation row at the tuned threshold
    l2: float = math.nan  # the penalty of a model that is solved

    @classmethod
    def lost(cls, number: int) -> Epoch:
        """Returns the record of an epoch that a diverged training did not finish."""
        return cls(number, math.nan, 0.0)

    @property
    def ranking(self) -> tuple[str, float]:
        """Returns how well validation rows are ranked: mAP, or P@1 where only the best labels of a row are scored."""
        return ("P@1", self.valid_p_at_1) if math.isnan(self.valid_map) else ("mAP", self.valid_map)

    @property
    def is_lost(self) -> bool:
        return math.isnan(self.train_loss)
