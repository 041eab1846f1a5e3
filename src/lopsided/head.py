"""`LinearLoss`: the module around `linear_loss`, its optimisers and its ranks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lopsided.checks import check_options
from lopsided.compute import linear
from lopsided.fused import FusedStep, Update
from lopsided.linear import chunk_width, evaluate, linear_loss, make_problem, rows_here
from lopsided.losses import Loss, to_loss
from lopsided.sharding import LabelShard
from lopsided.targets import Labels, SparseTargets
from lopsided.topk import posteriors, top_labels


class LinearLoss(nn.Module):
    """A linear layer of many labels and its loss: parameters `weight` (L, D) and `bias` (L,), and never the logits.

    Args:
        in_features: D.
        num_labels: L, of all ranks together.
        loss: a `Loss`, or its name with settings such as "asl(gamma_neg=2)".
        bias: False for none.
        prior: the share of positives, in (0, 1): every bias starts at its logit. From 0.5, where weights near 0 would
            start without, the first gradients of a million negatives push the model below far away. None: as
            `nn.Linear`.
        label_weight, pos_weight: (L,) of all labels, kept as buffers.
        label_smoothing, ignore_index, reduction, chunk, backend: as in `linear_loss`.
        shard: this rank's part of the labels; parameters are then `DTensor`s of all of them.
        fused_step: a `FusedSGD`, `FusedAdamW` or `FusedAdagrad`, which updates weight and bias chunk by chunk, so that
            their gradient never exists: their `.grad` stays None, and optimisers pass them over. Call `step`, which
            needs three matrix products; or `backward` on the loss, which then needs four. Each call updates: no
            gradient is accumulated over calls, and none can be clipped by its norm, which is known only after the
            last chunk.
        device, dtype: of the parameters.

    >>> head, hidden = LinearLoss(2, 1000, "asl"), torch.ones(3, 2)
    >>> head(hidden, SparseTargets.from_indices([[3], [7, 999], []])).backward()
    >>> head.weight.grad.shape
    torch.Size([1000, 2])
    >>> scores, labels = head.predict_topk(hidden, 5)
    >>> labels.shape
    torch.Size([3, 5])
    """

    label_weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_labels: int,
        loss: Loss | str = "asl",
        *,
        bias: bool = True,
        prior: float | None = None,
        label_weight: Tensor | None = None,
        pos_weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        reduction: str = "mean",
        chunk: int | None = None,
        backend: str = "auto",
        shard: LabelShard | None = None,
        fused_step: FusedStep | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_options(reduction, "mixture", label_smoothing, -1, ignore_index)
        if shard is not None and shard.num_labels != num_labels:
            raise ValueError(f"the shard is one of {shard.num_labels} labels, but num_labels is {num_labels}")
        self.in_features, self.num_labels, self.loss = in_features, num_labels, to_loss(loss)
        if prior is not None and not (bias and 0 < prior < 1):
            raise ValueError(f"prior must lie in (0, 1), and needs a bias; got prior={prior!r}, bias={bias!r}")
        self.shard, self.fused_step, self.prior = shard, fused_step, prior
        self.options: dict[str, Any] = {
            "label_smoothing": label_smoothing,
            "ignore_index": ignore_index,
            "reduction": reduction,
            "chunk": chunk,
            "backend": backend,
        }
        mine = num_labels if shard is None else shard.stop - shard.start
        self.weight = nn.Parameter(self._placed(torch.empty(mine, in_features, device=device, dtype=dtype)))
        self.bias = nn.Parameter(self._placed(torch.empty(mine, device=device, dtype=dtype))) if bias else None
        self.register_buffer("label_weight", label_weight)
        self.register_buffer("pos_weight", pos_weight)
        self._states: list[str] = []  # buffers of the fused step
        if fused_step is not None:
            for name, state in fused_step.start(self._local_weight, self._local_bias).items():
                self.register_buffer(name, self._placed(state) if state.ndim else state)
                self._states.append(name)
        self.reset_parameters()

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor if self.shard is None else self.shard.distribute(tensor)

    @property
    def _local_weight(self) -> Tensor:
        return rows_here(self.weight, self.shard)

    @property
    def _local_bias(self) -> Tensor | None:
        return None if self.bias is None else rows_here(self.bias, self.shard)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As `nn.Linear` starts: uniform in +-1/sqrt(D). A shard gets its part of what all labels would get."""
        bound = 1 / math.sqrt(max(self.in_features, 1))
        start = 0 if self.shard is None else self.shard.start
        for parameter in (self._local_weight, self._local_bias):
            if parameter is not None:
                _fill(parameter, bound, start, self.num_labels)
        if self.prior is not None and self._local_bias is not None:
            self._local_bias.fill_(math.log(self.prior / (1 - self.prior)))

    def forward(
        self,
        hidden: Tensor,
        targets: Tensor | SparseTargets,
        mask: Tensor | None = None,
        *,
        row_weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of (..., D) hidden states: see `linear_loss`."""
        if self.fused_step is None or not torch.is_grad_enabled():
            return self._loss(hidden, targets, mask, row_weight)
        return evaluate(hidden, self.weight, self.bias, self._fused_problem(hidden, targets, mask, row_weight))

    def step(
        self,
        hidden: Tensor,
        targets: Tensor | SparseTargets,
        mask: Tensor | None = None,
        *,
        row_weight: Tensor | None = None,
    ) -> Tensor:
        """Forward, backward and the update of the head in one pass; `hidden` gets its gradient, and all below it.

        Returns the loss, detached. Scale it by `row_weight`, not afterwards.
        """
        if self.fused_step is None:
            raise RuntimeError("step needs LinearLoss(..., fused_step=...); without it, call backward on the loss")
        problem = self._fused_problem(hidden, targets, mask, row_weight)
        if problem.reduction == "none":
            raise ValueError("step needs one loss to descend: reduction='none' gives one for each row")
        flat = hidden.reshape(-1, hidden.shape[-1])
        with torch.no_grad():
            value, grad = linear.step(problem, flat, self._local_weight, self._local_bias, hidden.requires_grad)
        if grad is not None:
            hidden.backward(grad.view(hidden.shape))
        return value

    def _fused_problem(
        self, hidden: Tensor, targets: Tensor | SparseTargets, mask: Tensor | None, row_weight: Tensor | None
    ) -> linear.Problem:
        assert self.fused_step is not None
        labels = self._labels(targets, mask)
        options = {name: self.options[name] for name in ("reduction", "chunk", "backend")}
        if options["backend"] == "eager":
            raise ValueError("backend='eager' has no fused_step")
        updater = Update(self.fused_step, {name: rows_here(getattr(self, name), self.shard) for name in self._states})
        return make_problem(
            hidden, self.weight, self.bias, labels, self.loss, row_weight, shard=self.shard, updater=updater, **options
        )

    def _labels(self, targets: Tensor | SparseTargets, mask: Tensor | None) -> Labels:
        return Labels.of(
            targets,
            self.options["ignore_index"],
            mask=mask,
            weight=self.label_weight,
            pos_weight=self.pos_weight,
            label_smoothing=self.options["label_smoothing"],
        )

    def _loss(self, hidden: Tensor, targets: Any, mask: Tensor | None, row_weight: Tensor | None) -> Tensor:
        return linear_loss(
            hidden,
            self.weight,
            self.bias,
            targets,
            self.loss,
            label_weight=self.label_weight,
            pos_weight=self.pos_weight,
            row_weight=row_weight,
            mask=mask,
            shard=self.shard,
            **self.options,
        )

    def predict_topk(self, hidden: Tensor, k: int, *, posterior: bool = False) -> tuple[Tensor, Tensor]:
        """The k labels of the highest logits: (..., k) scores, falling, and (..., k) int64 labels.

        Of equal logits the lower label comes first. With `posterior`, scores are the probabilities that the loss
        implies, float64; labels are still those of the highest logits. Memory does not grow with L.
        """
        if not 0 < k <= self.num_labels:
            raise ValueError(f"k must lie between 1 and the {self.num_labels} labels, got {k}")
        weight, flat = self._local_weight, hidden.reshape(-1, hidden.shape[-1])
        width = max(chunk_width(self.options["chunk"], len(flat), weight), k)
        scores, labels = top_labels(flat, weight, self._local_bias, k, width, self.shard)
        if posterior:
            scores = posteriors(self.loss, scores, labels, self.pos_weight, self.options["label_smoothing"])
        return scores.view(*hidden.shape[:-1], k), labels.view(*hidden.shape[:-1], k)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., L) logits, or those of the labels of this rank: for small L."""
        bias = self._local_bias
        return functional.linear(hidden, self._local_weight, bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.num_labels}, {self.loss}, reduction={self.options['reduction']!r}"


def _fill(parameter: Tensor, bound: float, start: int, num_labels: int) -> None:
    """From one stream of random numbers over all labels, whatever the shards."""
    each = 1 << 14
    for low in range(0, num_labels, each):
        drawn = torch.empty(min(each, num_labels - low), *parameter.shape[1:], device=parameter.device)
        drawn.uniform_(-bound, bound)
        first, last = max(low, start), min(low + each, start + len(parameter))
        if first < last:
            parameter[first - start : last - start] = drawn[first - low : last - low]
