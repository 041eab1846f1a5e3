"""The native executor: value and gradient in one pass over memory, by the C library that is built with the package."""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lopsided.compute.executor import Run, attach
from lopsided.compute.graph import MOST_TERMS, SETTINGS, printed
from lopsided.losses.formulas import Curve, Formula
from lopsided.losses.names import as_formula
from lopsided.losses.pools import LogSumExp, MeanPairs, Pairs, Softmax, Sum, TwoWayPairs
from lopsided.targets import SparseTargets, Supervision
from lopsided.targets.checks import check_values, is_recorded, warn_of_probabilities

_LOGITS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_PLAIN = (torch.float32, torch.float64, torch.bfloat16)
_TARGETS = {torch.float32: 0, torch.float64: 1, torch.uint8: 4, torch.bool: 4}
_SPARSE = 5
_CPU = torch.device("cpu")
_POOLS = {Sum: 0, LogSumExp: 1, Pairs: 2, TwoWayPairs: 2, MeanPairs: 3, Softmax: 4}
# before torch 2.8 nothing tells whether there are hooks: there may be
_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda ignore_is_tracing: True)
_PARALLEL = 1 << 14  # logits below which threads cost more than they save
_Settings = ctypes.c_double * (len(SETTINGS) + MOST_TERMS[-1])


