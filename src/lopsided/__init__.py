"""Losses for multi-label classifiers whose positives are rare."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lopsided.compute.head.shard import LabelShard
from lopsided.compute.onednn import onednn_products
from lopsided.decision.temperature import fit_temperature
from lopsided.losses import Formula
from lopsided.nn import functional
from lopsided.nn.adaptive import AdaptiveAsymmetricLoss
from lopsided.nn.detection import sigmoid_asymmetric_loss
from lopsided.nn.divergence import r_drop, symmetric_kl
from lopsided.nn.fused import FusedAdagrad, FusedAdamW, FusedSGD
from lopsided.nn.head import LinearHead
from lopsided.nn.linear import linear_loss
from lopsided.nn.modules import (
    AsymmetricLoss,
    AsymmetricPolynomialLoss,
    BinaryCrossEntropyLoss,
    FocalLoss,
    MultiLabelLoss,
    ZLPRLoss,
    loss,
)
from lopsided.nn.partial import partial_loss
from lopsided.nn.powerset import LabelPowerset
from lopsided.nn.single_label import official_single_label_loss, single_label_loss
from lopsided.nn.trackers import Diagnostics, DiagnosticsTracker, ProbabilityTracker
from lopsided.nn.weights import class_balanced_weights, logit_adjustment, positive_weights
from lopsided.targets import SparseTargets

if TYPE_CHECKING:
    from lopsided.jobs.predict import Predictor

__version__ = "0.1.0"


def load(run: str | os.PathLike[str]) -> Predictor:
    """Reads a trained model: the folder of a `lopsided fit`, or of one run of a `lopsided compare`.

    Returns a `Predictor`: `load("runs/tickets").predict(["a text"])` gives a list with a dictionary for each row, such
    as {"labels": ["billing"], "probabilities": [0.93]}. Needs `pip install 'lopsided[tool]'`. Raises
    `lopsided.data.storage.UserError` where the folder holds no model, or a damaged one; nothing in it is executed.
    """
    from pathlib import Path

    from lopsided.jobs.predict import Predictor

    return Predictor.open(Path(run))


__all__ = [
    "AdaptiveAsymmetricLoss",
    "AsymmetricLoss",
    "AsymmetricPolynomialLoss",
    "BinaryCrossEntropyLoss",
    "Diagnostics",
    "DiagnosticsTracker",
    "FocalLoss",
    "Formula",
    "FusedAdagrad",
    "FusedAdamW",
    "FusedSGD",
    "LabelPowerset",
    "LabelShard",
    "LinearHead",
    "MultiLabelLoss",
    "ProbabilityTracker",
    "SparseTargets",
    "ZLPRLoss",
    "__version__",
    "class_balanced_weights",
    "fit_temperature",
    "functional",
    "linear_loss",
    "load",
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
