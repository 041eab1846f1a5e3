"""How a loss is evaluated: executors, which know no loss."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.compute import native, op, streamed
from lopsided.compute.eager import row_loss
from lopsided.losses.loss import Loss

__all__ = ["BACKENDS", "check_backend", "choose", "native", "op", "row_loss", "streamed"]

BACKENDS = ("auto", "eager", "streamed", "native")


def check_backend(backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")


def choose(backend: str, logits: Tensor, loss: Loss) -> str:
    """The executor that serves these inputs. One that is asked for by name runs, or says why it cannot.

    Inside `torch.compile` the native one is an operator, and the compiler makes the blocks of a streamed one.
    """
    check_backend(backend)
    if backend == "eager":
        return "eager"
    if torch.compiler.is_compiling():
        served = backend != "streamed" and logits.device.type == "cpu" and native.serves(loss.name)
        if backend == "native" and not served:
            raise RuntimeError(
                f"backend='native' has no operator for {loss} on {logits.device}; backend='auto' has a way"
            )
        return "operator" if served else "eager"
    if backend == "streamed":
        return "streamed"
    if backend == "auto" and native.is_traced(logits):
        return "eager"
    reason = native.refusal(logits, loss)
    if reason is None:
        return "native"
    if backend == "native":
        raise RuntimeError(f"backend='native' cannot run: {reason}; backend='auto' takes another")
    return "streamed"
