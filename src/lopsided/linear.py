"""A linear head and its loss at millions of labels, without the logits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lopsided.checks import check_inputs, check_options, check_values
from lopsided.compute import BACKENDS, linear, native
from lopsided.compute.parts import Native, Parts, Streamed
from lopsided.functional import multilabel_loss
from lopsided.fused import FusedStep, Update
from lopsided.losses import Loss, to_loss
from lopsided.sharding import LabelShard
from lopsided.targets import Labels, SparseTargets
from lopsided.topk import posteriors, top_labels

_CPU_BYTES, _DEVICE_BYTES = 1 << 21, 1 << 26  # of a chunk: of its logits, and of its rows of the weight


def linear_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor | SparseTargets,
    loss: Loss | str = "asl",
    *,
    label_weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    row_weight: Tensor | None = None,
    mask: Tensor | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    chunk: int | None = None,
    backend: str = "auto",
    shard: LabelShard | None = None,
) -> Tensor:
    """`multilabel_loss(hidden @ weight.T + bias, targets, loss)`, in memory that does not grow with rows times labels.

    Gradients are made in the forward pass, with three matrix products where labels are independent, and four for
    losses that compare labels; with reduction="none" or float16 they are made in the backward pass, from logits that
    are computed again. The gradient of the weight exists once, as large as the weight.

    Args:
        hidden: (..., D), any float dtype.
        weight: (L, D), or the rows of `shard`. Products are made in its dtype, or that of autocast; those of float16
            on a CPU in float32.
        bias: (L,) or None.
        targets: as in `lopsided.functional.multilabel_loss`; `SparseTargets` where memory should not grow.
        loss: a `Loss`, or its name with settings such as "asl(gamma_neg=2)".
        label_weight: the `weight` of `multilabel_loss`.
        pos_weight, row_weight, mask, ignore_index, label_smoothing, reduction: as there.
        chunk: labels that are computed at a time, by default what a cache holds. It does not change the result.
        backend: "auto", "native" and "streamed" as there; "eager" holds the logits and is differentiable twice.
        shard: this rank's part of the labels: `lopsided.LabelShard`.

    Returns:
        A number, or (...) with reduction="none"; float64 for float64 weights, else float32.

    Raises:
        TypeError, ValueError: on wrong shapes, dtypes, devices or, on the CPU, values.

    >>> hidden, weight = torch.eye(2), torch.tensor([[2.0, 0.5], [-1.0, 3.0]])
    >>> linear_loss(hidden, weight, None, SparseTargets.from_indices([[0], [1]]), "zlpr", reduction="none")
    tensor([0.4402, 1.0227])
    """
    loss = to_loss(loss)
    if backend == "eager":
        if shard is not None:
            raise ValueError("backend='eager' holds the logits of all labels, so it takes no shard")
        return multilabel_loss(
            functional.linear(hidden, weight, bias),
            targets,
            loss,
            weight=label_weight,
            pos_weight=pos_weight,
            row_weight=row_weight,
            mask=mask,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction=reduction,
            backend="eager",
        )
    check_options(reduction, "mixture", label_smoothing, -1, ignore_index)
    labels = Labels.of(
        targets, ignore_index, mask=mask, weight=label_weight, pos_weight=pos_weight, label_smoothing=label_smoothing
    )
    return _evaluate(
        hidden, weight, bias, _problem(hidden, weight, bias, labels, loss, row_weight, reduction, chunk, backend, shard)
    )


def _evaluate(hidden: Tensor, weight: Tensor, bias: Tensor | None, problem: linear.Problem) -> Tensor:
    shard = problem.shard
    weight, bias = _local(weight, shard), None if bias is None else _local(bias, shard)
    needs_grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (hidden, weight, bias))
    flat = hidden.reshape(-1, hidden.shape[-1])
    result: Tensor = linear.LinearRows.apply(flat, weight, bias, problem, needs_grad)  # type: ignore[no-untyped-call]
    return result.view(hidden.shape[:-1]) if problem.reduction == "none" else result


def _local(tensor: Tensor, shard: LabelShard | None) -> Tensor:
    return tensor if shard is None else shard.local(tensor)


def _problem(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Labels,
    loss: Loss,
    row_weight: Tensor | None,
    reduction: str,
    chunk: int | None,
    backend: str,
    shard: LabelShard | None,
    updater: linear.Updater | None = None,
) -> linear.Problem:
    num_labels = weight.shape[0] if shard is None else shard.num_labels
    _check_head(hidden, weight, bias, shard)
    dtype = _dtype(weight)
    logits = torch.empty((), dtype=dtype, device=hidden.device).expand(
        *hidden.shape[:-1], num_labels
    )  # for their shape
    check_inputs(logits, labels, row_weight)
    labels = check_values(logits, labels, row_weight)
    if loss.pool.transposed and (reduction == "none" or row_weight is not None):
        raise ValueError(f"{loss} compares rows with each other: no reduction='none' and no row_weight")
    rows = hidden.shape[:-1].numel()
    start, stop = (0, num_labels) if shard is None else (shard.start, shard.stop)
    parts = Parts(
        labels.flat(logits.shape),
        torch.Size((rows, num_labels)),
        start,
        stop,
        _width(chunk, 0 if shard is not None and shard.data is not None else rows, weight),
    )
    native_runs = _chosen(backend, logits, loss)
    return linear.Problem(
        loss,
        Native(loss) if native_runs else Streamed(loss),
        parts,
        reduction,
        None if row_weight is None else row_weight.reshape(-1),
        dtype,
        shard,
        updater,
    )


def _check_head(hidden: Tensor, weight: Tensor, bias: Tensor | None, shard: LabelShard | None) -> None:
    for name, tensor in (("hidden", hidden), ("weight", weight)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise TypeError(f"{name} must be a floating point tensor, got {getattr(tensor, 'dtype', type(tensor))}")
    if weight.ndim != 2 or hidden.ndim < 1 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"hidden must be (..., features) and weight (labels, features), got {tuple(hidden.shape)} and "
            f"{tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape ({weight.shape[0]},) as weight has labels, got {tuple(bias.shape)}")
    mine = len(_local(weight, shard))
    if shard is not None and mine != shard.stop - shard.start:
        raise ValueError(f"weight has {mine} rows on this rank, but its shard the labels {shard.start} to {shard.stop}")
    if hidden.device != weight.device:
        raise ValueError(f"hidden is on {hidden.device} but weight on {weight.device}: move one of them")


def _dtype(weight: Tensor) -> torch.dtype:
    """Of the matrix products."""
    device = weight.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return torch.float32 if dtype == torch.float16 and device == "cpu" else dtype


def _width(chunk: int | None, rows: int, weight: Tensor) -> int:
    """Labels of a chunk: a power of 2 whose logits, and whose rows of the weight, fit."""
    if chunk is not None:
        if type(chunk) is not int or chunk < 1:
            raise ValueError(f"chunk must be a positive number of labels, got {chunk!r}")
        return chunk
    fits = (_CPU_BYTES if weight.device.type == "cpu" else _DEVICE_BYTES) // weight.element_size()
    return max(1 << int(math.log2(max(fits // max(rows, weight.shape[1], 1), 1))), 256)


def _chosen(backend: str, logits: Tensor, loss: Loss) -> bool:
    """Is it the native executor?"""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if backend == "streamed":
        return False
    reason = native.refusal(logits, loss)
    if reason is not None and backend == "native":
        raise RuntimeError(f"backend='native' cannot run: {reason}; backend='auto' takes another")
    return reason is None


class LinearLoss(nn.Module):
    """A linear layer of many labels and its loss: parameters `weight` (L, D) and `bias` (L,), and never the logits.

    Args:
        in_features: D.
        num_labels: L, of all ranks together.
        loss: a `Loss`, or its name with settings such as "asl(gamma_neg=2)".
        bias: False for none.
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
        self.shard, self.fused_step = shard, fused_step
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
        return _local(self.weight, self.shard)

    @property
    def _local_bias(self) -> Tensor | None:
        return None if self.bias is None else _local(self.bias, self.shard)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As `nn.Linear` starts: uniform in +-1/sqrt(D). A shard gets its part of what all labels would get."""
        bound = 1 / math.sqrt(max(self.in_features, 1))
        start = 0 if self.shard is None else self.shard.start
        for parameter in (self._local_weight, self._local_bias):
            if parameter is not None:
                _fill(parameter, bound, start, self.num_labels)

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
        return _evaluate(hidden, self.weight, self.bias, self._fused_problem(hidden, targets, mask, row_weight))

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
        updater = Update(self.fused_step, {name: _local(getattr(self, name), self.shard) for name in self._states})
        return _problem(
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
        width = max(_width(self.options["chunk"], len(flat), weight), k)
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
