"""What a loss is: pure maths on curves, with no device and no loop over labels."""

from lopsided.losses.catalog import CATALOG, SOURCES
from lopsided.losses.loss import Curve, Loss
from lopsided.losses.pools import LogSumExp, MeanPairs, Pairs, Pool, Softmax, Sum, TwoWayPairs
from lopsided.losses.spec import PRESETS, parse, to_loss

__all__ = [
    "CATALOG",
    "PRESETS",
    "SOURCES",
    "Curve",
    "LogSumExp",
    "Loss",
    "MeanPairs",
    "Pairs",
    "Pool",
    "Softmax",
    "Sum",
    "TwoWayPairs",
    "parse",
    "to_loss",
]
