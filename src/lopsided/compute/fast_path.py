"""The shortest way through the C library: for a small batch Python takes longer than the C code does."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.compute.native import run as native
from lopsided.compute.node import attach
from lopsided.compute.reduce import Problem, counted, evaluate
from lopsided.losses.formulas import Formula
from lopsided.targets import SparseTargets, Supervision
from lopsided.targets.checks import has_memory, is_recorded, warn_of_probabilities

_LOGITS = (torch.float32, torch.float64, torch.bfloat16)
_TARGETS = native.TARGET_TYPES
# before torch 2.8 nothing tells whether there are hooks: there may be
_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda ignore_is_tracing: True)


def fast_loss(logits: Tensor, targets: Tensor | SparseTargets, formula: Formula, reduction: str) -> Tensor | None:
    """Returns the reduced loss, or None for batches that are left to `evaluate`.

    Served are matrices on the CPU in contiguous memory, other than float16, with dense targets, where nothing but
    autograd records what happens. Raises ValueError for targets out of range.
    """
    counts = counted(formula, reduction)
    if (
        type(logits) is not Tensor
        or type(targets) is not Tensor
        or not _are_served(logits, targets)
        or counts == "positive rows"
        or formula.pool.transposed
        or (template := native.template(formula)) is None
    ):
        return None
    rows, labels = logits.shape
    divisor = 1 if counts is None else rows * labels if counts == "labels" else rows
    gradient = torch.empty_like(logits) if logits.requires_grad and torch.is_grad_enabled() else None
    value = logits.new_empty((), dtype=torch.float32) if logits.dtype is torch.bfloat16 else logits.new_empty(())
    job = native.new_job(template, logits, rows, labels, labels, 1 / divisor, gradient)
    job.targets, job.target_stride, job.target_type = targets.data_ptr(), labels, _TARGETS[targets.dtype]
    job.total = value.data_ptr()
    # The code that attaches the value is no longer in the cache of the processor after the C loop: so it runs before.
    # But where hooks look at what autograd saves, the gradient must be there already.
    attached = attach(logits, value, gradient) if gradient is None or _hooks(True) is None else None
    native.call(job)
    if job.needs_check:
        return evaluate(native, logits, Problem(formula, Supervision(targets), reduction=reduction), needs_check=True)
    if job.failed:
        return None
    if job.looks_like_probabilities:
        warn_of_probabilities(logits)
    return attach(logits, value, gradient) if attached is None else attached


def _are_served(logits: Tensor, targets: Tensor) -> bool:
    return (
        not is_recorded()
        and logits.is_cpu
        and targets.is_cpu
        and logits.dtype in _LOGITS
        and targets.dtype in _TARGETS
        and targets.layout is torch.strided
        and logits.ndim == 2
        and logits.shape == targets.shape
        and logits.numel() > 0
        and logits.is_contiguous()
        and targets.is_contiguous()
        and not targets.requires_grad
        and not logits.is_neg()  # memory that holds the numbers negated
        and not targets.is_neg()
        and has_memory(logits)
        and has_memory(targets)
    )
