"""Losses for multi-label classifiers whose positives are rare."""

from lopsided import functional
from lopsided._version import __version__
from lopsided.losses import Loss, decision_threshold, posterior
from lopsided.losses import parse as loss
from lopsided.modules import (
    AsymmetricLoss,
    AsymmetricPolynomialLoss,
    BinaryCrossEntropyLoss,
    FocalLoss,
    MultiLabelLoss,
    ZLPRLoss,
)

__all__ = [
    "AsymmetricLoss",
    "AsymmetricPolynomialLoss",
    "BinaryCrossEntropyLoss",
    "FocalLoss",
    "Loss",
    "MultiLabelLoss",
    "ZLPRLoss",
    "__version__",
    "decision_threshold",
    "functional",
    "loss",
    "posterior",
]
