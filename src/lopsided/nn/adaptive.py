"""Adaptive asymmetry: gamma_neg follows the gap between how well positives and negatives are recognised."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from lopsided.losses.catalog import asymmetric
from lopsided.losses.checks import check_number
from lopsided.nn.modules import MultiLabelLoss
from lopsided.nn.options import show_options
from lopsided.nn.trackers import ProbabilityTracker
from lopsided.targets import SparseTargets, labels_last

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lopsided.nn.options import Options

RULES = ("stable", "printed")


class AdaptiveAsymmetricLoss(MultiLabelLoss):
    """ASL whose gamma_neg is steered until p+ - p- reaches a target.

    After every call in training mode with gradients on, gamma_neg += step (target - gap), kept in [low, high]. The gap
    p+ - p- is averaged by a `ProbabilityTracker`; it grows with gamma_neg, so this settles.

    Args:
        target: the gap to reach, in (-1, 1); the paper's experiments use 0.1.
        step: how much gamma_neg moves per batch and unit of the gap's error; the paper does not give its value.
        gamma_neg: where it starts. gamma_pos, clip, detach_focus: as in `lopsided.AsymmetricLoss`.
        low, high: bounds of gamma_neg.
        decay: of the tracker's sums, per batch.
        warmup: batches before gamma_neg begins to move.
        rule: "stable"; or "printed", the sign of the paper, with which gamma_neg moves to a bound; for study.
        process_group, options: see `ProbabilityTracker` and `lopsided.MultiLabelLoss`.

    gamma_neg and the tracker are saved with `state_dict`. Compile the model, not this module: its loss changes at
    every step. Each such call waits for the device, to bring four numbers back.

    >>> criterion = AdaptiveAsymmetricLoss(target=0.1, step=1.0)
    >>> _ = criterion(torch.tensor([[0.0, -1.0]]), torch.tensor([[1, 0]]))  # gap -0.231
    >>> print(f"{criterion.gamma_neg:.3f}")
    4.331

    Source: arXiv 2009.14119, eq. 11, which prints gamma_neg += step (gap - target): as the gap grows with gamma_neg,
    that is positive feedback. No official code exists.
    """

    @show_options
    def __init__(
        self,
        target: float = 0.1,
        step: float = 0.01,
        gamma_neg: float = 4.0,
        gamma_pos: float = 0.0,
        clip: float = 0.05,
        detach_focus: bool = True,
        *,
        low: float = 0.0,
        high: float = 15.0,
        decay: float = 0.9,
        warmup: int = 0,
        rule: str = "stable",
        process_group: dist.ProcessGroup | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(asymmetric(gamma_neg, gamma_pos, clip, detach_focus), **options)
        if not abs(check_number("target", target)) < 1:
            raise ValueError(f"target must be in (-1, 1), got {target:g}")
        if rule not in RULES:
            raise ValueError(f"rule must be 'stable' or 'printed', got {rule!r}")
        if not 0 <= low <= gamma_neg <= high:
            raise ValueError(f"need 0 <= low <= gamma_neg <= high, got {low:g}, {gamma_neg:g}, {high:g}")
        if self.inplace:
            raise ValueError("inplace=True would overwrite the logits that steer gamma_neg: pass inplace=False")
        self.target, self.low, self.high, self.warmup = target, low, high, warmup
        self.step, self.rule = check_number("step", step, low=0), rule
        self._rest = {"gamma_pos": gamma_pos, "clip": clip, "detach_focus": detach_focus}
        self.tracker = ProbabilityTracker(decay, process_group)
        self._gamma, self._batches = float(gamma_neg), 0

    @property
    def gamma_neg(self) -> float:
        return self._gamma

    def forward(
        self,
        logits: Tensor,
        targets: Tensor | SparseTargets,
        mask: Tensor | None = None,
        *,
        row_weight: Tensor | None = None,
    ) -> Tensor:
        value = super().forward(logits, targets, mask, row_weight=row_weight)
        if self.training and torch.is_grad_enabled():
            self._steer(logits, targets, mask)
        return value

    def _executor(self, logits: Tensor) -> str:
        if self.backend == "auto" and self.training and logits.device.type != "cpu":
            return "streamed"  # Triton would compile its kernels again for every gamma_neg
        return self.backend

    def _steer(self, logits: Tensor, targets: Tensor | SparseTargets, mask: Tensor | None) -> None:
        given = self.scores(logits), targets, mask
        logits, targets, mask = (labels_last(tensor, logits.ndim, self.label_dim) for tensor in given)
        self.tracker.update(logits, targets, mask, self.ignore_index)
        self._batches += 1
        gap = self.tracker.gap
        if self._batches > self.warmup and not math.isnan(gap):
            error = self.target - gap if self.rule == "stable" else gap - self.target
            self._set_gamma(self._gamma + self.step * error)

    def _set_gamma(self, gamma: float) -> None:
        self._gamma = min(max(gamma, self.low), self.high)
        self.formula = asymmetric(self._gamma, **self._rest)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, target={self.target}, step={self.step}, rule={self.rule!r}"

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self._gamma, self._batches], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self._set_gamma(float(state[0]))
        self._batches = int(state[1])
