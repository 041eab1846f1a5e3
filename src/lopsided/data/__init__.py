"""The readers, each of one format, return `Splits` of `MultiLabelData`."""

from lopsided.data.dataset import MultiLabelData, Splits

__all__ = ["MultiLabelData", "Splits"]
