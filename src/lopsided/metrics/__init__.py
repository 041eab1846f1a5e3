"""From scores to numbers: metrics, decisions, and whether a difference is real."""

from lopsided.metrics.collection import MetricValues, MultiLabelMetrics
from lopsided.metrics.registry import METRICS
from lopsided.metrics.scores import Judged, Scores

__all__ = ["METRICS", "Judged", "MetricValues", "MultiLabelMetrics", "Scores"]
