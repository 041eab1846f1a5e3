"""The native executor: value and gradient in one pass over memory, by the C library that is built with the package."""

from __future__ import annotations

import ctypes
import math
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lopsided.compute.executor import RowResult, Source
from lopsided.compute.graph import MOST_TERMS, SETTINGS, printed_sides
from lopsided.compute.native.sources import digest
from lopsided.losses.formulas import Formula
from lopsided.losses.names import as_formula
from lopsided.losses.none_class import NoneClass
from lopsided.losses.pools import (
    DecoupledSoftmax,
    LogSumExp,
    MeanPairs,
    Pairs,
    Pool,
    SideMeans,
    Softmax,
    Sum,
    ThresholdSoftmax,
    TwoWayPairs,
)
from lopsided.losses.sums import nonzero
from lopsided.targets import Supervision
from lopsided.targets.checks import check_values

NAME = "native"
STALE = "the C library was built from other sources than those in csrc: run python setup.py build_ext --inplace --force"
GRADIENT: Source = "forward"
CHECKS_VALUES = True
_LOGITS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
COUNTED = {None: 0, "labels": 1, "rows": 2, "positive rows": 3}  # what a reduction divides by
TARGET_TYPES = {torch.float32: 0, torch.float64: 1, torch.uint8: 4, torch.bool: 4}
_SPARSE = 5
# as csrc/lopsided.c counts them
POOLS = {Sum: 0, LogSumExp: 1, Pairs: 2, TwoWayPairs: 2, MeanPairs: 3, Softmax: 4}
POOLS |= {ThresholdSoftmax: 5, DecoupledSoftmax: 6, SideMeans: 7, NoneClass: 8}
_PARALLEL = 1 << 14  # logits below which threads cost more than they save
_Settings = ctypes.c_double * (len(SETTINGS) + MOST_TERMS[-1])


