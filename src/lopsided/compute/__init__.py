"""How a loss is evaluated: executors, which know no loss. `Executor` is the door to each; `EXECUTORS` lists them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lopsided.compute import blocks, eager, product
from lopsided.compute.executor import Executor, RowResult
from lopsided.compute.native import run as native
from lopsided.compute.operators import OPERATORS
from lopsided.compute.triton import run as triton
from lopsided.losses.formulas import Formula
from lopsided.targets.checks import is_traced

__all__ = ["BACKENDS", "EXECUTORS", "Executor", "RowResult", "check_backend", "choose", "choose_for_head"]

EXECUTORS: dict[str, Executor] = {each.NAME: each for each in (eager, blocks, native, triton, product)}
BACKENDS = ("auto", *(name for name in EXECUTORS if name != product.NAME))


def check_backend(backend: str) -> None:
    """Raises ValueError for anything but "auto" and the names of the executors."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")


def choose(
    backend: str, formula: Formula, logits: Tensor, *beside: Tensor | None, soft_targets: str = "mixture"
) -> Executor:
    """Returns the executor that serves these logits and the tensors beside them.

    One that is asked for by name runs; RuntimeError says why it cannot. Within a graph the compiled ones are operators,
    and the compiler of the graph takes the place of the streamed one.
    """
    check_backend(backend)
    if soft_targets == product.NAME:
        if (reason := product.refusal(formula, logits)) is not None:
            raise ValueError(reason)
        return EXECUTORS[product.NAME]
    if backend == "eager":
        return eager
    if torch.compiler.is_compiling():
        return eager if backend == "streamed" else _compiled(backend, formula, logits, OPERATORS, eager)
    return _outside_graphs(backend, formula, logits, beside, eager)


def choose_for_head(backend: str, formula: Formula, logits: Tensor, *beside: Tensor | None) -> Executor:
    """Returns the executor for logits that are never all in memory: "streamed" where no compiled one serves them."""
    check_backend(backend)
    return blocks if backend == "eager" else _outside_graphs(backend, formula, logits, beside, blocks)


def _outside_graphs(
    backend: str, formula: Formula, logits: Tensor, beside: tuple[Tensor | None, ...], if_traced: Executor
) -> Executor:
    if is_traced(logits, *beside, observers=backend == "auto"):
        if backend == "auto":
            return if_traced
        raise RuntimeError(
            f"backend={backend!r} cannot run: it serves no subclasses of Tensor, and nothing within vmap, torch.func, "
            "torch.jit.trace or forward-mode differentiation; backend='auto' takes another"
        )
    return blocks if backend == "streamed" else _compiled(backend, formula, logits, EXECUTORS, blocks)


def _compiled(
    backend: str, formula: Formula, logits: Tensor, executors: Mapping[str, Executor], otherwise: Executor
) -> Executor:
    """Returns the C library or Triton, whichever serves these inputs; `otherwise` if neither is asked for by name."""
    on_gpu = logits.device.type in triton.DEVICES
    executor = executors[(triton.NAME if on_gpu else native.NAME) if backend == "auto" else backend]
    reason = executor.refusal(formula, logits)
    if reason is None:
        return executor
    if backend == "auto":
        return otherwise
    raise RuntimeError(f"backend={backend!r} cannot run: {reason}; backend='auto' takes another")
