"""The door to every executor: what it is asked for, and what it returns."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from lopsided.losses.formulas import Formula
from lopsided.targets import Supervision

Source = Literal["autograd", "forward", "backward"]


class RowResult(NamedTuple):
    """What an executor makes of (..., L) logits."""

    values: Tensor  # (...), the loss of each row, float32 or wider; times a scale that is a number
    gradient: Tensor | None  # (..., L), of scale * values, in the dtype of the logits
    needs_check: bool = False  # a target or weight is unusual: `targets.checks.check_values` says whether it is wrong
    looks_like_probabilities: bool = False  # the first row does


class Executor(Protocol):
    """A way to evaluate any formula; a module of this room, or an object. `lopsided.compute.EXECUTORS` lists them."""

    NAME: str

    # What makes the gradient: "autograd", as the values are part of its graph; `rows`, "forward", along with the
    # values; or `rows`, "backward", where the loss is one of each row: to make it again costs less than to keep it.
    GRADIENT: Source

    CHECKS_VALUES: bool  # does `rows` look at every target and weight, and say what `needs_check`?

    def refusal(self, formula: Formula, logits: Tensor) -> str | None:
        """Returns why the executor cannot serve these inputs, or None if it can."""

    def rows(
        self,
        formula: Formula,
        logits: Tensor,
        supervision: Supervision,
        *,
        scale: float | Tensor = 1.0,
        with_gradient: bool = True,
        out: Tensor | None = None,
    ) -> RowResult:
        """Returns the loss of each row of (..., L) logits that are not refused.

        With `with_gradient`, and unless autograd makes it, also the gradient of sum(scale * loss) by the logits, where
        scale is a number, a tensor of one number, or one number for each row. It is written to `out`, contiguous and
        like the logits, if that is given. A number multiplies the values as well, a tensor the gradient alone.
        """