def _of(kind: type, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class Job(ctypes.Structure):
    """In the order of csrc/lopsided.c."""

    _fields_ = (
        *_of(
            ctypes.c_int64, "rows labels logit_stride target_stride mask_stride weight_stride pos_weight_stride entries"
        ),
        *_of(
            ctypes.c_void_p,
            "logits targets crow col sparse_values mask weight pos_weight row_weight "
            "value total gradient part_state joined_state",
        ),
        *_of(ctypes.c_double, "smoothing ignored scale"),
        ("constants", ctypes.c_double * 2),
        ("factors", ctypes.c_double * 2),
        ("settings", _Settings * 2),
        *_of(ctypes.c_int32, "logit_type target_type ignoring pool positive negative threads counted both_ways"),
        *_of(ctypes.c_int32, "needs_check unknown failed broken looks_like_probabilities"),
        ("full", ctypes.c_double * 2),
    )


@cache
def library() -> ctypes.CDLL | str:
    """Returns the C library, or why it cannot be used."""
    files = sorted(Path(__file__).parent.glob("_native.*"))
    if not files:
        return "the C library was not built, for want of a compiler at installation"
    try:
        loaded = ctypes.CDLL(str(files[0]))
    except OSError as error:
        return f"the C library does not load: {error}"
    return loaded if digest() in (None, _built_from(loaded)) else STALE


def _built_from(loaded: ctypes.CDLL) -> str:
    """Returns the digest of the sources; none of libraries that were built before there was one."""
    said = getattr(loaded, "lopsided_sources", None)
    if said is None:
        return ""
    said.restype = ctypes.c_char_p
    return str(said().decode())


@lru_cache(maxsize=1024)
def template(formula: Formula) -> bytes | None:
    """Returns a job with all that a formula fixes, to be copied; None if the library has no loop for the formula."""
    loaded, sides, pool = library(), printed_sides(formula), POOLS.get(type(formula.pool))
    if isinstance(loaded, str) or sides is None or pool is None:
        return None
    numbers = [loaded.lopsided_curve(side.name.encode()) for side in sides]
    if min(numbers) < 0:  # a curve that was not printed to C since it was written
        return None
    job = Job(pool=pool)
    job.positive, job.negative = numbers
    for number, side in enumerate(sides):
        job.settings[number], job.factors[number] = _Settings(*side.settings), side.factor
    if isinstance(formula.pool, Pairs):
        job.constants[0], job.constants[1] = formula.pool.power_pos, formula.pool.power_neg
    if isinstance(formula.pool, SideMeans):
        job.constants[0] = math.inf if formula.pool.margin is None else formula.pool.margin
    return bytes(job)


def refusal(formula: Formula, logits: Tensor) -> str | None:
    """Works as `Executor.refusal`."""
    loaded = library()
    if isinstance(loaded, str):
        return loaded
    if logits.device.type != "cpu":
        return f"it serves the CPU, and the logits are on {logits.device}"
    if logits.dtype not in _LOGITS:
        return f"it has no loop for {logits.dtype} logits"
    return f"it has no loop for {formula}" if template(formula) is None else None


def serves(name: str) -> bool:
    """Tells whether the library has a loop for the loss of that name; a constant of a traced graph."""
    return bool(name) and template(as_formula(name)) is not None


# what torch.compiler.assume_constant_result does, but that would import all of dynamo
serves._dynamo_marked_constant = True  # type: ignore[attr-defined]


def rows(
    formula: Formula,
    logits: Tensor,
    supervision: Supervision,
    *,
    scale: float | Tensor = 1.0,
    with_gradient: bool = True,
    out: Tensor | None = None,
    part_state: Tensor | None = None,
    joined_state: Tensor | None = None,
) -> RowResult:
    """Works as `Executor.rows`: one pass over memory.

    Where the labels of a row come in parts and the pool is no sum, the state of this part is written to `part_state`,
    and `joined_state` is that of all parts, as `join` makes it: (rows, 2, 4) float64. Given both, a staged pool folds
    this part once more.
    """
    shape = logits.shape
    z = _matrix(logits.detach())
    z = z if z.stride(1) == 1 else z.contiguous()
    fixed, gradient = template(formula), out
    assert fixed is not None
    if with_gradient and out is None:
        gradient = torch.empty_like(z, memory_format=torch.contiguous_format)
    values = z.new_empty(len(z), dtype=torch.float64 if z.dtype is torch.float64 else torch.float32)
    factor = 1.0 if isinstance(scale, Tensor) else scale
    job = new_job(fixed, z, len(z), z.shape[1], z.stride(0), factor, gradient if with_gradient else None)
    job.value = values.data_ptr()
    job.part_state, job.joined_state = (None if s is None else s.data_ptr() for s in (part_state, joined_state))
    alive = fill_supervision(job, supervision, values.dtype)
    call(job)
    del alive
    if job.broken:
        check_values(logits, supervision)
        raise AssertionError("the C library refuses sparse targets that the checks let pass: please report this")
    if job.failed:
        raise MemoryError(f"no memory for a row of {z.shape[1]} labels in each of {job.threads} threads")
    if len(shape) != 2:  # each operation costs: the C loop has emptied the cache of the processor
        values, gradient = values.view(shape[:-1]), None if gradient is None else gradient.view(shape)
    if gradient is not None and isinstance(scale, Tensor):
        gradient.mul_(scale.unsqueeze(-1))
    return RowResult(values, gradient, bool(job.needs_check or job.unknown), bool(job.looks_like_probabilities))


def _matrix(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 2 else tensor.reshape(tensor.shape[:-1].numel(), tensor.shape[-1])


def join(states: Tensor, pool: Pool) -> Tensor:
    """Maps (parts, rows, 2, 4) to (rows, 2, 4): peaks, sums of exponentials relative to them, and two plain sums.

    Those of means are relative to the peaks themselves, all three.
    """
    peak = states[..., :1].amax(0)
    if isinstance(pool, SideMeans):
        return torch.cat([peak, (states[..., 1:] * (states[..., :1] / nonzero(peak))).sum(0)], -1)
    return torch.cat([peak, (states[..., 1:2] * (states[..., :1] - peak).exp()).sum(0), states[..., 2:].sum(0)], -1)


def complete(state: Tensor, again: Tensor) -> Tensor:
    """Returns (rows, 2, 4) states with what a staged pool has found of positives when it folded the labels again."""
    whole = state.clone()
    whole[:, 0, 1::2] = again[:, 0, 1::2]
    return whole


def new_job(fixed: bytes, z: Tensor, rows: int, labels: int, stride: int, scale: float, gradient: Tensor | None) -> Job:
    """Returns a job for (rows, labels) logits, labels side by side; where its values go is not filled in."""
    job = Job.from_buffer_copy(fixed)
    job.rows, job.labels, job.logit_stride, job.scale = rows, labels, stride, scale
    job.logits, job.logit_type = z.data_ptr(), _LOGITS[z.dtype]
    job.gradient = None if gradient is None else gradient.data_ptr()
    job.threads = torch.get_num_threads() if rows * labels >= _PARALLEL else 1
    return job


def new(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns an empty tensor; a large one on a CPU in huge pages, which cost less to fill for the first time."""
    made, loaded = torch.empty(shape, dtype=dtype, device=device), library()
    if made.is_cpu and not isinstance(loaded, str):
        loaded.lopsided_new(ctypes.c_void_p(made.data_ptr()), ctypes.c_int64(made.nbytes))
    return made


def call(job: Job) -> None:
    """Runs a job; its results and flags are written into it."""
    loaded = library()
    assert not isinstance(loaded, str)
    loaded.lopsided_rows(ctypes.byref(job))


def fill_supervision(job: Job, supervision: Supervision, dtype: torch.dtype) -> list[Tensor]:
    """Fills in targets, mask and weights; returns the tensors that must live until the call is over."""
    alive: list[Tensor] = []

    def place(tensor: Tensor) -> tuple[int, int]:
        """Returns where (rows, L) or (L,) numbers lie, labels side by side, and how far rows are apart."""
        flat = tensor if tensor.ndim == 1 else _matrix(tensor)
        alive.append(flat if flat.stride(-1) == 1 else flat.contiguous())
        return alive[-1].data_ptr(), alive[-1].stride(0) if flat.ndim > 1 else 0

    if supervision.crow is not None and supervision.col is not None:
        alive += [supervision.crow.long().contiguous(), supervision.col.long().contiguous()]
        job.target_type, job.entries = _SPARSE, len(supervision.col)
        job.crow, job.col = alive[0].data_ptr(), alive[1].data_ptr()
        if supervision.values is not None:
            alive.append(supervision.values.double().contiguous())
            job.sparse_values = alive[-1].data_ptr()
    elif supervision.values is not None:
        readable = supervision.values.dtype in TARGET_TYPES
        values = supervision.values if readable else supervision.values.to(dtype)
        (job.targets, job.target_stride), job.target_type = place(values), TARGET_TYPES[values.dtype]
    if supervision.mask is not None:
        job.mask, job.mask_stride = place(supervision.mask)
    if supervision.weight is not None:
        job.weight, job.weight_stride = place(supervision.weight.to(dtype))
    if supervision.pos_weight is not None:
        job.pos_weight, job.pos_weight_stride = place(supervision.pos_weight.to(dtype))
    job.smoothing = supervision.label_smoothing
    job.ignoring, job.ignored = supervision.ignore_index is not None, supervision.ignore_index or 0
    return alive
