"""The name of torchvision, torchvision/ops/focal_loss.py."""

from __future__ import annotations

from torch import Tensor

from lopsided.nn.detection import sigmoid_asymmetric_loss


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2, reduction: str = "none"
) -> Tensor:
    """Computes the focal loss of logits and targets of one shape; "none" keeps it. alpha: negative for none.

    >>> import torch
    >>> sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([[0.0433, 0.1300]])

    Source: arXiv 1708.02002. Deviation: soft targets mix the two terms.
    """
    return sigmoid_asymmetric_loss(inputs, targets, alpha, gamma, reduction)
