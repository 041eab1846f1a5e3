"""A multi-label loss is two curves and a pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field, replace
from typing import TYPE_CHECKING

from lopsided.losses.curves import Values
from lopsided.losses.pools import Pair, Pool

if TYPE_CHECKING:
    from torch import Tensor

Setting = float | tuple[float, ...]


@dataclass(frozen=True, repr=False)
class Curve:
    """A function of `curves.py`, or one of your own, with its hyperparameters: z -> (value, slope)."""

    function: Callable[..., Values]
    settings: tuple[tuple[str, Setting], ...] = ()

    def __call__(self, z: Tensor) -> Values:
        return self.function(z, **dict(self.settings))

    def without(self, *names: str) -> Curve:
        """Returns the same curve with these settings at their defaults."""
        return replace(self, settings=tuple(item for item in self.settings if item[0] not in names))

    def setting(self, name: str) -> float:
        """Returns a number among the settings, 0 if it is not there."""
        value = dict(self.settings).get(name, 0.0)
        assert not isinstance(value, tuple)
        return value

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", str(self.function))

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in self.settings)})"

    def __repr__(self) -> str:
        return f"Curve({self.name}, {self.settings!r})"


@dataclass(frozen=True, repr=False)
class Formula:
    """What a loss says; an executor of `lopsided.compute` says how.

    Targets reach it as two weights per label, a+ and a- >= 0 (see `lopsided.targets`). For row b

        S_b = fold((f+(z_b), f-(z_b)), (a+_b, a-_b))
        loss_b = value(S_b)
        d loss_b / d z_bl = k+_bl f+'(z_bl) + k-_bl f-'(z_bl)

    where k are the pool's coefficients. The state S is a few numbers per row, whatever the number of labels.

    Made by name with `lopsided.losses.formula`, or from curves of your own; `lopsided.testing.check_loss` examines
    those. `str(formula)` is the name with all settings, and `lopsided.losses.formula(str(formula)) == formula` if it
    was made by name.

    >>> import torch
    >>> from lopsided.losses import Sum
    >>> squared = Formula(Curve(lambda z: ((1 - z) ** 2, 2 * z - 2)), Curve(lambda z: (z**2, 2 * z)), Sum())
    >>> z, y = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])
    >>> state = squared.summarize(z, (y, 1 - y))
    >>> squared.value(state), squared.grad(z, (y, 1 - y), state)
    (tensor([0.5000]), tensor([[-1.,  1.]]))
    """

    positive: Curve
    negative: Curve
    pool: Pool
    name: str = field(default="", init=False, compare=False)  # with all settings, if it was made by name
    named: InitVar[str] = ""

    def __post_init__(self, named: str) -> None:
        object.__setattr__(self, "name", named)  # `dataclasses.replace` carries no name over to a changed formula

    def summarize(self, z: Tensor, weights: Pair) -> Tensor:
        """Maps (..., L) logits and weights to (k, ...) state."""
        return self.pool.fold_rows((self.positive(z)[0], self.negative(z)[0]), weights)

    def summarize_part(self, z: Tensor, weights: Pair) -> Tensor:
        """Maps (..., l) logits and weights of some labels to the state of a part, to be merged with those of others."""
        return self.pool.fold((self.positive(z)[0], self.negative(z)[0]), weights)

    def summarize_again(self, z: Tensor, weights: Pair, state: Tensor) -> Tensor:
        """Maps those and the merged state to (j, ...) sums, to be added to those of other parts: see `Pool.staged`."""
        return self.pool.fold_again((self.positive(z)[0], self.negative(z)[0]), weights, state)

    def value(self, state: Tensor) -> Tensor:
        """Maps (k, ...) state to (...) loss of each row."""
        return self.pool.value(state)

    def grad(self, z: Tensor, weights: Pair, state: Tensor) -> Tensor:
        """Computes d loss_b / d z_bl, shape (..., L), given the joined states of the rows."""
        import torch

        (up, rise), (down, fall) = self.positive(z), self.negative(z)
        total = torch.zeros_like(z)
        coefficients = self.pool.coefficients((up, down), weights, state)
        for a, k, slope in zip(weights, coefficients, (rise, fall), strict=True):
            total = total + torch.where(a > 0, k * slope, 0.0)
        return total

    def __str__(self) -> str:
        return self.name or f"{self.positive}|{self.negative}|{self.pool}"

    def __repr__(self) -> str:
        if self.name:
            return f"lopsided.losses.formula({self.name!r})"
        return f"Formula({self.positive!r}, {self.negative!r}, {self.pool!r})"
