"""What executors make of a range of the labels: states of rows that can be merged, and slopes once all are."""

from __future__ import annotations

from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from lopsided.compute import blocks, eager
from lopsided.compute.executor import Executor, RowResult
from lopsided.compute.native import run as native
from lopsided.compute.triton import run as triton
from lopsided.losses.formulas import Formula
from lopsided.losses.pools import Sum
from lopsided.targets import Supervision


class Evaluator(Protocol):
    """What an executor makes of a part. A state belongs to one executor: they keep different numbers."""

    def summarize(self, z: Tensor, supervision: Supervision) -> Tensor:
        """Maps (B, l) logits to the state of the part."""

    def summarize_again(self, z: Tensor, supervision: Supervision, state: Tensor) -> Tensor:
        """Maps (B, l) logits and the state of all parts to sums over the labels, where the pool is staged."""

    def complete(self, state: Tensor, sums: Tensor) -> Tensor:
        """Returns the state of all parts, with those sums over all labels."""

    def both(self, z: Tensor, supervision: Supervision, out: Tensor) -> tuple[Tensor, Tensor]:
        """Returns state and slopes in one, where labels are independent."""

    def slopes(self, z: Tensor, supervision: Supervision, state: Tensor, out: Tensor) -> Tensor:
        """Maps (B, l) logits and the state of all parts to the gradient of the rows; may lie in `out`."""

    def merge(self, states: Tensor) -> Tensor:
        """Joins the (parts, ...) states of parts to the (...) state of all."""

    def value(self, state: Tensor) -> Tensor:
        """Returns the (B,) loss of the rows."""

    def has_positive(self, state: Tensor) -> Tensor:
        """Returns (B,) bool: has the row a positive?"""


class Streamed:
    """Plain torch, any device. States are float64 where there is float64, since they are merged once for each part."""

    def __init__(self, formula: Formula) -> None:
        self.formula = formula

    def summarize(self, z: Tensor, supervision: Supervision) -> Tensor:
        return _precise(self.formula.summarize_part(*self._widen(z, supervision)))

    def summarize_again(self, z: Tensor, supervision: Supervision, state: Tensor) -> Tensor:
        wide, weights = self._widen(z, supervision)
        return _precise(self.formula.summarize_again(wide, weights, state.to(wide.dtype)))

    def complete(self, state: Tensor, sums: Tensor) -> Tensor:
        return torch.cat([state, sums])

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
        if z.shape[-1]:
            return eager.widen(z, supervision)
        nothing = z.new_zeros(len(z), 1, dtype=torch.promote_types(z.dtype, torch.float32))
        return nothing, (nothing, nothing)  # an empty shard: a label of weight 0


def _precise(state: Tensor) -> Tensor:
    return state if state.device.type == "mps" else state.double()


class Compiled:
    """A compiled executor: of each side of a row it keeps a peak and three sums, see `native.join`."""

    def __init__(self, formula: Formula, executor: ModuleType) -> None:
        self.formula, self.executor = formula, executor
        self._sums = isinstance(formula.pool, Sum)

    def summarize(self, z: Tensor, supervision: Supervision) -> Tensor:
        if self._sums:
            values: Tensor = self.executor.rows(self.formula, z, supervision, with_gradient=False).values
            return values.double()
        state = torch.empty(len(z), 2, 4, dtype=torch.float64, device=z.device)
        self.executor.rows(self.formula, z, supervision, with_gradient=False, part_state=state)
        return state

    def summarize_again(self, z: Tensor, supervision: Supervision, state: Tensor) -> Tensor:
        part = torch.empty_like(state)
        self.executor.rows(self.formula, z, supervision, with_gradient=False, part_state=part, joined_state=state)
        return part

    def complete(self, state: Tensor, sums: Tensor) -> Tensor:
        return native.complete(state, sums)

    def both(self, z: Tensor, supervision: Supervision, out: Tensor) -> tuple[Tensor, Tensor]:
        return self.executor.rows(self.formula, z, supervision, out=out).values.double(), out

    def slopes(self, z: Tensor, supervision: Supervision, state: Tensor, out: Tensor) -> Tensor:
        self.executor.rows(self.formula, z, supervision, out=out, joined_state=state)
        return out

    def merge(self, states: Tensor) -> Tensor:
        return states.sum(0) if self._sums else native.join(states, self.formula.pool)

    def value(self, state: Tensor) -> Tensor:
        if self._sums:
            return state
        nothing = torch.empty(len(state), 0, dtype=torch.float64, device=state.device)
        empty = Supervision(nothing)
        result: RowResult = self.executor.rows(self.formula, nothing, empty, with_gradient=False, joined_state=state)
        return result.values

    def has_positive(self, state: Tensor) -> Tensor:
        return state[:, 0, 2] > 0


def evaluator(executor: Executor, formula: Formula) -> Evaluator:
    """Returns what evaluates a formula as that executor does."""
    compiled = {native.NAME: native, triton.NAME: triton}
    return Compiled(formula, compiled[executor.NAME]) if executor.NAME in compiled else Streamed(formula)