def _of(kind: type, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class _Job(ctypes.Structure):
    """In the order of csrc/lopsided.c."""

    _fields_ = (
        *_of(
            ctypes.c_int64, "rows labels logit_stride target_stride mask_stride weight_stride pos_weight_stride entries"
        ),
        *_of(
            ctypes.c_void_p,
            "logits targets crow col sparse_values mask weight pos_weight value total gradient found all",
        ),
        *_of(ctypes.c_double, "smoothing ignored scale"),
        ("powers", ctypes.c_double * 2),
        ("factors", ctypes.c_double * 2),
        ("settings", _Settings * 2),
        *_of(
            ctypes.c_int32, "logit_type target_type ignoring pool positive negative threads odd failed broken probable"
        ),
        ("full", ctypes.c_double * 2),
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


def _kernel(curve: Curve) -> tuple[int, ctypes.Array[ctypes.c_double], float] | None:
    """The number of the C curve, its settings and its factor; None if there is none, as for curves of one's own."""
    loaded, called = library(), printed(curve)
    if isinstance(loaded, str) or called is None:
        return None
    number = loaded.lopsided_curve(called.name.encode())
    return (number, _Settings(*called.settings), called.factor) if number >= 0 else None


@lru_cache(maxsize=1024)
def _template(loss: Formula) -> bytes | None:
    """A job with all that a loss fixes, to be copied; None if the library has no loop for the loss."""
    job = _Job(pool=_POOLS.get(type(loss.pool), -1))
    positive, negative = _kernel(loss.positive), _kernel(loss.negative)
    if job.pool < 0 or positive is None or negative is None:
        return None
    job.positive, job.settings[0], job.factors[0] = positive
    job.negative, job.settings[1], job.factors[1] = negative
    if (job.factors[0], job.factors[1]) != (1, 1) and not isinstance(loss.pool, Sum):
        return None
    if isinstance(loss.pool, Pairs):
        job.powers[0], job.powers[1] = loss.pool.power_pos, loss.pool.power_neg
    return bytes(job)


def refusal(logits: Tensor, loss: Formula) -> str | None:
    """Why these inputs cannot be served, None if they can."""
    loaded = library()
    if isinstance(loaded, str):
        return loaded
    if logits.device.type != "cpu":
        return f"it serves the CPU, and the logits are on {logits.device}"
    if logits.dtype not in _LOGITS:
        return f"it has no loop for {logits.dtype} logits"
    return f"it has no loop for {loss}" if _template(loss) is None else None


named = lru_cache(maxsize=256)(as_formula)


def serves(name: str) -> bool:
    """Has the library a loop for the loss of that name? While a graph is traced this is a constant."""
    return bool(name) and _template(named(name)) is not None


# what torch.compiler.assume_constant_result does, but that would import all of dynamo
serves._dynamo_marked_constant = True  # type: ignore[attr-defined]


def run(
    logits: Tensor,
    labels: Supervision,
    loss: Formula,
    scale: float = 1.0,
    with_gradient: bool = True,
    *,
    found: Tensor | None = None,
    whole: Tensor | None = None,
    out: Tensor | None = None,
) -> Run:
    """One pass over (..., L) logits, for inputs that are not refused.

    Where the labels of a row come in parts and the pool is one of exponentials, `found` is filled with what this part
    found, and `whole` says what all parts found, joined by `join`: (rows, 2, 4) float64. The gradient goes to `out`,
    contiguous and like the logits, if it is given.
    """
    shape = logits.shape
    z = logits.detach().reshape(shape[:-1].numel(), shape[-1])
    z = z if z.stride(1) == 1 else z.contiguous()
    template, gradient = _template(loss), out
    assert template is not None
    if with_gradient and out is None:
        gradient = torch.empty_like(z, memory_format=torch.contiguous_format)
    value = z.new_empty(len(z), dtype=torch.float64 if z.dtype is torch.float64 else torch.float32)
    job = _job(template, z, scale, gradient if with_gradient else None)
    job.value = value.data_ptr()
    job.found, job.all = (None if state is None else state.data_ptr() for state in (found, whole))
    kept = _say_labels(job, labels, shape, value.dtype)
    _call(job)
    del kept
    if job.broken:
        check_values(logits, labels)
        raise AssertionError("the C library refuses sparse targets that the checks let pass: please report this")
    if job.failed:
        raise MemoryError(f"no memory for a row of {z.shape[1]} labels in each of {job.threads} threads")
    gradient = None if gradient is None else gradient.view(shape)
    return Run(value.view(shape[:-1]), gradient, bool(job.odd), bool(job.probable))


def join(states: Tensor) -> Tensor:
    """(parts, rows, 2, 4) -> (rows, 2, 4): peaks, sums of exponentials relative to them, and two plain sums."""
    peak = states[..., :1].amax(0)
    return torch.cat([peak, (states[..., 1:2] * (states[..., :1] - peak).exp()).sum(0), states[..., 2:].sum(0)], -1)


def _job(template: bytes, z: Tensor, scale: float, gradient: Tensor | None) -> _Job:
    """A job for (rows, L) logits, labels side by side, with a place for their gradient; its values have none yet."""
    job = _Job.from_buffer_copy(template)
    rows, labels = z.shape
    job.rows, job.labels, job.logit_stride, job.scale = rows, labels, z.stride(0), scale
    job.logits, job.logit_type = z.data_ptr(), _LOGITS[z.dtype]
    job.gradient = None if gradient is None else gradient.data_ptr()
    job.threads = torch.get_num_threads() if rows * labels >= _PARALLEL else 1
    return job


def new(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty tensor; a large one on a CPU in huge pages, which cost less to fill for the first time."""
    made, loaded = torch.empty(shape, dtype=dtype, device=device), library()
    if made.is_cpu and not isinstance(loaded, str):
        loaded.lopsided_new(ctypes.c_void_p(made.data_ptr()), ctypes.c_int64(made.nbytes))
    return made


def _call(job: _Job) -> None:
    loaded = library()
    assert not isinstance(loaded, str)
    loaded.lopsided_rows(ctypes.byref(job))


def plain(logits: Tensor, targets: Tensor | SparseTargets, loss: Formula, counts: str) -> Tensor | bool:
    """What `run` and `attach` do, in as few steps as Python allows, for the commonest inputs.

    Those are matrices on the CPU, without gaps, targets known and in [0, 1], not float16, and nothing traced: a step on
    a small batch costs less than the words around it. For others False, and True if a target was seen to be unusual.
    """
    if not (
        type(logits) is Tensor
        and type(targets) is Tensor
        and logits.is_cpu
        and targets.is_cpu
        and logits.dtype in _PLAIN
        and targets.dtype in _TARGETS
        and targets.layout is torch.strided
        and logits.ndim == 2
        and (shape := logits.shape) == targets.shape
        and logits.is_contiguous()
        and targets.is_contiguous()
        and not targets.requires_grad
        and (size := logits.numel())
        and not loss.pool.transposed
        and counts != "positive rows"
        and not is_recorded()
        and logits.untyped_storage().nbytes() >= (logits.storage_offset() + size) * logits.itemsize
        and targets.untyped_storage().nbytes() >= (targets.storage_offset() + size) * targets.itemsize
        and (template := _template(loss)) is not None
    ):
        return False
    divisor = 1 if counts == "sum" else size if counts == "labels" else shape[0]
    gradient = torch.empty_like(logits) if logits.requires_grad and torch.is_grad_enabled() else None
    value = torch.empty((), dtype=torch.float64 if logits.dtype is torch.float64 else torch.float32, device=_CPU)
    job = _job(template, logits, 1 / divisor, gradient)
    job.targets, job.target_stride, job.target_type = targets.data_ptr(), shape[1], _TARGETS[targets.dtype]
    job.total = value.data_ptr()
    # before the loop: after it, the code that attaches would come back from memory; but hooks read what is attached
    attached = attach(logits, value, gradient) if gradient is None or _hooks(True) is None else None
    _call(job)
    if job.odd or job.failed:
        return bool(job.odd)
    if job.probable:
        warn_of_probabilities(logits)
    return attach(logits, value, gradient) if attached is None else attached


def _say_labels(job: _Job, labels: Supervision, shape: torch.Size, dtype: torch.dtype) -> list[Tensor]:
    """Fill in targets, mask and weights; returns what must live until the call is over."""
    kept: list[Tensor] = []

    def rows(tensor: Tensor) -> Tensor:
        """(rows, L), labels side by side."""
        flat = (
            tensor.detach().reshape(shape[:-1].numel(), shape[-1])
            if tensor.ndim > 1
            else tensor.detach().expand(1, shape[-1])
        )
        kept.append(flat if flat.stride(-1) == 1 else flat.contiguous())
        return kept[-1]

    if labels.crow is not None and labels.col is not None:
        kept += [labels.crow.long().contiguous(), labels.col.long().contiguous()]
        job.target_type, job.entries = _SPARSE, len(labels.col)
        job.crow, job.col = kept[0].data_ptr(), kept[1].data_ptr()
        if labels.values is not None:
            kept.append(labels.values.double().contiguous())
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
