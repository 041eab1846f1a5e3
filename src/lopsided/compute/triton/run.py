"""The Triton executor: value and gradient of rows on a GPU, in one pass over memory, or two or three."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lopsided.compute.executor import RowResult, Source
from lopsided.compute.graph import printed_sides
from lopsided.compute.native import run as native
from lopsided.losses.formulas import Formula
from lopsided.losses.names import as_formula
from lopsided.losses.pools import Pairs, SideMeans, Sum, TwoWayPairs
from lopsided.targets import Supervision
from lopsided.targets.checks import is_traced

NAME = "triton"
GRADIENT: Source = "backward"
CHECKS_VALUES = False
DEVICES = ("cuda", "xpu")  # of torch; AMD's are called cuda too
OLDEST = (3, 7)  # older ones do not take None within tuples
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_POOLS = {pool: pool.__name__ for pool in native.POOLS} | {TwoWayPairs: Pairs.__name__}
_SPAN = 1 << 14  # labels of a program
_RESCALED = 4096  # numbers of a program
_MOST = 65_535 * _SPAN  # labels of a row: CUDA counts no further in the second dimension of a grid


class Tile(NamedTuple):
    elements: int  # a power of 2
    warps: int


TILES = (Tile(1024, 4), Tile(2048, 4), Tile(2048, 8), Tile(4096, 8))  # what is tried; the first where nothing is
_chosen: dict[tuple[Any, ...], Tile] = {}
_failures: dict[torch.device, str | None] = {}


@cache
def library() -> ModuleType | str:
    """Returns the kernels, or why they cannot be used."""
    if find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    try:
        import triton

        if tuple(map(int, triton.__version__.split(".")[:2])) < OLDEST:
            return f"Triton {triton.__version__} is older than {OLDEST[0]}.{OLDEST[1]}"
        from lopsided.compute.triton import kernels
    except Exception as error:  # whatever a Triton that does not suit may raise
        return f"Triton does not load: {error}"
    return kernels


@cache
def is_interpreted() -> bool:
    """Tells whether Triton's interpreter runs the kernels, on the CPU, as with TRITON_INTERPRET=1, for tests."""
    loaded = library()
    return not isinstance(loaded, str) and type(loaded.sum_rows).__name__ == "InterpretedFunction"


@lru_cache(maxsize=1024)
def _how(formula: Formula) -> tuple[Any, ...] | None:
    """Returns the part of `How` that a formula fixes; None if its curves are not printed."""
    pool, sides = _POOLS.get(type(formula.pool)), printed_sides(formula)
    if pool is None or sides is None:
        return None
    positive, negative = sides
    factors: tuple[float, float] = positive.factor, negative.factor
    if isinstance(formula.pool, Pairs):
        factors = formula.pool.power_pos, formula.pool.power_neg
    if isinstance(formula.pool, SideMeans):
        factors = math.inf if formula.pool.margin is None else formula.pool.margin, 1.0
    return pool, positive.name, positive.settings, negative.name, negative.settings, *factors


def serves(name: str, device: str) -> bool:
    """Tells whether it has kernels for the loss of that name on devices of that type; a constant of a traced graph."""
    here = device in DEVICES or (device == "cpu" and is_interpreted())
    return bool(name) and here and not isinstance(library(), str) and _how(as_formula(name)) is not None


serves._dynamo_marked_constant = True  # type: ignore[attr-defined]


def refusal(formula: Formula, logits: Tensor) -> str | None:
    """Works as `Executor.refusal`."""
    loaded, device = library(), logits.device.type
    if isinstance(loaded, str):
        return loaded
    if device not in DEVICES and not (device == "cpu" and is_interpreted()):
        return f"it serves GPUs, and the logits are on {logits.device}"
    if logits.dtype not in DTYPES:
        return f"it has no kernel for {logits.dtype} logits"
    if logits.shape[-1:].numel() > _MOST:
        return f"it takes up to {_MOST} labels, and there are {logits.shape[-1]}"
    if _how(formula) is None:
        return f"it has no kernel for {formula}"
    return None if is_traced(logits) else failure(logits.device)  # a stand-in's memory tells nothing


def failure(device: torch.device) -> str | None:
    """Says why no kernel runs on that device; None if one does, or while a graph is captured, when none may be loaded.

    To launch a kernel, Triton needs a C compiler, the headers of Python, and a GPU and driver that it knows.
    """
    if device not in _failures:
        if _is_captured():
            return None
        _failures[device] = _try(device)
    return _failures[device]


