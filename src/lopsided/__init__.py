"""Losses for multi-label classifiers whose positives are rare."""

from lopsided import functional
from lopsided._version import __version__
from lopsided.adaptive import AdaptiveAsymmetricLoss, ProbabilityTracker
from lopsided.detection import sigmoid_asymmetric_loss
from lopsided.diagnostics import Diagnostics, DiagnosticsTracker
from lopsided.divergence import r_drop, symmetric_kl
from lopsided.fused import FusedAdagrad, FusedAdamW, FusedSGD
from lopsided.head import LinearLoss
from lopsided.linear import linear_loss
from lopsided.losses import Loss
from lopsided.losses import parse as loss
from lopsided.losses.calibration import fit_temperature
from lopsided.modules import (
    AsymmetricLoss,
    AsymmetricPolynomialLoss,
    BinaryCrossEntropyLoss,
    FocalLoss,
    MultiLabelLoss,
    ZLPRLoss,
)
from lopsided.partial import partial_loss
from lopsided.powerset import LabelPowerset
from lopsided.products import onednn_products
from lopsided.sharding import LabelShard
from lopsided.single_label import official_single_label_loss, single_label_loss
from lopsided.targets import SparseTargets
from lopsided.weights import class_balanced_weights, logit_adjustment, positive_weights

__all__ = [
    "AdaptiveAsymmetricLoss",
    "AsymmetricLoss",
    "AsymmetricPolynomialLoss",
    "BinaryCrossEntropyLoss",
    "Diagnostics",
    "DiagnosticsTracker",
    "FocalLoss",
    "FusedAdagrad",
    "FusedAdamW",
    "FusedSGD",
    "LabelPowerset",
    "LabelShard",
    "LinearLoss",
    "Loss",
    "MultiLabelLoss",
    "ProbabilityTracker",
    "SparseTargets",
    "ZLPRLoss",
    "__version__",
    "class_balanced_weights",
    "fit_temperature",
    "functional",
    "linear_loss",
    "logit_adjustment",
    "loss",
    "official_single_label_loss",
    "onednn_products",
    "partial_loss",
    "positive_weights",
    "r_drop",
    "sigmoid_asymmetric_loss",
    "single_label_loss",
    "symmetric_kl",
]
