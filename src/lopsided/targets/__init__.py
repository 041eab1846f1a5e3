"""What a user says about labels, dense or sparse."""

from lopsided.targets.sparse import SparseTargets
from lopsided.targets.supervision import Supervision, labels_last

__all__ = ["SparseTargets", "Supervision", "labels_last"]
