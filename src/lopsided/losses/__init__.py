"""What a loss is: pure maths on curves, with no device and no loop over labels."""

from lopsided.losses.calibration import decision_threshold, posterior
from lopsided.losses.catalog import CATALOG, parse
from lopsided.losses.loss import Curve, Loss

__all__ = ["CATALOG", "Curve", "Loss", "decision_threshold", "parse", "posterior"]
