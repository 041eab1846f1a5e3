"""The Triton executor: value and gradient of rows on a GPU, in one pass over memory, two for pools of exponentials."""

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

from lopsided.compute.executor import Run
from lopsided.compute.graph import printed
from lopsided.compute.native import run as native
from lopsided.losses.formulas import Formula
from lopsided.losses.pools import LogSumExp, MeanPairs, Pairs, Softmax, Sum, TwoWayPairs
from lopsided.targets import Supervision
from lopsided.targets.checks import is_traced

DEVICES = ("cuda", "xpu")  # of torch; AMD's are called cuda too
OLDEST = (3, 7)  # older ones do not take None within tuples
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_POOLS = {Sum: "Sum", LogSumExp: "LogSumExp", Pairs: "Pairs", TwoWayPairs: "Pairs", MeanPairs: "MeanPairs"}
_POOLS[Softmax] = "Softmax"
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
    """The kernels, or why they cannot be used."""
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
    """Does the interpreter of Triton run the kernels, on the CPU? TRITON_INTERPRET=1 says so to Triton, for tests."""
    loaded = library()
    return not isinstance(loaded, str) and type(loaded.sum_rows).__name__ == "InterpretedFunction"


@lru_cache(maxsize=1024)
def _how(loss: Formula) -> tuple[Any, ...] | None:
    """The part of `How` that a loss fixes; None if its curves are not printed."""
    pool, positive, negative = _POOLS.get(type(loss.pool)), printed(loss.positive), printed(loss.negative)
    if pool is None or positive is None or negative is None:
        return None
    factors: tuple[float, float] = positive.factor, negative.factor
    if factors != (1.0, 1.0) and pool != "Sum":
        return None
    if isinstance(loss.pool, Pairs):
        factors = loss.pool.power_pos, loss.pool.power_neg
    return pool, positive.name, positive.settings, negative.name, negative.settings, *factors


def serves(name: str, device: str) -> bool:
    """Has it kernels for the loss of that name, on devices of that type? While a graph is traced this is a constant."""
    here = device in DEVICES or (device == "cpu" and is_interpreted())
    return bool(name) and here and not isinstance(library(), str) and _how(native.named(name)) is not None


serves._dynamo_marked_constant = True  # type: ignore[attr-defined]


def refusal(logits: Tensor, loss: Formula) -> str | None:
    """Why these inputs cannot be served, None if they can."""
    loaded, device = library(), logits.device.type
    if isinstance(loaded, str):
        return loaded
    if device not in DEVICES and not (device == "cpu" and is_interpreted()):
        return f"it serves GPUs, and the logits are on {logits.device}"
    if logits.dtype not in DTYPES:
        return f"it has no kernel for {logits.dtype} logits"
    if logits.shape[-1:].numel() > _MOST:
        return f"it takes up to {_MOST} labels, and there are {logits.shape[-1]}"
    if _how(loss) is None:
        return f"it has no kernel for {loss}"
    return None if is_traced(logits) else failure(logits.device)  # a stand-in's memory tells nothing


