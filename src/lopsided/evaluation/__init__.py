"""From scores to numbers: metrics, decisions, and whether a difference is real."""

from lopsided.evaluation.collection import MetricValues, MultiLabelMetrics

__all__ = ["MetricValues", "MultiLabelMetrics"]
