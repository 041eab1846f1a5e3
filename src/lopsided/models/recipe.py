"""Says how a model is trained, apart from its loss and its seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """Holds how long and how fast to train, and by which optimiser: the same for every loss that is compared.

    average: the decay of an exponential moving average of the weights, per step; None for the weights as they are.
    sampling: "class_aware" draws every label equally often. mixup, r_drop: the alphas of both, 0 for none.
    body_rate: what the learning rate is multiplied by below the head, as for a pretrained encoder.
    fused_head: the head's update is made chunk by chunk, so that its gradient never exists (Adagrad alone).

    A linear model may be solved instead, optimizer "solve": then an epoch is the minimum for one strength of the
    penalty on the squared weights, each half of the one before, and all that is said of steps does not apply. l2:
    that strength, if it is to be one alone. patience: epochs without a better validation score to stop after. refit:
    whether the model is solved once more on the rows of training and validation, and without each fold of them.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["sgd", "adamw", "adagrad", "solve"] = "adamw"
    momentum: float = 0.0  # of SGD
    weight_decay: float = 0.0  # not of biases and norms
    average: float | None = None
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    body_rate: float = 1.0
    clip_norm: float | None = None
    accumulate: int = 1  # batches to a step
    precision: Literal["fp32", "bf16"] = "fp32"
    fused_head: bool = False
    sampling: Literal["uniform", "class_aware"] = "uniform"
    mixup: float = 0.0
    r_drop: float = 0.0
    l2: float | None = None
    patience: int | None = None
    refit: bool = True

    @property
    def solved(self) -> bool:
        """Says whether a linear model is solved, and not trained in steps."""
        return self.optimizer == "solve"


LARGEST_MAP = 2**27  # weights of a linear model
_SCORES, _PRODUCTS = 2**25, 2**31  # the most that are held while one is solved; the most products of a step: minutes

SOLVED = Recipe(epochs=24, batch_size=1, learning_rate=0.0, optimizer="solve", patience=3)


def solved_recipe(rows: int, entries: int, features: int, num_labels: int) -> Recipe | None:
    """Returns that of a linear model that is solved; None for one that is too large for that.

    entries: the numbers that the rows have, together, other than 0.
    """
    fits = features * num_labels <= LARGEST_MAP and rows * num_labels <= _SCORES and entries * num_labels <= _PRODUCTS
    return SOLVED if fits else None
