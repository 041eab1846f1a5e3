"""Every check and message of the library's public edge: what came, what was expected, what to do."""

from __future__ import annotations

import math

import torch
from torch import Tensor

REDUCTIONS = ("none", "mean", "batchmean", "sum")
SMALLEST_CLIP = 0.001


def check_inputs(logits: Tensor, targets: Tensor, mask: Tensor | None) -> None:
    """Shapes, dtypes and devices always; the values of the targets on the CPU, where looking is cheap."""
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}: pass the model's raw scores")
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits must have shape (..., labels) with labels > 0, got {tuple(logits.shape)}")
    if targets.shape != logits.shape:
        raise ValueError(
            f"targets have shape {tuple(targets.shape)} but logits {tuple(logits.shape)}: pass one number in "
            "[0, 1] for every label of every row (class indices must be turned into multi-hot rows first)"
        )
    if targets.device != logits.device:
        raise ValueError(f"targets are on {targets.device} but logits on {logits.device}: move one of them")
    if targets.requires_grad:
        raise ValueError("targets require grad, but no gradient flows to targets: pass targets.detach()")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != logits.shape):
        raise ValueError(
            f"mask must be bool with the shape of the logits {tuple(logits.shape)}, True where the label is "
            f"known; got {mask.dtype} {tuple(mask.shape)}"
        )
    _check_target_values(targets, mask)


def _check_target_values(targets: Tensor, mask: Tensor | None) -> None:
    if targets.dtype == torch.bool or targets.device.type != "cpu" or torch.compiler.is_compiling():
        return
    known = targets if mask is None else targets[mask]
    if known.numel() == 0:
        return
    low, high = (bound.item() for bound in known.aminmax())
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise ValueError(
            f"targets must lie in [0, 1], got values from {low:g} to {high:g}: "
            "mark unknown labels with mask=, and pass multi-hot rows, not class indices"
        )


def check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}; got {reduction!r}")


def check_number(name: str, value: float, low: float = -math.inf, high: float = math.inf) -> float:
    """`value` as a float, finite and in [low, high), or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and low <= number < high):
        bounds = f"in [{low:g}, {high:g})" if math.isfinite(low) else "finite"
        raise ValueError(f"{name} must be {bounds}, got {number:g}")
    return number


def check_clip(clip: float) -> float:
    """A margin in [0, 1). Tiny ones are refused: they change nothing, and 1 - clip would round."""
    margin = check_number("clip", clip, low=0, high=1)
    if 0 < margin < SMALLEST_CLIP:
        raise ValueError(f"clip must be 0 or at least {SMALLEST_CLIP:g}, got {margin:g}")
    return margin


def check_flag(name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value
