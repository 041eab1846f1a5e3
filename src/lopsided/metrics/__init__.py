"""From scores to numbers: metrics, decisions, and whether a difference is real."""

from lopsided.metrics.collection import MetricValues, MultiLabelMetrics

__all__ = ["MetricValues", "MultiLabelMetrics"]