def failure(device: torch.device) -> str | None:
    """Why no kernel runs on that device; None if one does, or while a graph is captured, when none may be loaded.

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


def run(
    logits: Tensor,
    labels: Supervision,
    loss: Formula,
    scale: float = 1.0,
    upstream: Tensor | None = None,
    with_gradient: bool = True,
    *,
    found: Tensor | None = None,
    whole: Tensor | None = None,
    out: Tensor | None = None,
) -> Run:
    """As `native.run`, but that `scale` enters the gradient alone, and `upstream` too, of each row or of all.

    The gradient goes to `out`, which may be the logits themselves. Nothing waits for the device.
    """
    shape = logits.shape
    z = logits.detach().reshape(shape[:-1].numel(), shape[-1])
    gradient = out
    if with_gradient and out is None:
        gradient = torch.empty_like(z, memory_format=torch.contiguous_format)
    gradient = gradient.reshape(z.shape) if with_gradient and gradient is not None else None
    job = _Job(z, labels, shape, loss, gradient, upstream, scale)
    with _on(z.device):
        if isinstance(loss.pool, Sum):
            values = job.sum()
        else:
            state = job.fold() if whole is None else whole.float()
            if found is not None:
                found.copy_(state)
                return Run(z.new_empty(0), None)
            values = job.finish(state.contiguous())
    return Run(values.view(shape[:-1]), None if gradient is None else gradient.view(shape))


class _Job:
    """A batch as the kernels take it, and their launches."""

    def __init__(
        self,
        z: Tensor,
        labels: Supervision,
        shape: torch.Size,
        loss: Formula,
        gradient: Tensor | None,
        upstream: Tensor | None,
        scale: float,
    ) -> None:
        loaded, fixed = library(), _how(loss)
        assert not isinstance(loaded, str)
        assert fixed is not None
        self.kernels, self.z, self.shape, self.loss, self.scale, self.labels = loaded, z, z.shape, fixed, scale, labels
        self.gradient = None if gradient is None else _strided(gradient)
        self.upstream = None if upstream is None else _numbers(upstream.detach(), len(z))
        self.batch = _say(loaded, z, labels, shape)
        self.parts = max(-(-z.shape[1] // _SPAN), 1)

    def sum(self) -> Tensor:
        values = self._new(len(self.z), self.parts)
        self._launch(self.kernels.sum_rows, self.gradient, values, self.upstream, self.scale)
        return values.squeeze(1) if self.parts == 1 else values.sum(1)

    def fold(self) -> Tensor:
        """(rows, 2, 4)."""
        found = self._new(self.parts, len(self.z), 2, 4)
        self._launch(self.kernels.fold_rows, found)
        return found[0] if self.parts == 1 else native.join(found)

    def finish(self, whole: Tensor) -> Tensor:
        values = self._new(len(self.z))
        parts = self.parts if self.gradient else 1
        arguments = whole, self.gradient, values, self.upstream, self.scale
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
                *self.loss, self.labels.label_smoothing, height, width, _SPAN, self._is_wide(), *self._certain()
            )
            grid = (-(-rows // height), parts or self.parts)
            kernel[grid](self.batch, *arguments, HOW=how, num_warps=tile.warps)

        launch(_choose((kernel.__name__, *self._kind()), launch, self._is_over()))

    def _kind(self) -> tuple[Any, ...]:
        """All that may change which tile is best."""
        said = self.batch.targets or self.batch.sparse
        assert said is not None
        weighted = [tensor is not None for tensor in (self.batch.mask, self.batch.weight, self.batch.pos_weight)]
        sizes = _power_of_2(self.shape[1]), _power_of_2(self.shape[0]), self.gradient is not None
        return self.z.device, self.z.dtype, self.loss, said[0].dtype, self.batch.sparse is None, *weighted, *sizes

    def _certain(self) -> tuple[bool, bool]:
        """`hard` and `known` of `How`."""
        b = self.batch
        said = b.targets[0] if b.sparse is None else b.sparse[2]
        whole = said is None or not said.is_floating_point()
        weighted = not (b.weight is None and b.pos_weight is None and self.labels.label_smoothing == 0)
        return whole and not weighted, whole and b.mask is None and b.ignored is None

    def _is_over(self) -> bool:
        """Is the gradient written over the logits?"""
        return self.gradient is not None and self.gradient[0].data_ptr() == self.z.data_ptr()

    def _is_wide(self) -> bool:
        """Do offsets within a row need 64 bits?"""
        tensors = [self.batch.logits, self.batch.targets, self.batch.mask, self.batch.weight, self.batch.pos_weight]
        strides = [each[2] for each in (*tensors, self.gradient) if each is not None]
        return bool((self.shape[1] + _SPAN) * max(strides) >= 1 << 31)


def _choose(kind: tuple[Any, ...], launch: Callable[[Tile], None], once: bool) -> Tile:
    """The fastest tile for a kind of batch, timed when the first of that kind comes and kept from then on.

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
    """Of a launch; endless where the GPU has not the registers for it, or no memory left for the clock's own use."""
    from triton.runtime.errors import OutOfResources, PTXASError
    from triton.testing import do_bench

    try:
        return float(do_bench(lambda: launch(tile), warmup=5, rep=20, return_mode="median")) / 1e3
    except (OutOfResources, PTXASError, torch.OutOfMemoryError):
        return math.inf


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current stream of the current device."""
    if device.type == "cpu":
        return nullcontext()
    context: AbstractContextManager[Any] = torch.get_device_module(device).device(device)
    return context


def _power_of_2(number: int) -> int:
    return 1 << max(math.ceil(math.log2(max(number, 1))), 0)


def _strided(tensor: Tensor) -> tuple[Tensor, int, int]:
    return tensor, tensor.stride(0), tensor.stride(1)


def _numbers(tensor: Tensor, rows: int) -> tuple[Tensor, int]:
    """One number of each row, or one for all."""
    flat = tensor.reshape(-1)
    return flat, 0 if flat.numel() == 1 else flat.stride(0)


def _say(kernels: ModuleType, z: Tensor, labels: Supervision, shape: torch.Size) -> Any:
    """What was said about the labels, as `Batch`."""

    def rows(tensor: Tensor | None, dtype: torch.dtype | None = None) -> tuple[Tensor, int, int] | None:
        if tensor is None:
            return None
        tensor = tensor.detach()
        if tensor.dtype == torch.bool:
            tensor = tensor.view(torch.uint8)
        flat = tensor.reshape(z.shape) if tensor.ndim > 1 else tensor.expand(z.shape)
        return _strided(flat if dtype is None else flat.to(dtype))

    sparse = None
    if labels.crow is not None and labels.col is not None:
        values = None if labels.values is None else labels.values.float().contiguous()
        sparse = labels.crow.contiguous(), labels.col.contiguous(), values
    return kernels.Batch(
        _strided(z),
        rows(labels.values) if sparse is None else None,
        sparse,
        rows(labels.mask),
        rows(labels.weight, torch.float32),
        rows(labels.pos_weight, torch.float32),
        *z.shape,
        labels.ignore_index if sparse is None else None,
    )


def rescale_(tensor: Tensor, factor: Tensor) -> Tensor:
    """tensor *= factor, one number on its device; nothing but a launch where that is 1. Contiguous memory."""
    loaded = library()
    if isinstance(loaded, str) or tensor.device.type not in DEVICES or tensor.dtype not in DTYPES:
        return tensor.mul_(factor)
    if not tensor.numel():
        return tensor
    with _on(tensor.device):
        grid = (-(-tensor.numel() // _RESCALED),)
        loaded.rescale[grid](tensor, factor, tensor.numel(), BLOCK=_RESCALED, num_warps=8)
    return tensor
