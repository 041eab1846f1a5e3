"""How a loss is evaluated: executors, which know no loss."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.compute import blocks as streamed
from lopsided.compute import operators as op
from lopsided.compute.eager import row_loss
from lopsided.compute.native import run as native
from lopsided.compute.triton import run as triton
from lopsided.losses.formulas import Formula
from lopsided.targets.checks import is_traced

__all__ = ["BACKENDS", "check_backend", "choose", "compiled", "native", "op", "row_loss", "streamed", "triton"]

BACKENDS = ("auto", "eager", "streamed", "native", "triton")


def check_backend(backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")


def choose(backend: str, logits: Tensor, loss: Formula, *beside: Tensor | None) -> str:
    """The executor that serves these inputs. One that is asked for by name runs, or says why it cannot.

    Inside `torch.compile` the compiled ones are operators, and the compiler makes the blocks of a streamed one.
    """
    check_backend(backend)
    if backend == "eager":
        return "eager"
    if torch.compiler.is_compiling():
        return _inside(backend, logits, loss)
    if is_traced(logits, *beside):
        if backend == "auto":
            return "eager"
        raise RuntimeError(
            f"backend={backend!r} cannot run: it serves no subclasses of Tensor, and nothing within vmap, torch.func, "
            "torch.jit.trace, forward-mode differentiation or dispatch modes; backend='auto' takes another"
        )
    if backend == "streamed":
        return "streamed"
    return compiled(backend, logits, loss)


def compiled(backend: str, logits: Tensor, loss: Formula) -> str:
    """The C library or Triton, whichever serves these inputs; "streamed" if neither does and neither is asked for."""
    check_backend(backend)
    by_triton = backend == "triton" or (backend == "auto" and logits.device.type in triton.DEVICES)
    reason = (triton if by_triton else native).refusal(logits, loss)
    if reason is None:
        return "triton" if by_triton else "native"
    if backend == "auto":
        return "streamed"
    raise RuntimeError(f"backend={backend!r} cannot run: {reason}; backend='auto' takes another")


def _inside(backend: str, logits: Tensor, loss: Formula) -> str:
    if backend in ("auto", "native") and logits.device.type == "cpu" and native.serves(loss.name):
        return "native operator"
    by_triton = backend == "triton" or (backend == "auto" and logits.device.type != "cpu")
    if by_triton and logits.dtype in triton.DTYPES and triton.serves(loss.name, logits.device.type):
        return "triton operator"
    if backend in ("native", "triton"):
        raise RuntimeError(
            f"backend={backend!r} has no operator for {loss} on {logits.device}; backend='auto' has a way"
        )
    return "eager"
