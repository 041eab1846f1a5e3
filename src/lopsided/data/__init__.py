"""Readers, each of one format, that return `Splits` of `MultiLabelData`."""

from lopsided.data.dataset import MultiLabelData, Splits

__all__ = ["MultiLabelData", "Splits"]