def _try(device: torch.device) -> str | None:
    loaded, one = library(), torch.ones(1, device=device)
    if isinstance(loaded, str):
        return loaded
    try:
        with _on(device):
            loaded.rescale[(1,)](one, one, 1, BLOCK=_RESCALED, num_warps=8)
    except Exception as error:  # of Triton, of its compilers, of the driver
        return f"Triton cannot run a kernel on {device}: {error}"
    return None


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
    """Works as `native.rows`; `out` may be the logits themselves. Nothing waits for the device."""
    shape = logits.shape
    z = logits.detach().reshape(shape[:-1].numel(), shape[-1])
    gradient = out
    if with_gradient and out is None:
        gradient = torch.empty_like(z, memory_format=torch.contiguous_format)
    gradient = gradient.reshape(z.shape) if with_gradient and gradient is not None else None
    job = _Job(z, supervision, shape, formula, gradient, scale)
    with _on(z.device):
        if isinstance(formula.pool, Sum):
            values = job.sum()
        else:
            joined = None if joined_state is None else joined_state.float().contiguous()
            if part_state is not None:
                part_state.copy_(job.fold(joined))
                return RowResult(z.new_empty(0), None)
            values = job.finish(job.fold_whole() if joined is None else joined)
    if not isinstance(scale, Tensor) and scale != 1:
        values *= scale
    return RowResult(values.view(shape[:-1]), None if gradient is None else gradient.view(shape))


