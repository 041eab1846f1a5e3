"""Losses for multi-label classifiers whose positives are rare."""

from lopsided import functional
from lopsided._version import __version__
from lopsided.losses import Loss
from lopsided.losses import parse as loss
from lopsided.modules import (
    AsymmetricLoss,
    AsymmetricPolynomialLoss,
    BinaryCrossEntropyLoss,
    FocalLoss,
    MultiLabelLoss,
    ZLPRLoss,
)
from lopsided.targets import SparseTargets

__all__ = [
    "AsymmetricLoss",
    "AsymmetricPolynomialLoss",
    "BinaryCrossEntropyLoss",
    "FocalLoss",
    "Loss",
    "MultiLabelLoss",
    "SparseTargets",
    "ZLPRLoss",
    "__version__",
    "functional",
    "loss",
]
