"""What a loss is: pure maths on curves, with no device and no loop over labels."""

from lopsided.losses.catalog import CATALOG, SOURCES
from lopsided.losses.formulas import Curve, Formula
from lopsided.losses.names import PRESETS, as_formula, formula
from lopsided.losses.pools import LogSumExp, MeanPairs, Pairs, Pool, Softmax, Sum, TwoWayPairs

__all__ = [
    "CATALOG",
    "PRESETS",
    "SOURCES",
    "Curve",
    "Formula",
    "LogSumExp",
    "MeanPairs",
    "Pairs",
    "Pool",
    "Softmax",
    "Sum",
    "TwoWayPairs",
    "as_formula",
    "formula",
]