class _Job:
    """A batch as the kernels take it, and their launches."""

    def __init__(
        self,
        z: Tensor,
        supervision: Supervision,
        shape: torch.Size,
        formula: Formula,
        gradient: Tensor | None,
        scale: float | Tensor,
    ) -> None:
        loaded, fixed = library(), _how(formula)
        assert not isinstance(loaded, str)
        assert fixed is not None
        self.kernels, self.z, self.shape, self.formula, self.supervision = loaded, z, z.shape, fixed, supervision
        self.pool = formula.pool
        self.gradient = None if gradient is None else _strided(gradient)
        self.scale = (_numbers(scale.detach(), len(z)), 1.0) if isinstance(scale, Tensor) else (None, scale)
        self.batch = _batch(loaded, z, supervision, shape)
        self.parts = max(-(-z.shape[1] // _SPAN), 1)

    def sum(self) -> Tensor:
        values = self._new(len(self.z), self.parts)
        self._launch(self.kernels.sum_rows, self.gradient, values, *self.scale)
        return values.squeeze(1) if self.parts == 1 else values.sum(1)

    def fold(self, joined_state: Tensor | None = None) -> Tensor:
        """Returns the (rows, 2, 4) states of the rows; with those joined to others, what a staged pool adds to them."""
        states = self._new(self.parts, len(self.z), 2, 4)
        self._launch(self.kernels.fold_rows, joined_state, states)
        return states[0] if self.parts == 1 else native.join(states, self.pool)

    def fold_whole(self) -> Tensor:
        """Returns the states of rows whose labels are all here."""
        state = self.fold()
        return native.complete(state, self.fold(state)) if self.pool.staged else state

    def finish(self, joined_state: Tensor) -> Tensor:
        values = self._new(len(self.z))
        parts = self.parts if self.gradient else 1
        arguments = joined_state, self.gradient, values, *self.scale
        self._launch(self.kernels.finish_rows, *arguments, parts=parts)
        return values

    def _new(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.z.device)

    def _launch(self, kernel: Any, *arguments: Any, parts: int | None = None) -> None:
        rows, labels = self.shape
        if not rows:
            return

        def launch(tile: Tile) -> None:
            width = min(_power_of_2(labels), tile.elements)
            height = 1 if self.batch.sparse else tile.elements // width
            how = self.kernels.How(
                *self.formula, self.supervision.label_smoothing, height, width, _SPAN, self._is_wide(), *self._certain()
            )
            grid = (-(-rows // height), parts or self.parts)
            kernel[grid](self.batch, *arguments, HOW=how, num_warps=tile.warps)

        launch(_choose((kernel.__name__, *self._kind()), launch, self._is_over()))

    def _kind(self) -> tuple[Any, ...]:
        """Returns all that may change which tile is best."""
        targets = self.batch.targets or self.batch.sparse
        assert targets is not None
        weighted = [tensor is not None for tensor in (self.batch.mask, self.batch.weight, self.batch.pos_weight)]
        sizes = _power_of_2(self.shape[1]), _power_of_2(self.shape[0]), self.gradient is not None
        return self.z.device, self.z.dtype, self.formula, targets[0].dtype, self.batch.sparse is None, *weighted, *sizes

    def _certain(self) -> tuple[bool, bool]:
        """Returns `hard` and `known` of `How`."""
        b = self.batch
        values = b.targets[0] if b.sparse is None else b.sparse[2]
        integer = values is None or not values.is_floating_point()
        weighted = not (b.weight is None and b.pos_weight is None and self.supervision.label_smoothing == 0)
        return integer and not weighted, integer and b.mask is None and b.ignored is None

    def _is_over(self) -> bool:
        """Tells whether the gradient is written over the logits."""
        return self.gradient is not None and self.gradient[0].data_ptr() == self.z.data_ptr()

    def _is_wide(self) -> bool:
        """Tells whether offsets within a row need 64 bits."""
        tensors = [self.batch.logits, self.batch.targets, self.batch.mask, self.batch.weight, self.batch.pos_weight]
        strides = [each[2] for each in (*tensors, self.gradient) if each is not None]
        return bool((self.shape[1] + _SPAN) * max(strides) >= 1 << 31)


def _choose(kind: tuple[Any, ...], launch: Callable[[Tile], None], once: bool) -> Tile:
    """Returns the fastest tile for a kind of batch, timed when the first of that kind comes and kept from then on.

    The last bits of a sum over labels depend on it: where `torch.use_deterministic_algorithms` is on it is the first.
    Nothing is timed while a graph is captured, nor where a launch cannot be repeated (`once`).
    """
    if torch.are_deterministic_algorithms_enabled():
        return TILES[0]
    if kind in _chosen:
        return _chosen[kind]
    if once or is_interpreted() or _is_captured():
        return TILES[0]
    times = [_seconds(launch, tile) for tile in TILES]
    _chosen[kind] = TILES[times.index(min(times))]
    return _chosen[kind]


def _is_captured() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _seconds(launch: Callable[[Tile], None], tile: Tile) -> float:
    """Times a launch; infinite where the GPU lacks registers for it, or memory for the clock."""
    from triton.runtime.errors import OutOfResources, PTXASError
    from triton.testing import do_bench

    try:
        return float(do_bench(lambda: launch(tile), warmup=5, rep=20, return_mode="median")) / 1e3
    except (OutOfResources, PTXASError, torch.OutOfMemoryError):
        return math.inf


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Makes a device the current one, on whose current stream Triton launches."""
    if device.type == "cpu":
        return nullcontext()
    context: AbstractContextManager[Any] = torch.get_device_module(device).device(device)
    return context


def _power_of_2(number: int) -> int:
    return 1 << max(math.ceil(math.log2(max(number, 1))), 0)


def _strided(tensor: Tensor) -> tuple[Tensor, int, int]:
    return tensor, tensor.stride(0), tensor.stride(1)


def _numbers(tensor: Tensor, rows: int) -> tuple[Tensor, int]:
    """Returns one number of each row, or one for all."""
    flat = tensor.reshape(-1)
    return flat, 0 if flat.numel() == 1 else flat.stride(0)


def _batch(kernels: ModuleType, z: Tensor, supervision: Supervision, shape: torch.Size) -> Any:
    """Returns logits and supervision as a `Batch` of the kernels."""

    def rows(tensor: Tensor | None, dtype: torch.dtype | None = None) -> tuple[Tensor, int, int] | None:
        if tensor is None:
            return None
        tensor = tensor.detach()
        if tensor.dtype == torch.bool:
            tensor = tensor.view(torch.uint8)
        flat = tensor.reshape(z.shape) if tensor.ndim > 1 else tensor.expand(z.shape)
        return _strided(flat if dtype is None else flat.to(dtype))

    sparse = None
    if supervision.crow is not None and supervision.col is not None:
        values = None if supervision.values is None else supervision.values.float().contiguous()
        sparse = supervision.crow.contiguous(), supervision.col.contiguous(), values
    return kernels.Batch(
        _strided(z),
        rows(supervision.values) if sparse is None else None,
        sparse,
        rows(supervision.mask),
        rows(supervision.weight, torch.float32),
        rows(supervision.pos_weight, torch.float32),
        *z.shape,
        supervision.ignore_index if sparse is None else None,
    )


def rescale_(tensor: Tensor, factor: Tensor) -> Tensor:
    """Multiplies contiguous memory by a number on its device, in place; where that is 1, nothing is read."""
    loaded = library()
    if isinstance(loaded, str) or tensor.device.type not in DEVICES or tensor.dtype not in DTYPES:
        return tensor.mul_(factor)
    if not tensor.numel():
        return tensor
    with _on(tensor.device):
        grid = (-(-tensor.numel() // _RESCALED),)
        loaded.rescale[grid](tensor, factor, tensor.numel(), BLOCK=_RESCALED, num_warps=8)
    return tensor
