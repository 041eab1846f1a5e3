"""The shortest way through the C library: for a small batch Python takes longer than the C code does."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.compute.native import run as native
from lopsided.compute.node import attach
from lopsided.compute.reduce import counted
from lopsided.losses.formulas import Formula
from lopsided.targets import Supervision
from lopsided.targets.checks import TARGET_DTYPES, check_values, has_memory, is_recorded, warn_of_probabilities

_LOGITS = (torch.float32, torch.float64, torch.bfloat16)
_INTEGERS = (torch.int64, torch.int32)
# before torch 2.8 nothing tells whether there are hooks: there may be
_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda ignore_is_tracing: True)


def fast_loss(
    logits: Tensor, supervision: Supervision, row_weight: Tensor | None, formula: Formula, reduction: str
) -> Tensor | None:
    """Returns the reduced loss, or None for batches that are left to the checks and `evaluate`.

    Served are logits on the CPU in contiguous memory, other than float16, beside tensors like that, where nothing but
    autograd records what happens. Raises ValueError for values out of range.
    """
    if (
        is_recorded()
        or native.template(formula) is None
        or not is_reduced(formula, reduction, row_weight)
        or not _are_served(logits, supervision, row_weight)
    ):
        return None
    gradient = torch.empty_like(logits) if logits.requires_grad and torch.is_grad_enabled() else None
    value = new_value(logits, reduction)
    # The code that attaches the value is no longer in the cache of the processor after the C loop: so it runs before.
    # But where hooks look at what autograd saves, the gradient must be there already.
    attached = attach(logits, value, gradient) if gradient is None or _hooks(True) is None else None
    if not calculate(logits, supervision, row_weight, formula, reduction, value, gradient):
        return None
    return attach(logits, value, gradient) if attached is None else attached


def is_reduced(formula: Formula, reduction: str, row_weight: Tensor | None) -> bool:
    """Tells whether the C library, if it has a loop for a formula, reduces the loss in that way."""
    return not formula.pool.transposed or (reduction in ("mean", "sum") and row_weight is None)


def new_value(logits: Tensor, reduction: str) -> Tensor:
    """Returns an empty tensor for the loss."""
    dtype = torch.float32 if logits.dtype is torch.bfloat16 else logits.dtype
    return logits.new_empty(logits.shape[:-1] if reduction == "none" else (), dtype=dtype)


def calculate(
    logits: Tensor,
    supervision: Supervision,
    row_weight: Tensor | None,
    formula: Formula,
    reduction: str,
    value: Tensor,
    gradient: Tensor | None,
) -> bool:
    """Writes the reduced loss and its gradient, all contiguous; returns False where it cannot, for want of memory.

    Raises ValueError for values out of range.
    """
    fixed, labels = native.template(formula), logits.shape[-1]
    assert fixed is not None
    job = native.new_job(fixed, logits, logits.numel() // labels, labels, labels, 1.0, gradient)
    job.counted, job.both_ways = native.COUNTED[counted(formula, reduction)], formula.pool.transposed
    alive = native.fill_supervision(job, supervision, value.dtype)
    if row_weight is not None:
        alive.append(row_weight.to(value.dtype))
        job.row_weight = alive[-1].data_ptr()
    if reduction == "none":
        job.value = value.data_ptr()
    else:
        job.total = value.data_ptr()
    native.call(job)
    del alive
    if job.needs_check or job.broken:
        check_values(logits, supervision, row_weight)
    if job.looks_like_probabilities:
        warn_of_probabilities(logits)
    return not (job.failed or job.broken)


def _are_served(logits: Tensor, supervision: Supervision, row_weight: Tensor | None) -> bool:
    values, crow, col, mask, weight, pos_weight = supervision.tensors
    shape = logits.shape
    if not (_is_plain(logits) and logits.dtype in _LOGITS and logits.numel() > 0 and logits.ndim > 0):
        return False
    if crow is None or col is None:
        right = values is not None and values.shape == shape and values.dtype in TARGET_DTYPES
    else:
        right = _is_listed(crow) and _is_listed(col) and len(crow) - 1 == logits.numel() // shape[-1]
        right = right and supervision.num_labels in (None, shape[-1]) and (values is None or values.shape == col.shape)
    return (
        right
        and (values is None or _is_beside(values))
        and (mask is None or (_is_beside(mask) and mask.dtype is torch.bool and mask.shape == shape))
        and (weight is None or (_is_beside(weight) and weight.shape in (shape, shape[-1:])))
        and (pos_weight is None or (_is_beside(pos_weight) and pos_weight.shape == shape[-1:]))
        and (row_weight is None or (_is_beside(row_weight) and row_weight.shape == shape[:-1]))
    )


def _is_listed(tensor: Tensor) -> bool:
    return tensor.ndim == 1 and tensor.dtype in _INTEGERS and _is_beside(tensor)


def _is_beside(tensor: Tensor) -> bool:
    return _is_plain(tensor) and not tensor.requires_grad and not tensor.dtype.is_complex


def _is_plain(tensor: Tensor) -> bool:
    """Tells whether the numbers of a tensor lie in its memory as they are, one behind the other, on the CPU."""
    return (
        type(tensor) is Tensor
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and not tensor.is_neg()  # memory that holds the numbers negated
        and has_memory(tensor)
    )
