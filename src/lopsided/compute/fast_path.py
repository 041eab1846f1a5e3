"""The shortest way through the C library: for a small batch Python takes longer than the C code does."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.compute.native import run as native
from lopsided.compute.node import attach
from lopsided.compute.reduce import counted
from lopsided.losses.formulas import Formula
from lopsided.targets import SparseTargets
from lopsided.targets.checks import is_recorded, warn_of_probabilities

_LOGITS = (torch.float32, torch.float64, torch.bfloat16)
_TARGETS = native.TARGET_TYPES
_CPU = torch.device("cpu")
# before torch 2.8 nothing tells whether there are hooks: there may be
_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda ignore_is_tracing: True)


def fast_loss(
    logits: Tensor, targets: Tensor | SparseTargets, formula: Formula, reduction: str
) -> tuple[Tensor | None, bool]:
    """Returns the reduced loss, or None for batches that go another way; and whether a value needs a check.

    Served are matrices on the CPU in contiguous memory, other than float16, with dense targets that are known and lie
    in [0, 1], where nothing but autograd records what happens.
    """
    counts = counted(formula, reduction)
    if not (
        type(logits) is Tensor
        and type(targets) is Tensor
        and not is_recorded()
        and logits.is_cpu
        and targets.is_cpu
        and logits.dtype in _LOGITS
        and targets.dtype in _TARGETS
        and targets.layout is torch.strided
        and logits.ndim == 2
        and (shape := logits.shape) == targets.shape
        and logits.is_contiguous()
        and targets.is_contiguous()
        and not targets.requires_grad
        and (size := logits.numel())
        and counts != "positive rows"
        and not formula.pool.transposed
        and logits.untyped_storage().nbytes() >= (logits.storage_offset() + size) * logits.itemsize
        and targets.untyped_storage().nbytes() >= (targets.storage_offset() + size) * targets.itemsize
        and (template := native.template(formula)) is not None
    ):
        return None, False
    rows, labels = shape
    divisor = 1 if counts is None else size if counts == "labels" else rows
    gradient = torch.empty_like(logits) if logits.requires_grad and torch.is_grad_enabled() else None
    value = torch.empty((), dtype=torch.float64 if logits.dtype is torch.float64 else torch.float32, device=_CPU)
    job = native.new_job(template, logits, rows, labels, labels, 1 / divisor, gradient)
    job.targets, job.target_stride, job.target_type = targets.data_ptr(), labels, _TARGETS[targets.dtype]
    job.total = value.data_ptr()
    # The code that attaches the value is no longer in the cache of the processor after the C loop: so it runs before.
    # But where hooks look at what autograd saves, the gradient must be there already.
    attached = attach(logits, value, gradient) if gradient is None or _hooks(True) is None else None
    native.call(job)
    if job.needs_check or job.failed:
        return None, bool(job.needs_check)
    if job.looks_like_probabilities:
        warn_of_probabilities(logits)
    return attach(logits, value, gradient) if attached is None else attached, False
