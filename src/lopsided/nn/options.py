"""What every loss takes beside logits and targets, and its checks."""

from __future__ import annotations

from lopsided.losses.checks import check_number

REDUCTIONS = ("none", "mean", "batchmean", "sum")


SOFT_TARGETS = ("mixture", "product")


def check_options(
    reduction: str, soft_targets: str, label_smoothing: float, label_dim: int, ignore_index: int | None
) -> None:
    for name, value in (("label_dim", label_dim), ("ignore_index", ignore_index)):
        if type(value) is not int and value is not None:
            raise TypeError(f"{name} must be an integer, got {value!r}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}; got {reduction!r}")
    if soft_targets not in SOFT_TARGETS:
        raise ValueError(f"soft_targets must be 'mixture' or 'product', got {soft_targets!r}")
    if label_smoothing != 0 or type(label_smoothing) is not float:
        check_number("label_smoothing", label_smoothing, low=0, high=1)
