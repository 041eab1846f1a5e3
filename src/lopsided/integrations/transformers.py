"""Losses for the Trainer of Hugging Face's transformers, exact under gradient accumulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lopsided.nn import modules

UNKNOWN = -100  # what the Trainer does not count


def loss(spec: str, **settings: Any) -> Callable[..., Tensor]:
    """Returns a loss by name for `Trainer(compute_loss_func=...)`: the mean over all batches of a step.

    The Trainer counts the labels of a step that are not -100, on all processes, and the loss divides by that. So labels
    must be 0, 1 or between, and -100 where they are unknown; the collator may make them float or integer.

    Args:
        spec: a name such as "asl", or a name with settings such as "asl(gamma_neg=2)".
        settings: more hyperparameters of that loss, and options of `lopsided.loss`, but for reduction and ignore_index.

    Returns a function of (outputs, labels, num_items_in_batch), which takes `outputs["logits"]`, or the first of a
    tuple. It raises ValueError for labels of NaN, which the Trainer counts, and for ZLPR with unknown labels: its mean
    is over rows, which the number of known labels does not tell.

    Raises ValueError for losses that compare positives with negatives: their mean is over the rows with a positive,
    which the Trainer does not count.

    >>> import torch
    >>> compute_loss = loss("asl(gamma_neg=2)")
    >>> outputs = {"logits": torch.zeros(2, 3)}
    >>> compute_loss(outputs, torch.tensor([[1, 0, -100], [0, 0, 1]]), num_items_in_batch=5)
    tensor(0.3499)
    """
    criterion = modules.loss(spec, reduction="sum", ignore_index=UNKNOWN, **settings)
    counts = criterion.formula.pool.counts
    if counts == "positive rows":
        raise ValueError(
            f"{criterion.formula} divides by the rows with a positive, which the Trainer does not count: take a loss "
            "that judges labels alone, or zlpr"
        )

    def compute_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        if labels.is_floating_point() and labels.isnan().any():
            raise ValueError(f"the Trainer counts labels of NaN as known: mark unknown ones with {UNKNOWN}")
        value: Tensor = criterion.to(logits.device)(logits, labels)
        if num_items_in_batch is None:
            return value / criterion.count(labels).clamp_min(1)
        if counts == "rows":
            if (labels == UNKNOWN).any():
                raise ValueError(
                    f"{criterion.formula} divides by rows, and the Trainer counts known labels, so that labels of "
                    f"{UNKNOWN} would change the loss: take a loss that judges labels alone"
                )
            return value / max(num_items_in_batch / labels.shape[-1], 1)
        return value / max(num_items_in_batch, 1)

    return compute_loss
