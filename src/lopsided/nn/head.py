"""`LinearHead`: the module around `linear_loss`, its optimisers and its ranks."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lopsided.compute import check_backend
from lopsided.compute.head import passes as linear
from lopsided.compute.head.shard import LabelShard
from lopsided.compute.topk import top_labels
from lopsided.losses import Balanced, Formula, as_formula, balanced
from lopsided.losses.closed_form import as_double, settled_logit
from lopsided.losses.closed_form import posterior as implied_posterior
from lopsided.nn.balanced import LabelCounts
from lopsided.nn.fused import FusedStep, Update
from lopsided.nn.linear import check_head, chunk_width, evaluate, make_problem, rows_here
from lopsided.nn.options import check_options
from lopsided.targets import SparseTargets, Supervision
from lopsided.targets.checks import check_tensor

_SATURATED = 5.0  # where a loss settles at infinity: far, but gradients have not vanished there


class LinearHead(nn.Module):
    """A linear layer of many labels and its loss: parameters `weight` (L, D) and `bias` (L,), and never the logits.

    Args:
        in_features: D.
        num_labels: L, of all ranks together.
        loss: a `Formula`, or its name with settings such as "asl(gamma_neg=2)"; or, with counts, one that is made from
            them, such as "db".
        counts, rows: (L,), how many training rows have each label, and how many rows there are: see `BalancedLoss`.
        bias: False for none.
        prior: the share of positives of all labels or, (L,), of each, in (0, 1): every bias starts where the loss
            settles for a label that is positive so often, within +-20; at 5 where it saturates before, and at 0 where
            no score stands for a share, as in losses that only rank. Without, as `nn.Linear`, and the first gradients
            of a million negatives push the model below far away.
        label_weight, pos_weight: (L,) of all labels, kept as buffers.
        label_smoothing, ignore_index, reduction, chunk, backend: as in `linear_loss`.
        shard: this rank's part of the labels; parameters are then `DTensor`s of all of them. Draw the same random
            numbers on all ranks before, as by `torch.manual_seed`: then they hold parts of one head.
        fused_step: a `FusedSGD`, `FusedAdamW` or `FusedAdagrad`, which updates weight and bias chunk by chunk, so that
            their gradient never exists: their `.grad` stays None, and optimisers pass them over. Call `step`, which
            needs three matrix products; or `backward` on the loss, which then needs four. Each call updates: no
            gradient is accumulated over calls, none can be clipped by its norm, which is known only after the last
            chunk, and a `GradScaler` would scale the step: train in bfloat16, not float16. What does not require grad
            is left alone.
        device, dtype: of the parameters. With fused_step the dtype is final: its state is made for it.

    The gradients of a loss exist from the forward pass on: evaluate under `torch.no_grad()`.

    >>> head, hidden = LinearHead(2, 1000, "asl"), torch.ones(3, 2)
    >>> head(hidden, SparseTargets.from_indices([[3], [7, 999], []])).backward()
    >>> head.weight.grad.shape
    torch.Size([1000, 2])
    >>> scores, labels = head.predict_topk(hidden, 5)
    >>> labels.shape
    torch.Size([3, 5])
    """

    label_weight: Tensor | None
    pos_weight: Tensor | None
    steps: Tensor  # of fused_step

    def __init__(
        self,
        in_features: int,
        num_labels: int,
        loss: Formula | Balanced | str = "asl",
        *,
        counts: Tensor | None = None,
        rows: int = 0,
        bias: bool = True,
        prior: float | Tensor | None = None,
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
        check_backend(backend)
        self.in_features, self.num_labels = in_features, num_labels
        self.counts = None if counts is None else _counts_of(loss, counts, rows).to(device or counts.device)
        self.formula = as_formula(cast("Formula | str", loss)) if self.counts is None else self.counts.balance.formula
        self.shard, self.fused_step, self.prior = shard, fused_step, prior
        self.label_smoothing, self.ignore_index, self.reduction = label_smoothing, ignore_index, reduction
        self.chunk, self.backend = chunk, backend
        self._check(bias, label_weight, pos_weight)
        mine = num_labels if shard is None else shard.stop - shard.start
        self.weight = nn.Parameter(self._placed(torch.empty(mine, in_features, device=device, dtype=dtype)))
        self.bias = nn.Parameter(self._placed(torch.empty(mine, device=device, dtype=dtype))) if bias else None
        self.register_buffer("label_weight", label_weight)
        self.register_buffer("pos_weight", pos_weight)
        chunk_width(chunk, 1, self.weight)
        if fused_step is not None:
            self._add_states(fused_step)
        self.reset_parameters()

    def _check(self, bias: bool, *weights: Tensor | None) -> None:
        if min(self.in_features, self.num_labels) < 1:
            raise ValueError(
                f"in_features and num_labels must be positive, got {self.in_features} and {self.num_labels}"
            )
        if self.shard is not None and self.shard.num_labels != self.num_labels:
            raise ValueError(f"the shard is one of {self.shard.num_labels} labels, but num_labels is {self.num_labels}")
        if self.prior is not None:
            self._check_prior(as_double(self.prior), bias)
        if not isinstance(self.fused_step, FusedStep | None):
            raise TypeError(f"fused_step must be a FusedSGD, FusedAdamW or FusedAdagrad, got {self.fused_step!r}")
        if self.fused_step is not None and self.backend == "eager":
            raise ValueError("backend='eager' holds the gradient of the weight, so it takes no fused_step")
        if self.counts is not None and weights[0] is not None:
            raise ValueError("label_weight is made from the counts here: pass pos_weight, or a mask")
        given = (*weights, None if self.counts is None else self.counts.rarity)
        for name, weight in zip(("label_weight", "pos_weight", "counts"), given, strict=True):
            if weight is None:
                continue
            check_tensor(name, weight)
            if weight.shape != (self.num_labels,):
                raise ValueError(f"{name} must have shape ({self.num_labels},), got {tuple(weight.shape)}")

    def _check_prior(self, prior: Tensor, bias: bool) -> None:
        if prior.shape not in ((), (self.num_labels,)):
            raise ValueError(f"prior must be a number or have shape ({self.num_labels},), got {tuple(prior.shape)}")
        if not (bias and ((prior > 0) & (prior < 1)).all()):
            raise ValueError(
                f"prior must lie in (0, 1), as (counts + 0.5) / (rows + 1) does, and needs a bias; got {prior.min():g} "
                f"to {prior.max():g}, bias={bias!r}"
            )

    def _starting_bias(self, prior: Tensor) -> Tensor:
        """Returns (L,) or () logits at which labels with these shares of positives settle, float64."""
        smoothed = prior.double() * (1 - self.label_smoothing) + self.label_smoothing / 2
        odds = smoothed / (1 - smoothed) * (1.0 if self.pos_weight is None else self.pos_weight)
        try:
            bias = settled_logit(self.formula, odds)
        except ValueError:
            return torch.zeros_like(odds)
        bias = bias.nan_to_num(posinf=_SATURATED).clamp(-20, 20)
        return bias if self.counts is None else self.counts.before(bias)

    def _add_states(self, fused_step: FusedStep) -> None:
        """Adds buffers such as `weight_momentum`, and the number of steps."""
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._states: dict[str, list[str]] = {}
        for which, parameter in (("weight", self._local_weight), ("bias", self._local_bias)):
            if parameter is not None:
                layout = fused_step.layout(parameter)
                self._states[which] = list(layout)
                for name, (shape, dtype) in layout.items():
                    state = torch.zeros(shape, dtype=dtype, device=parameter.device)
                    self.register_buffer(f"{which}_{name}", self._placed(state))

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
        """Draws as `nn.Linear` does: uniform in +-1/sqrt(D). A shard gets its part of what all labels would get."""
        start = 0 if self.shard is None else self.shard.start
        for parameter in (self._local_weight, self._local_bias):
            if parameter is not None:
                _fill(parameter, 1 / math.sqrt(self.in_features), start, self.num_labels)
                if self.shard is not None:
                    self.shard.replicate(parameter)
        if self.prior is not None and self._local_bias is not None:
            bias = self._starting_bias(as_double(self.prior)).expand(self.num_labels)
            self._local_bias.copy_(bias[start : start + len(self._local_bias)])
        if self.fused_step is not None:
            for state in (self.steps, *(each for states in self._local_states().values() for each in states.values())):
                state.zero_()

    def _local_states(self) -> dict[str, dict[str, Tensor]]:
        return {
            which: {name: rows_here(getattr(self, f"{which}_{name}"), self.shard) for name in names}
            for which, names in self._states.items()
        }

    def forward(
        self,
        hidden: Tensor,
        targets: Tensor | SparseTargets,
        mask: Tensor | None = None,
        *,
        row_weight: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss of (..., D) hidden states: see `linear_loss`."""
        fused = self.fused_step if torch.is_grad_enabled() else None
        problem = self._problem(hidden, targets, mask, row_weight, fused)
        return evaluate(hidden, self.weight, self.bias, problem, self.backend)

    def step(
        self,
        hidden: Tensor,
        targets: Tensor | SparseTargets,
        mask: Tensor | None = None,
        *,
        row_weight: Tensor | None = None,
    ) -> Tensor:
        """Runs forward, backward and the update of the head in one pass; `hidden` gets its gradient, and all below it.

        Returns the loss, detached. It runs `hidden.backward`, which frees the graph below: where `hidden` feeds other
        losses too, call `backward` once, on the sum of `head(...)` and them. Scale it by `row_weight`, not afterwards.
        """
        if self.fused_step is None:
            raise RuntimeError("step needs LinearHead(..., fused_step=...); without it, call backward on the loss")
        if self.reduction == "none":
            raise ValueError("step needs one loss to descend: reduction='none' gives one for each row")
        problem = self._problem(hidden, targets, mask, row_weight, self.fused_step)
        flat = hidden.reshape(-1, hidden.shape[-1])
        with torch.no_grad():
            value, grad = linear.step(problem, flat, self._local_weight, self._local_bias, hidden.requires_grad)
        if grad is not None:
            hidden.backward(grad.view(hidden.shape))
        return value

    def _problem(
        self,
        hidden: Tensor,
        targets: Tensor | SparseTargets,
        mask: Tensor | None,
        row_weight: Tensor | None,
        fused_step: FusedStep | None,
    ) -> linear.HeadProblem:
        supervision = Supervision.of(
            targets,
            self.ignore_index,
            mask=mask,
            weight=self.label_weight,
            pos_weight=self.pos_weight,
            label_smoothing=self.label_smoothing,
        )
        return make_problem(
            hidden,
            self.weight,
            self.bias,
            supervision,
            self.formula,
            row_weight,
            reduction=self.reduction,
            chunk=self.chunk,
            backend=self.backend,
            shard=self.shard,
            updater=None if fused_step is None else self._updater(fused_step),
            counted=None if self.counts is None else self.counts.now(),
        )

    def _updater(self, fused_step: FusedStep) -> Update:
        trained = {
            which: rows_here(parameter, self.shard).detach()
            for which, parameter in (("weight", self.weight), ("bias", self.bias))
            if parameter is not None and parameter.requires_grad
        }
        return Update(fused_step, trained, self._local_states(), self.steps)

    def predict_topk(self, hidden: Tensor, k: int, *, posterior: bool = False) -> tuple[Tensor, Tensor]:
        """Returns the k labels of the highest logits: (..., k) scores, falling, and (..., k) int64 labels.

        Of equal logits the lower label comes first. With `posterior`, scores are the probabilities that the loss
        implies, float64; labels are still those of the highest logits. Memory does not grow with L.
        """
        if type(k) is not int or not 0 < k <= self.num_labels:
            raise ValueError(f"k must be a whole number between 1 and the {self.num_labels} labels, got {k!r}")
        check_head(hidden, self.weight, self.bias, self.shard)
        weight, flat = self._local_weight, hidden.reshape(-1, hidden.shape[-1])
        width = max(chunk_width(self.chunk, len(flat), weight), k)
        scores, labels = top_labels(flat, weight, self._local_bias, k, width, self.shard)
        if posterior:
            pos_weight = 1.0 if self.pos_weight is None else self.pos_weight[labels]
            if self.counts is not None:
                self.counts.check_closed()
                scores = scores + self.counts.offset[labels]
            scores = implied_posterior(self.formula, scores, pos_weight, self.label_smoothing)
        return scores.view(*hidden.shape[:-1], k), labels.view(*hidden.shape[:-1], k)

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns (..., L) logits, or those of the labels of this rank: for small L."""
        return functional.linear(hidden, self._local_weight, self._local_bias)

    def extra_repr(self) -> str:
        loss = self.formula if self.counts is None else self.counts.balance
        return f"{self.in_features}, {self.num_labels}, {loss}, reduction={self.reduction!r}"


def _counts_of(loss: Formula | Balanced | str, counts: Tensor, rows: int) -> LabelCounts:
    if isinstance(loss, Formula):
        raise TypeError(f"counts are for losses that are made from them, such as 'db', not for {loss}")
    return LabelCounts(balanced(loss) if isinstance(loss, str) else loss, counts, rows)


def _fill(parameter: Tensor, bound: float, start: int, num_labels: int) -> None:
    """Fills a parameter from one stream of random numbers over all labels, whatever the shards."""
    each = 1 << 14
    for low in range(0, num_labels, each):
        drawn = torch.empty(min(each, num_labels - low), *parameter.shape[1:], device=parameter.device)
        drawn.uniform_(-bound, bound)
        first, last = max(low, start), min(low + each, start + len(parameter))
        if first < last:
            parameter[first - start : last - start] = drawn[first - low : last - low]
