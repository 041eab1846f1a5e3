"""The names of bert4keras, bert4keras/backend.py, for torch tensors. Mind the order: y_true first."""

from __future__ import annotations

from torch import Tensor

from lopsided.compat.bert4torch import SparseMultilabelCategoricalCrossentropy
from lopsided.nn.functional import multilabel_loss


def multilabel_categorical_crossentropy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Computes ZLPR, a value for each row, (...): (..., L) targets in [0, 1] and logits.

    >>> import torch
    >>> multilabel_categorical_crossentropy(torch.tensor([[1, 0, 0]]), torch.tensor([[2.0, -1.0, 0.5]]))
    tensor([1.2311])

    Source: Su et al. 2022, arXiv 2208.02955.
    """
    return multilabel_loss(y_pred, y_true, "zlpr", reduction="none")


def sparse_multilabel_categorical_crossentropy(y_true: Tensor, y_pred: Tensor, mask_zero: bool = False) -> Tensor:
    """Computes ZLPR of (..., P) index lists, a value for each row; see `SparseMultilabelCategoricalCrossentropy`.

    >>> import torch
    >>> sparse_multilabel_categorical_crossentropy(torch.tensor([[0, 2]]), torch.tensor([[1.0, -2.0, 0.5, 3.0]]))
    tensor([3.7353])
    """
    values: Tensor = SparseMultilabelCategoricalCrossentropy(mask_zero)(y_pred, y_true)
    return values
