"""Any loss as a function: check, evaluate, reduce."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.compute import blocks as streamed
from lopsided.compute import choose, row_loss
from lopsided.compute import operators as op
from lopsided.compute.executor import attach
from lopsided.compute.native import run as native
from lopsided.compute.product import product_rows
from lopsided.compute.triton import node as triton_node
from lopsided.losses import Formula, as_formula
from lopsided.nn.options import check_options
from lopsided.targets import SparseTargets, Supervision, labels_last
from lopsided.targets.checks import check_inputs, check_no_leaf, check_values, has_values, warn_of_probabilities

__all__ = ["multilabel_loss"]

_DEFAULTS = (0.0, -1, "mixture")


def multilabel_loss(
    logits: Tensor,
    targets: Tensor | SparseTargets,
    loss: Formula | str,
    *,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    row_weight: Tensor | None = None,
    mask: Tensor | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    soft_targets: str = "mixture",
    label_dim: int = -1,
    reduction: str = "mean",
    backend: str = "auto",
    inplace: bool = False,
) -> Tensor:
    """Any `Formula` of logits and targets.

    Args:
        logits: (..., L), any float dtype; raw scores, not probabilities.
        targets: (..., L), bool, integer or float in [0, 1], NaN where a label is unknown; or a 2-D
            `torch.sparse_csr_tensor`, or `lopsided.SparseTargets`, whose rows are the leading dimensions flattened.
        loss: a `Formula`, or its name with settings such as "asl(gamma_neg=2)".
        weight: (L,) or (..., L), >= 0: multiplies what a label costs. Inside the logarithm for ZLPR, LSEP and
            two-way; in the means of BP-MLL and softmax, where only ratios within a row matter.
        pos_weight: (L,), >= 0: the same, where a label is positive.
        row_weight: (...), multiplies what a row costs. No weight changes what "mean" divides by, except
            that a positive of weight 0 does not count as one.
        mask: (..., L) bool, True where the label is known; unknown labels cost nothing and are not counted.
        ignore_index: targets of this value are unknown, for instance -1.
        label_smoothing: e in [0, 1): targets become (1 - e) y + e/2.
        soft_targets: "mixture", y f+ + (1 - y) f-; or "product", the form of the official ASL and APL codes, where
            the focusing weight mixes inside its power (`lopsided.compute.product`). Hard targets: no difference.
        label_dim: which dimension of logits, targets and mask the labels are, for instance 1 for (N, L, H, W).
        reduction: "none": one value per row, shape (...). "sum": their sum. "batchmean": the sum divided by the
            rows. "mean": label-wise losses divide by the known entries, as torch's BCEWithLogitsLoss does; ZLPR
            divides by the rows; losses that compare positives with negatives, by the rows that have a positive.
            Rows without a known label are not counted, and with nothing known at all the result is 0, with zero
            gradient.
        backend: "auto"; "native", the C library, which serves the CPU; "triton", which serves GPUs; "streamed", plain
            torch on any device, a block of rows at a time; "eager", plain torch, all at once, the only one that is
            differentiable twice.
        inplace: the logits are not needed after the loss: Triton may write the gradient over them, and other executors
            make a new one. Only one backward pass is possible then, and logits must not be a leaf or a
            view of one.

    Returns:
        float32 for 16-bit logits, else the dtype of the logits. The gradient has the dtype of the logits.

    Raises:
        TypeError, ValueError: on wrong shapes, dtypes, devices, or (on the CPU only) values out of range.

    >>> import torch
    >>> logits, targets = torch.tensor([[2.0, -1.0], [0.5, 3.0]]), torch.tensor([[1, 0], [0, 1]])
    >>> multilabel_loss(logits, targets, "zlpr", reduction="none")
    tensor([0.4402, 1.0227])
    >>> multilabel_loss(logits, SparseTargets.from_indices([[0], [1]]), "zlpr", reduction="none")
    tensor([0.4402, 1.0227])
    """
    loss = as_formula(loss)
    unusual = False
    if (
        mask is None
        and weight is None
        and pos_weight is None
        and row_weight is None
        and ignore_index is None
        and not inplace
        and (label_smoothing, label_dim, soft_targets) == _DEFAULTS
        and backend in ("auto", "native")
        and reduction in ("mean", "batchmean", "sum")
        and not torch.compiler.is_compiling()
    ):
        counts = {"mean": loss.pool.counts, "batchmean": "rows", "sum": "sum"}[reduction]
        result = native.plain(logits, targets, loss, counts)
        if not isinstance(result, bool):
            return result
        unusual = result
    check_options(reduction, soft_targets, label_smoothing, label_dim, ignore_index)
    if label_dim != -1:
        logits, targets, mask, weight = (
            labels_last(tensor, logits.ndim, label_dim) for tensor in (logits, targets, mask, weight)
        )
    labels = Supervision.of(
        targets,
        ignore_index,
        mask=mask,
        weight=weight,
        pos_weight=pos_weight,
        label_smoothing=label_smoothing,
    )
    check_inputs(logits, labels, row_weight)
    if inplace and logits.requires_grad and not torch.compiler.is_compiling():
        check_no_leaf(logits)
    executor = choose(backend, logits, loss, *labels.tensors, row_weight) if soft_targets == "mixture" else "product"
    if executor == "triton" and not loss.pool.transposed:
        return _by_triton(logits, labels, loss, row_weight, reduction, inplace)
    return _evaluate(executor, logits, labels, loss, row_weight, reduction, unusual)


def _by_triton(
    logits: Tensor, labels: Supervision, loss: Formula, row_weight: Tensor | None, reduction: str, inplace: bool = False
) -> Tensor:
    if has_values(logits):  # in its interpreter
        labels = check_values(logits, labels, row_weight)
    if reduction == "none" or row_weight is not None:
        rows = triton_node.evaluate(logits, labels, loss, None, inplace)
        return _reduce_rows(rows, logits, labels, loss, row_weight, reduction)
    return triton_node.evaluate(logits, labels, loss, _divisor(labels, logits.shape, loss, reduction), inplace)


def _evaluate(
    executor: str,
    logits: Tensor,
    labels: Supervision,
    loss: Formula,
    row_weight: Tensor | None,
    reduction: str,
    unusual: bool,  # some value is already known to be out of the ordinary
) -> Tensor:
    # the native executor looks at values as it goes: it may trust that all are known, and that a divisor follows
    trusting = executor == "native" and not unusual and row_weight is None and loss.pool.counts != "positive rows"
    trusting = trusting and (labels.crow is not None or labels.ignore_index is None)
    if trusting:
        labels = labels._replace(all_known=True)
    else:
        labels = check_values(logits, labels, row_weight)
        if has_values(logits):
            warn_of_probabilities(logits)
    if loss.pool.transposed and executor != "product":
        return _both_ways(executor, logits, labels, loss, row_weight, reduction)
    return _reduced(executor, logits, labels, loss, row_weight, reduction, trusting)


def _reduced(
    executor: str,
    logits: Tensor,
    labels: Supervision,
    loss: Formula,
    row_weight: Tensor | None,
    reduction: str,
    trusting: bool = False,
) -> Tensor:
    if executor in ("native", "streamed"):
        return _along_the_way(executor, logits, labels, loss, row_weight, reduction, trusting)
    if executor == "triton":
        return _by_triton(logits, labels, loss, row_weight, reduction)
    by_rows = {"product": _product, "eager": row_loss}
    by_rows |= {"native operator": op.row_loss, "triton operator": op.triton_row_loss}
    rows = by_rows[executor](logits, labels, loss)
    return _reduce_rows(rows, logits, labels, loss, row_weight, reduction)


def _reduce_rows(
    rows: Tensor, logits: Tensor, labels: Supervision, loss: Formula, row_weight: Tensor | None, reduction: str
) -> Tensor:
    if row_weight is not None:
        rows = rows * row_weight.to(rows.dtype)
    return rows if reduction == "none" else rows.sum() / _divisor(labels, logits.shape, loss, reduction)


def _along_the_way(
    executor: str,
    logits: Tensor,
    labels: Supervision,
    loss: Formula,
    row_weight: Tensor | None,
    reduction: str,
    trusting: bool,
) -> Tensor:
    """By an executor that makes the gradient in the forward pass: a second pass if trust gave the wrong divisor."""
    # a gradient in float16 is divided later, since a loss scaler could not bring back what becomes 0 here,
    # and a divisor on another device would be waited for
    by_rows = reduction == "none" or row_weight is not None or logits.dtype == torch.float16
    by_rows = by_rows or logits.device.type != "cpu"
    run = native.run if executor == "native" else streamed.run
    needs_grad = torch.is_grad_enabled() and logits.requires_grad
    divisor = 1 if by_rows else _divisor(labels, logits.shape, loss, reduction)
    found = run(logits, labels, loss, 1 / float(divisor), needs_grad)
    if trusting and found.probable:
        warn_of_probabilities(logits)
    if trusting and found.odd:
        labels = check_values(logits, labels)
        exact = 1 if by_rows else _divisor(labels, logits.shape, loss, reduction)
        if exact != divisor:
            found = run(logits, labels, loss, 1 / float(exact), needs_grad)
    value = attach(logits, found.value, found.gradient, total=not by_rows)
    return _reduce_rows(value, logits, labels, loss, row_weight, reduction) if by_rows else value


def _product(logits: Tensor, labels: Supervision, loss: Formula) -> Tensor:
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets, known = labels.dense(z.shape, z.dtype), labels.known(z.shape)
    if known is not None:  # whatever stands there must not reach a power, nor its gradient
        z, targets = torch.where(known, z, 0.0), torch.where(known, targets, 0.0)
    smoothed = targets * (1 - labels.label_smoothing) + labels.label_smoothing / 2
    return product_rows(z, smoothed, labels.weights(z.shape, z.dtype), loss)


def _divisor(labels: Supervision, shape: torch.Size, loss: Formula, reduction: str) -> Tensor | int:
    """What the sum over the rows is divided by. It is 0 when nothing is known, and so is its gradient: divide by 1."""
    if reduction == "sum":
        return 1
    count = labels.number_of("rows" if reduction == "batchmean" else loss.pool.counts, shape)
    return count.clamp_min(1) if isinstance(count, Tensor) else max(count, 1)


def _both_ways(
    executor: str, logits: Tensor, labels: Supervision, loss: Formula, row_weight: Tensor | None, reduction: str
) -> Tensor:
    if reduction == "none" or row_weight is not None:
        raise ValueError(f"{loss} compares rows with each other: no reduction='none' and no row_weight")
    by_rows = _reduced(executor, logits, labels, loss, None, reduction)
    if logits.numel() == 0:
        return by_rows
    columns, turned = logits.reshape(-1, logits.shape[-1]).T, labels.transpose(logits.shape)
    return by_rows + _reduced(executor, columns, turned, loss, None, reduction)
