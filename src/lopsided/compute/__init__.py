"""How a loss is evaluated: executors, which know no loss."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.compute import native, op, streamed
from lopsided.compute.eager import row_loss
from lopsided.losses.loss import Loss

__all__ = ["BACKENDS", "choose", "native", "op", "row_loss", "streamed"]

BACKENDS = ("auto", "eager", "streamed", "native")


def choose(backend: str, logits: Tensor, loss: Loss) -> str:
    """The executor that serves these inputs. One that is asked for by name runs, or says why it cannot."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if backend == "eager":
        return "eager"
    if torch.compiler.is_compiling():
        return "operator" if logits.device.type == "cpu" and native.serves(loss.name) else "eager"
    if backend == "auto" and _is_traced(logits):
        return "eager"
    if backend == "streamed":
        return "streamed"
    reason = native.refusal(logits, loss)
    if reason is None:
        return "native"
    if backend == "native":
        raise RuntimeError(f"backend='native' cannot run: {reason}; backend='auto' takes another")
    return "streamed"


def _is_traced(logits: Tensor) -> bool:
    """Is it a stand-in for a tensor, whose memory cannot be read?"""
    return type(logits) not in (Tensor, torch.nn.Parameter) or torch._C._functorch.peek_interpreter_stack() is not None
