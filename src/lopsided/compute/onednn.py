"""Matrix products of float32 by oneDNN instead of MKL, which is slow on processors that are not Intel's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

_SETTING: Any = getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9


@contextmanager
def onednn_products() -> Iterator[bool]:
    """Makes products of float32 matrices on the CPU oneDNN's, inside, if they are as exact here; else changes nothing.

    Gives whether they are. The setting, `torch.backends.mkldnn.matmul.fp32_precision`, is one of the whole process,
    and allows oneDNN less precision than float32: some processors have instructions for that, and use them. So it is
    tried once, against float64, and where it loses more than the usual way there is a warning, and it stays off.

    >>> with warnings.catch_warnings():  # a processor with AMX rounds to bfloat16, and so there is one
    ...     warnings.simplefilter("ignore")
    ...     with onednn_products() as active:
    ...         product = torch.ones(2, 3) @ torch.ones(3, 2)
    """
    if not _is_exact():
        warnings.warn("oneDNN is not there, or rounds float32 products here: they stay as they were", stacklevel=3)
        yield False
        return
    with _switched():
        yield True


@contextmanager
def _switched() -> Iterator[None]:
    before = _SETTING.fp32_precision
    try:
        _SETTING.fp32_precision = "bf16"
        yield
    finally:
        _SETTING.fp32_precision = before


@cache
def _is_exact() -> bool:
    if _SETTING is None or not torch.backends.mkldnn.is_available():
        return False
    usual = _error()
    with _switched():
        return _error() <= 4 * usual


def _error() -> float:
    """Returns the largest error of the three products of a linear head, as a share of the largest result."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight, slopes = (
        torch.randn(shape, generator=generator) for shape in ((256, 320), (2048, 320), (256, 2048))
    )
    worst = 0.0
    for a, b in ((hidden, weight.T), (slopes, weight), (slopes.T, hidden)):
        exact = a.double() @ b.double()
        worst = max(worst, ((a @ b - exact).abs().max() / exact.abs().max()).item())
    return worst
