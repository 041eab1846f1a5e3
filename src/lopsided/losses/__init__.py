"""What a loss is: pure maths on curves, with no device and no loop over labels."""

from lopsided.losses.entries import CATALOG, SOURCES
from lopsided.losses.formulas import Curve, Formula
from lopsided.losses.frequencies import BALANCED, Balanced
from lopsided.losses.names import PRESETS, any_loss, as_formula, balanced, between, formula
from lopsided.losses.none_class import NoneClass
from lopsided.losses.pools import (
    DecoupledSoftmax,
    LogSumExp,
    MeanPairs,
    Pairs,
    Pool,
    SideMeans,
    Softmax,
    Sum,
    ThresholdSoftmax,
    TwoWayPairs,
)
from lopsided.losses.unknown import UNKNOWN, UNKNOWN_SOURCES

__all__ = [
    "BALANCED",
    "CATALOG",
    "PRESETS",
    "SOURCES",
    "UNKNOWN",
    "UNKNOWN_SOURCES",
    "Balanced",
    "Curve",
    "DecoupledSoftmax",
    "Formula",
    "LogSumExp",
    "MeanPairs",
    "NoneClass",
    "Pairs",
    "Pool",
    "SideMeans",
    "Softmax",
    "Sum",
    "ThresholdSoftmax",
    "TwoWayPairs",
    "any_loss",
    "as_formula",
    "balanced",
    "between",
    "formula",
]
