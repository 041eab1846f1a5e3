"""Adaptive asymmetry: gamma_neg follows the gap between how well positives and negatives are recognised."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lopsided.checks import check_inputs, check_number, check_values
from lopsided.losses.catalog import asymmetric
from lopsided.modules import MultiLabelLoss
from lopsided.targets import Labels, SparseTargets, labels_last

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lopsided.functional import ModuleOptions

RULES = ("stable", "printed")


class ProbabilityTracker(nn.Module):
    """p+ and p-: the mean probability given to the right answer on positive and on negative labels.

    p+ = sum(y p) / sum(y) and p- = sum((1-y) (1-p)) / sum(1-y), p = sigmoid(logit), over all batches so far. The
    four sums are kept, not the two ratios, so batches without positives, and ranks, are weighed as they should.

    Args:
        decay: multiplies the sums before each batch, in (0, 1]; 1 averages over everything.
        process_group: ranks whose sums are added up; by default all, where torch.distributed is initialised. Every
            rank must then call `update` equally often.

    Unknown labels (mask, NaN, ignore_index) are left out. The state is saved with `state_dict`.

    >>> tracker = ProbabilityTracker()
    >>> tracker.update(torch.tensor([[0.0, -1.0]]), torch.tensor([[1, 0]]))
    >>> print(f"{tracker.positive:.3f} {tracker.negative:.3f} {tracker.gap:.3f}")
    0.500 0.731 -0.231

    Source: arXiv 2009.14119, section 2.6.
    """

    def __init__(self, decay: float = 1.0, process_group: dist.ProcessGroup | None = None) -> None:
        super().__init__()
        if not 0 < check_number("decay", decay) <= 1:
            raise ValueError(f"decay must be in (0, 1], got {decay:g}")
        self.decay = decay
        self.process_group = process_group
        self._sums = [0.0] * 4  # sum y p, sum y, sum (1-y) (1-p), sum (1-y)

    @torch.no_grad()
    def update(
        self,
        logits: Tensor,
        targets: Tensor | SparseTargets,
        mask: Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        """Add a batch, (..., L) as in `multilabel_loss`. Waits for the device, to bring four numbers back.

        A batch with NaN or infinite sums, as of diverged logits, is left out.
        """
        labels = Labels.of(targets, ignore_index, mask=mask)
        check_inputs(logits, labels)
        labels = check_values(logits, labels)
        positive, negative = labels.weights(logits.shape, torch.float32)
        z = logits.float()
        parts = (positive * torch.sigmoid(z), positive, negative * torch.sigmoid(-z), negative)
        present = (positive > 0, positive > 0, negative > 0, negative > 0)  # no NaN of an unknown label's logit
        sums = torch.stack([torch.where(has, part, 0.0).sum() for has, part in zip(present, parts, strict=True)])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums, group=self.process_group)
        numbers = sums.tolist()
        if all(map(math.isfinite, numbers)):
            self._sums = [self.decay * old + new for old, new in zip(self._sums, numbers, strict=True)]

    @property
    def positive(self) -> float:
        """p+, NaN before the first positive label."""
        return self._sums[0] / self._sums[1] if self._sums[1] else math.nan

    @property
    def negative(self) -> float:
        """p-, NaN before the first negative label."""
        return self._sums[2] / self._sums[3] if self._sums[3] else math.nan

    @property
    def gap(self) -> float:
        """p+ - p-: below 0 where rare positives are drowned, as under cross-entropy."""
        return self.positive - self.negative

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self._sums, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self._sums = state.tolist()


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
        rule: "stable", or "printed", the sign in the paper, which runs away to a bound; for study.
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
        **options: Unpack[ModuleOptions],
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
        logits, targets, mask = (labels_last(said, logits.ndim, self.label_dim) for said in (logits, targets, mask))
        self.tracker.update(logits, targets, mask, self.ignore_index)
        self._batches += 1
        gap = self.tracker.gap
        if self._batches > self.warmup and not math.isnan(gap):
            error = self.target - gap if self.rule == "stable" else gap - self.target
            self._set_gamma(self._gamma + self.step * error)

    def _set_gamma(self, gamma: float) -> None:
        self._gamma = min(max(gamma, self.low), self.high)
        self.loss = asymmetric(self._gamma, **self._rest)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, target={self.target}, step={self.step}, rule={self.rule!r}"

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self._gamma, self._batches], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self._set_gamma(float(state[0]))
        self._batches = int(state[1])
