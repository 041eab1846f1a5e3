"""How a loss is evaluated: executors, which know no loss."""

from lopsided.compute.eager import row_loss

__all__ = ["row_loss"]
