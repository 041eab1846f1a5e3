"""Losses for multi-label classifiers whose positives are rare."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lopsided.compute.head.shard import LabelShard as LabelShard
    from lopsided.compute.onednn import onednn_products as onednn_products
    from lopsided.decision.temperature import fit_temperature as fit_temperature
    from lopsided.jobs.predict import Predictor
    from lopsided.losses import Formula as Formula
    from lopsided.metrics.collection import MultiLabelMetrics as MultiLabelMetrics
    from lopsided.nn import functional as functional
    from lopsided.nn.adaptive import AdaptiveAsymmetricLoss as AdaptiveAsymmetricLoss
    from lopsided.nn.balanced import BalancedLoss as BalancedLoss
    from lopsided.nn.detection import sigmoid_asymmetric_loss as sigmoid_asymmetric_loss
    from lopsided.nn.divergence import r_drop as r_drop
    from lopsided.nn.divergence import symmetric_kl as symmetric_kl
    from lopsided.nn.fused import FusedAdagrad as FusedAdagrad
    from lopsided.nn.fused import FusedAdamW as FusedAdamW
    from lopsided.nn.fused import FusedSGD as FusedSGD
    from lopsided.nn.head import LinearHead as LinearHead
    from lopsided.nn.linear import linear_loss as linear_loss
    from lopsided.nn.modules import AsymmetricLoss as AsymmetricLoss
    from lopsided.nn.modules import AsymmetricPolynomialLoss as AsymmetricPolynomialLoss
    from lopsided.nn.modules import BinaryCrossEntropyLoss as BinaryCrossEntropyLoss
    from lopsided.nn.modules import FocalLoss as FocalLoss
    from lopsided.nn.modules import MultiLabelLoss as MultiLabelLoss
    from lopsided.nn.modules import ZLPRLoss as ZLPRLoss
    from lopsided.nn.modules import loss as loss
    from lopsided.nn.partial import expected_positives as expected_positives
    from lopsided.nn.partial import partial_loss as partial_loss
    from lopsided.nn.powerset import LabelPowerset as LabelPowerset
    from lopsided.nn.single_label import official_single_label_loss as official_single_label_loss
    from lopsided.nn.single_label import single_label_loss as single_label_loss
    from lopsided.nn.trackers import Diagnostics as Diagnostics
    from lopsided.nn.trackers import DiagnosticsTracker as DiagnosticsTracker
    from lopsided.nn.trackers import ProbabilityTracker as ProbabilityTracker
    from lopsided.nn.weights import class_balanced_weights as class_balanced_weights
    from lopsided.nn.weights import logit_adjustment as logit_adjustment
    from lopsided.nn.weights import positive_weights as positive_weights
    from lopsided.report.outcome import Outcome
    from lopsided.targets import SparseTargets as SparseTargets

__version__ = "0.2.0"

_NAMES = {
    "compute.head.shard": ("LabelShard",),
    "compute.onednn": ("onednn_products",),
    "decision.temperature": ("fit_temperature",),
    "losses": ("Formula",),
    "metrics.collection": ("MultiLabelMetrics",),
    "nn.adaptive": ("AdaptiveAsymmetricLoss",),
    "nn.detection": ("sigmoid_asymmetric_loss",),
    "nn.balanced": ("BalancedLoss",),
    "nn.divergence": ("r_drop", "symmetric_kl"),
    "nn.fused": ("FusedAdagrad", "FusedAdamW", "FusedSGD"),
    "nn.functional": ("functional",),
    "nn.head": ("LinearHead",),
    "nn.linear": ("linear_loss",),
    "nn.modules": (
        "AsymmetricLoss",
        "AsymmetricPolynomialLoss",
        "BinaryCrossEntropyLoss",
        "FocalLoss",
        "MultiLabelLoss",
        "ZLPRLoss",
        "loss",
    ),
    "nn.partial": ("expected_positives", "partial_loss"),
    "nn.powerset": ("LabelPowerset",),
    "nn.single_label": ("official_single_label_loss", "single_label_loss"),
    "nn.trackers": ("Diagnostics", "DiagnosticsTracker", "ProbabilityTracker"),
    "nn.weights": ("class_balanced_weights", "logit_adjustment", "positive_weights"),
    "targets": ("SparseTargets",),
}
_HOMES = {name: f"lopsided.{module}" for module, names in _NAMES.items() for name in names}
__all__ = sorted([*_HOMES, "__version__", "compare_losses", "load"])


def __getattr__(name: str) -> Any:
    """Imports a public name, or a room such as `lopsided.losses`, when it is first used.

    So that the command answers --help without torch, which takes seconds to import.
    """
    if name in _HOMES:
        home = importlib.import_module(_HOMES[name])
        value = getattr(home, name, home)  # `functional` is a module
    else:
        try:
            value = importlib.import_module(f"lopsided.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"lopsided.{name}":
                raise
            message = f"module 'lopsided' has no attribute {name!r}"
            raise AttributeError(message, name=name, obj=sys.modules[__name__]) from None  # Python tells a near name
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(run: str | os.PathLike[str]) -> Predictor:
    """Reads a trained model: the folder of a `lopsided fit`, or of one run of a `lopsided compare`.

    Returns a `Predictor`: `load("runs/tickets").predict(["a text"])` gives a list with a dictionary for each row, such
    as {"labels": ["billing"], "probabilities": [0.93]}. Needs `pip install 'lopsided[tool]'`. Raises
    `lopsided.data.storage.UserError` where the folder holds no model, or a damaged one; nothing in it is executed.
    """
    from pathlib import Path

    from lopsided.jobs.predict import Predictor

    return Predictor.open(Path(run))


def compare_losses(
    train: Callable[[Any, int], Any],
    losses: Sequence[str | Formula] | Mapping[str, Any],
    truth: Any,
    *,
    seeds: int | Sequence[int] = 3,
    valid_truth: Any = None,
    train_truth: Any = None,
    label_names: Sequence[str] | None = None,
    metric: str = "map",
    reference: str | None = None,
    scale: str | None = None,
    reduction: str = "mean",
    name: str = "my data",
) -> Outcome:
    """Compares losses by your own training loop: the verdict, table and report of `lopsided compare`.

    `train(criterion, seed)` trains a model with a criterion, `criterion(logits, targets)`, and returns its scores of
    the test rows, (rows, L): a tensor, an array, lists, or a sparse matrix of the best candidates of each row. It is
    called once for each loss and seed, and should start all losses of a seed from the same weights and batches, since
    differences are paired. Dense scores that are not finite count as a training that diverged.

    Args:
        losses: names such as "asl(gamma_neg=2)", also in one string, or formulas, of which criteria are made with
            `reduction`; or your own criteria by name.
        truth: the labels of the test rows, (rows, L) of 0, 1 and NaN for unknown: dense, sparse, or `SparseTargets`.
        seeds: how many, from 0, or which.
        valid_truth: the labels of validation rows, to tune thresholds on. `train` then returns
            (scores of test rows, scores of validation rows).
        train_truth: those of the training rows, by which labels are called rare or frequent.
        metric: that of the verdict, as for `lopsided compare --metric`.
        reference: the loss compared against: "bce", or the first.
        scale: "logits", or "probabilities"; left out, scores that all lie in [0, 1] are an error.

    Returns an `Outcome`: print it, or `write(folder)` it with a report. Needs `pip install 'lopsided[tool]'`. Raises
    `lopsided.data.storage.UserError` where scores do not fit. See examples/own_loop.
    """
    from lopsided.jobs.console import Console
    from lopsided.jobs.judge import Setting, labelled
    from lopsided.jobs.own_loop import criteria_of, evidence_of_loop
    from lopsided.report.outcome import Outcome

    given = {"test": truth, "valid": valid_truth, "train": train_truth}
    parts = {part: labelled(each, label_names, f"{part} rows") for part, each in given.items() if each is not None}
    setting = Setting(name, parts, metric, reference, scale)
    numbers = range(seeds) if isinstance(seeds, int) else seeds
    evidence = evidence_of_loop(train, criteria_of(losses, reduction), numbers, setting)
    return Outcome.of(evidence, Console(stderr=True))
