"""Examines a loss of your own: one made of curves, or any callable."""

from lopsided.testing.callables import Examination, check_callable
from lopsided.testing.findings import Finding
from lopsided.testing.formulas import check_loss

__all__ = ["Examination", "Finding", "check_callable", "check_loss"]
