"""The native executor: value and gradient in one pass over memory, by the C library that is built with the package."""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lopsided.compute.retarget import MOST_TERMS
from lopsided.losses import curves
from lopsided.losses.loss import Curve, Loss
from lopsided.losses.pools import LogSumExp, MeanPairs, Pairs, Softmax, Sum, TwoWayPairs
from lopsided.targets import Labels

_LOGITS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_TARGETS = {torch.float32: 0, torch.float64: 1, torch.uint8: 4, torch.bool: 4}
_SPARSE = 5
_POOLS = {Sum: 0, LogSumExp: 1, Pairs: 2, TwoWayPairs: 2, MeanPairs: 3, Softmax: 4}
_SETTINGS = ("gamma", "margin", "shift", "scale", "constant", "peak")
_PARALLEL = 1 << 15  # logits below which threads cost more than they save
_Settings = ctypes.c_double * (len(_SETTINGS) + MOST_TERMS[-1])


def _of(kind: type, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class _Job(ctypes.Structure):
    """In the order of csrc/lopsided.c."""

    _fields_ = (
        *_of(ctypes.c_int64, "rows labels logit_stride target_stride mask_stride weight_stride pos_weight_stride"),
        *_of(ctypes.c_void_p, "logits targets crow col sparse_values mask weight pos_weight value gradient"),
        *_of(ctypes.c_double, "smoothing ignored scale"),
        ("powers", ctypes.c_double * 2),
        ("settings", _Settings * 2),
        *_of(ctypes.c_int32, "logit_type target_type ignoring pool positive negative threads"),
    )


@cache
def library() -> ctypes.CDLL | str:
    """The C library, or why it cannot be used."""
    found = sorted(Path(__file__).parent.glob("_native.*"))
    if not found:
        return "the C library was not built, for want of a compiler at installation"
    try:
        return ctypes.CDLL(str(found[0]))
    except OSError as error:
        return f"the C library does not load: {error}"


@lru_cache(maxsize=1024)
def _kernel(curve: Curve) -> tuple[int, ctypes.Array[ctypes.c_double]] | None:
    """The number of the C curve and its settings; None if there is none, as for curves of one's own."""
    loaded = library()
    if isinstance(loaded, str) or getattr(curves, curve.function.__name__, None) is not curve.function:
        return None
    given: dict[str, Any] = dict(curve.settings)
    terms = given.pop("terms", ())
    length = next((most for most in MOST_TERMS if len(terms) <= most), None)
    if length is None:
        return None
    present = [name for name in ("margin", "gamma") if given.get(name)]
    present += ["detach"] if given.get("gamma") and given.get("detach") else []
    name = "_".join([curve.function.__name__, *present, *([f"{length}terms"] if length else [])])
    number = loaded.lopsided_curve(name.encode())
    numbers = [float(given.get(key, 1.0 if key == "scale" else 0.0)) for key in _SETTINGS]
    return (number, _Settings(*numbers, *map(float, terms))) if number >= 0 else None


def survey(values: Tensor) -> tuple[int, int] | None:
    """How many targets are NaN, and how many lie outside [0, 1]; None where the library does not look."""
    loaded = library()
    if isinstance(loaded, str) or values.dtype not in (torch.float32, torch.float64) or not values.is_contiguous():
        return None
    found = (ctypes.c_int64 * 2)()
    loaded.lopsided_survey(
        ctypes.c_void_p(values.data_ptr()), _TARGETS[values.dtype], ctypes.c_int64(values.numel()), found
    )
    return found[0], found[1]


def refusal(logits: Tensor, labels: Labels, loss: Loss) -> str | None:
    """Why these inputs cannot be served, None if they can."""
    loaded = library()
    if isinstance(loaded, str):
        return loaded
    if logits.device.type != "cpu":
        return f"it serves the CPU, and the logits are on {logits.device}"
    if logits.dtype not in _LOGITS:
        return f"it has no loop for {logits.dtype} logits"
    if type(loss.pool) not in _POOLS or _kernel(loss.positive) is None or _kernel(loss.negative) is None:
        return f"it has no loop for {loss}"
    return None


def rows_and_gradient(
    logits: Tensor, labels: Labels, loss: Loss, scale: float = 1.0, with_gradient: bool = True
) -> tuple[Tensor, Tensor | None]:
    """(..., L) logits -> (...) loss of each row, and scale times its gradient in the dtype and shape of the logits."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    z = logits.detach().reshape(-1, logits.shape[-1])
    z = z if z.stride(1) == 1 else z.contiguous()
    value = z.new_empty(len(z), dtype=dtype)
    gradient = torch.empty_like(z, memory_format=torch.contiguous_format) if with_gradient else None
    job = _Job(
        rows=z.shape[0],
        labels=z.shape[1],
        logit_stride=z.stride(0),
        logits=z.data_ptr(),
        value=value.data_ptr(),
        gradient=0 if gradient is None else gradient.data_ptr(),
        scale=scale,
        logit_type=_LOGITS[z.dtype],
        pool=_POOLS[type(loss.pool)],
        threads=torch.get_num_threads() if z.numel() >= _PARALLEL else 1,
    )
    kept = _say_labels(job, labels, logits.shape, dtype)
    for side, curve in enumerate((loss.positive, loss.negative)):
        kernel = _kernel(curve)
        assert kernel is not None
        job.settings[side] = kernel[1]
        setattr(job, ("positive", "negative")[side], kernel[0])
    if isinstance(loss.pool, Pairs):
        job.powers[0], job.powers[1] = loss.pool.power_pos, loss.pool.power_neg
    loaded = library()
    assert not isinstance(loaded, str)
    loaded.lopsided_rows(ctypes.byref(job))
    del kept
    return value.view(logits.shape[:-1]), None if gradient is None else gradient.view(logits.shape)


def _say_labels(job: _Job, labels: Labels, shape: torch.Size, dtype: torch.dtype) -> list[Tensor]:
    """Fill in targets, mask and weights; returns what must live until the call is over."""
    kept: list[Tensor] = []

    def rows(tensor: Tensor) -> Tensor:
        """(rows, L), labels side by side."""
        flat = tensor.detach().reshape(-1, shape[-1]) if tensor.ndim > 1 else tensor.detach().expand(1, shape[-1])
        kept.append(flat if flat.stride(-1) == 1 else flat.contiguous())
        return kept[-1]

    if labels.crow is not None and labels.col is not None:
        kept += [labels.crow.long(), labels.col.long()]
        job.target_type, job.crow, job.col = _SPARSE, kept[0].data_ptr(), kept[1].data_ptr()
        if labels.values is not None:
            kept.append(labels.values.double())
            job.sparse_values = kept[-1].data_ptr()
    elif labels.values is not None:
        known = labels.values.dtype in _TARGETS
        values = rows(labels.values if known else labels.values.to(dtype))
        job.targets, job.target_stride, job.target_type = values.data_ptr(), values.stride(0), _TARGETS[values.dtype]
    if labels.mask is not None:
        mask = rows(labels.mask)
        job.mask, job.mask_stride = mask.data_ptr(), mask.stride(0)
    for name in ("weight", "pos_weight"):
        weight = getattr(labels, name)
        if weight is not None:
            flat = rows(weight.to(dtype))
            setattr(job, name, flat.data_ptr())
            setattr(job, f"{name}_stride", flat.stride(0) if weight.ndim > 1 else 0)
    job.smoothing = labels.label_smoothing
    job.ignoring, job.ignored = labels.ignore_index is not None, labels.ignore_index or 0
    return kept


class _Rows(torch.autograd.Function):
    """The gradient is made in the forward pass, and is all that is kept: 4 bytes per float32 logit.

    With a scale it is already that of the result, so backward has nothing to do where the loss is the end of the graph.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Labels, loss: Loss, divisor: float | None) -> Tensor:
        scale = 1.0 if divisor is None else 1 / divisor
        rows, gradient = rows_and_gradient(logits, labels, loss, scale, with_gradient=ctx.needs_input_grad[0])
        ctx.save_for_backward(gradient)
        return rows if divisor is None else rows.sum() / divisor

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("the native executor has no second derivative: pass backend='eager'")
        (gradient,) = ctx.saved_tensors
        if grad.ndim == gradient.ndim - 1 and grad.numel() != 1:
            return (gradient * grad.unsqueeze(-1)).to(gradient.dtype), None, None, None
        factor = grad.item()
        return gradient if factor == 1 else gradient * factor, None, None, None


def row_loss(logits: Tensor, labels: Labels, loss: Loss) -> Tensor:
    """(..., L) logits -> (...) loss of each row, differentiable once."""
    rows: Tensor = _Rows.apply(logits, labels, loss, None)  # type: ignore[no-untyped-call]
    return rows


def total_loss(logits: Tensor, labels: Labels, loss: Loss, divisor: float) -> Tensor:
    """The sum over the rows, divided by a number; differentiable once."""
    total: Tensor = _Rows.apply(logits, labels, loss, divisor)  # type: ignore[no-untyped-call]
    return total
