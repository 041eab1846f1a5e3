"""What executors make of a range of the labels: states of rows that can be merged, and slopes once all are."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from lopsided.compute import blocks
from lopsided.compute.executor import Executor, RowResult
from lopsided.compute.native import run as native
from lopsided.compute.triton import run as triton
from lopsided.losses.formulas import Formula
from lopsided.losses.pools import Sum
from lopsided.targets import Supervision


class Evaluator(Protocol):
    """What an executor makes of a part. A state belongs to one executor: they keep different numbers."""

    def summarize(self, z: Tensor, supervision: Supervision) -> Tensor:
        """(B, l) logits -> the state of the part."""

    def both(self, z: Tensor, supervision: Supervision, out: Tensor) -> tuple[Tensor, Tensor]:
        """State and slopes in one, where labels are independent."""

    def slopes(self, z: Tensor, supervision: Supervision, state: Tensor, out: Tensor) -> Tensor:
        """(B, l) logits and the state of all parts -> the gradient of the rows; may lie in `out`."""

    def merge(self, states: Tensor) -> Tensor:
        """(parts, ...) -> (...)."""

    def value(self, state: Tensor) -> Tensor:
        """(B,) loss of the rows."""

    def has_positive(self, state: Tensor) -> Tensor:
        """(B,) bool."""


class Streamed:
    """Plain torch, any device. States are float64 where there is float64, since they are merged once for each part."""

    def __init__(self, formula: Formula) -> None:
        self.formula = formula

    def summarize(self, z: Tensor, supervision: Supervision) -> Tensor:
        return _precise(self.formula.summarize(*self._widen(z, supervision)))

    def both(self, z: Tensor, supervision: Supervision, out: Tensor) -> tuple[Tensor, Tensor]:
        wide = z.to(torch.promote_types(z.dtype, torch.float32))
        values, slopes = blocks.block_rows(self.formula, wide, supervision, True)
        assert slopes is not None
        return _precise(values.unsqueeze(0)), slopes.to(z.dtype)

    def slopes(self, z: Tensor, supervision: Supervision, state: Tensor, out: Tensor) -> Tensor:
        wide, weights = self._widen(z, supervision)
        return self.formula.grad(wide, weights, state.to(wide.dtype)).to(z.dtype)

    def merge(self, states: Tensor) -> Tensor:
        return self.formula.pool.merge(states)

    def value(self, state: Tensor) -> Tensor:
        return self.formula.value(state)

    def has_positive(self, state: Tensor) -> Tensor:
        return self.formula.pool.has_positive(state)

    def _widen(self, z: Tensor, supervision: Supervision) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        if not z.shape[-1]:  # an empty shard: a label that nobody hears
            nothing = z.new_zeros(len(z), 1)
            return nothing, (nothing, nothing)
        known = supervision.known(z.shape)
        return z if known is None else torch.where(known, z, 0.0), supervision.weights(z.shape, z.dtype)


def _precise(state: Tensor) -> Tensor:
    return state if state.device.type == "mps" else state.double()


class StatefulExecutor(Executor, Protocol):
    """A compiled executor, which also evaluates a part of the labels of each row."""

    def rows(
        self,
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
        """As `lopsided.compute.native.run.rows`."""


class Compiled:
    """A compiled executor: of each side of a row it keeps the peak, the sum of exponentials, and two plain sums."""

    def __init__(self, formula: Formula, executor: StatefulExecutor) -> None:
        self.formula, self.executor = formula, executor
        self._sums = isinstance(formula.pool, Sum)

    def summarize(self, z: Tensor, supervision: Supervision) -> Tensor:
        if self._sums:
            return self.executor.rows(self.formula, z, supervision, with_gradient=False).values.double()
        state = torch.empty(len(z), 2, 4, dtype=torch.float64, device=z.device)
        self.executor.rows(self.formula, z, supervision, with_gradient=False, part_state=state)
        return state

    def both(self, z: Tensor, supervision: Supervision, out: Tensor) -> tuple[Tensor, Tensor]:
        return self.executor.rows(self.formula, z, supervision, out=out).values.double(), out

    def slopes(self, z: Tensor, supervision: Supervision, state: Tensor, out: Tensor) -> Tensor:
        self.executor.rows(self.formula, z, supervision, out=out, joined_state=state)
        return out

    def merge(self, states: Tensor) -> Tensor:
        return states.sum(0) if self._sums else native.join(states)

    def value(self, state: Tensor) -> Tensor:
        if self._sums:
            return state
        nothing = torch.empty(len(state), 0, dtype=torch.float64, device=state.device)
        empty = Supervision(nothing)
        return self.executor.rows(self.formula, nothing, empty, with_gradient=False, joined_state=state).values

    def has_positive(self, state: Tensor) -> Tensor:
        return state[:, 0, 2] > 0


def evaluator(executor: Executor, formula: Formula) -> Evaluator:
    """Returns what evaluates a formula as that executor does."""
    compiled: dict[str, StatefulExecutor] = {native.NAME: native, triton.NAME: triton}
    return Compiled(formula, compiled[executor.NAME]) if executor.NAME in compiled else Streamed(formula)
