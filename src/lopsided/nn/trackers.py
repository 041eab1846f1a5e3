"""What the gradient of a training works on: positives, hard or easy negatives, and how strongly it focuses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from lopsided.losses.checks import check_number
from lopsided.targets import SparseTargets, Supervision
from lopsided.targets.checks import check_inputs, check_values


@dataclass(frozen=True)
class Diagnostics:
    """What a `DiagnosticsTracker` saw; NaN where nothing says, as without a positive, or with gradients of 0.

    The share of easy negatives, logit <= 0, is 1 - gradient_positive - gradient_hard.
    """

    gradient_positive: float  # share of the summed absolute gradient that acts on positive labels
    gradient_hard: float  # share that acts on hard negatives, sigmoid(logit) > 0.5
    effective_gamma: float  # how much a negative counts by its probability: gradient ~ p^(1 + gamma)
    logit_positive: float  # mean logit of positive labels
    logit_negative: float  # mean logit of negative labels


class DiagnosticsTracker:
    """Tells where the gradient goes, over all batches so far, from the gradients on the logits that training used.

    The effective gamma is the slope of log |dL/dz| - log p against log p, p = sigmoid(z), over the negatives whose
    gradient is not 0 (nor denormal), by least squares within rows: a factor common to a row, such as its weight, the
    scale of the loss or ZLPR's sum, has no influence. It is 0 for cross-entropy, whose gradient is p, and gamma for
    focal loss and ASL without a clip whose focus is detached; attached, and by much above a clip, it is larger where
    negatives are easy. For a loss that couples labels it says how much the harder negatives of a row are preferred.

    Unknown labels (mask, NaN, ignore_index) are left out; a soft target y counts y to the positives and 1 - y to the
    negatives, and nothing to gamma. Gradients of different batches are added as they are.

    >>> import lopsided
    >>> tracker = DiagnosticsTracker()
    >>> logits = torch.tensor([[-1.0, 0.5, -3.0], [2.0, 1.0, -2.0]], requires_grad=True)  # of a model: retain_grad()
    >>> targets = torch.tensor([[1, 0, 0], [0, 1, 0]])
    >>> lopsided.FocalLoss(gamma=2, detach_focus=True)(logits, targets).backward()
    >>> tracker.update(logits, logits.grad, targets)
    >>> result = tracker.result()
    >>> print(f"{result.gradient_positive:.3f} {result.gradient_hard:.3f} {result.effective_gamma:.3f}")
    0.307 0.692 2.000

    Source: the idea of shares is that of figure 3 of arXiv 1708.02002 and of 2009.14119, section 2.6; the effective
    gamma is this library's.
    """

    def __init__(self) -> None:
        self._sums = [0.0] * 9

    @torch.no_grad()
    def update(
        self,
        logits: Tensor,
        gradient: Tensor | None,
        targets: Tensor | SparseTargets,
        mask: Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        """Adds a batch, (..., L) as in `multilabel_loss`, after its backward pass.

        gradient: of the loss by the logits, in their shape: `logits.grad` after `logits.retain_grad()`. Waits for the
        device, to bring nine numbers back. A batch with NaN or infinite sums, as of diverged logits, is left out.
        """
        supervision = Supervision.of(targets, ignore_index, mask=mask)
        check_inputs(logits, supervision)
        if gradient is None or gradient.shape != logits.shape:
            given = "None" if gradient is None else f"shape {tuple(gradient.shape)}"
            raise ValueError(
                f"gradient must have the shape of the logits {tuple(logits.shape)}, got {given}: call "
                "logits.retain_grad() before the backward pass, and pass logits.grad after it"
            )
        positive, negative = check_values(logits, supervision).weights(logits.shape, torch.float32)
        numbers = _sums(logits.float(), gradient.abs(), positive, negative).tolist()
        if all(map(math.isfinite, numbers)):
            self._sums = [old + new for old, new in zip(self._sums, numbers, strict=True)]

    def result(self) -> Diagnostics:
        """Returns the numbers of all batches so far."""
        on_positive, on_negative, on_hard, z_positive, positives, z_negative, negatives, rise, spread = self._sums
        total = on_positive + on_negative
        return Diagnostics(
            _ratio(on_positive, total),
            _ratio(on_hard, total),
            _ratio(rise, spread),
            _ratio(z_positive, positives),
            _ratio(z_negative, negatives),
        )


def _ratio(part: float, total: float) -> float:
    return part / total if total else math.nan


def _sums(z: Tensor, gradient: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Returns (9,), what `DiagnosticsTracker.result` names, of absolute gradients and both weights, (..., L)."""
    normal = (positive == 0) & (negative > 0) & (gradient >= torch.finfo(gradient.dtype).tiny)
    g, log_p = gradient.float(), logsigmoid(z)
    count = normal.sum(-1, keepdim=True).clamp_min(1)
    centred = torch.where(normal, log_p - torch.where(normal, log_p, 0.0).sum(-1, keepdim=True) / count, 0.0)
    focus = torch.where(normal, g.log() - log_p, 0.0)
    up, down = positive > 0, negative > 0  # no NaN of an unknown label's logit
    on_negative, zero = torch.where(down, negative * g, 0.0), g.new_zeros(())
    parts = (
        torch.where(up, positive * g, zero),
        on_negative,
        torch.where(z > 0, on_negative, zero),
        torch.where(up, positive * z, zero),
        positive,
        torch.where(down, negative * z, zero),
        negative,
        centred * focus,
        centred.square(),
    )
    return torch.stack([part.sum() for part in parts])


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
        """Adds a batch, (..., L) as in `multilabel_loss`. Waits for the device, to bring four numbers back.

        A batch with NaN or infinite sums, as of diverged logits, is left out.
        """
        supervision = Supervision.of(targets, ignore_index, mask=mask)
        check_inputs(logits, supervision)
        positive, negative = check_values(logits, supervision).weights(logits.shape, torch.float32)
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
        """Returns p+, NaN before the first positive label."""
        return self._sums[0] / self._sums[1] if self._sums[1] else math.nan

    @property
    def negative(self) -> float:
        """Returns p-, NaN before the first negative label."""
        return self._sums[2] / self._sums[3] if self._sums[3] else math.nan

    @property
    def gap(self) -> float:
        """Returns p+ - p-: below 0 where rare positives are drowned, as under cross-entropy."""
        return self.positive - self.negative

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self._sums, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self._sums = state.tolist()
