"""Any loss as a function: check, evaluate, reduce."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.compute import choose
from lopsided.compute.fast_path import fast_loss
from lopsided.compute.operators import compiled_loss
from lopsided.compute.reduce import Problem, evaluate
from lopsided.losses import Formula, as_formula
from lopsided.nn.options import check_options
from lopsided.targets import SparseTargets, Supervision, labels_last
from lopsided.targets.checks import check_inputs, check_no_leaf

__all__ = ["above_threshold", "multilabel_loss"]


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
    threshold_logit: int | None = None,
    reduction: str = "mean",
    backend: str = "auto",
    inplace: bool = False,
) -> Tensor:
    """Computes any loss of logits and targets, reduced.

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
        threshold_logit: which of the L + 1 logits of a row is that of a threshold class, 0 for the first: the loss is
            one of the other logits less that one (`above_threshold`), and all else has L labels.
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
    formula = as_formula(loss)
    check_options(reduction, soft_targets, label_smoothing, label_dim, ignore_index, threshold_logit)
    if label_dim != -1:
        logits, targets, mask, weight = (
            labels_last(tensor, logits.ndim, label_dim) for tensor in (logits, targets, mask, weight)
        )
    if threshold_logit is not None:
        logits = above_threshold(logits, threshold_logit)
    supervision = Supervision.of(
        targets, ignore_index, mask=mask, weight=weight, pos_weight=pos_weight, label_smoothing=label_smoothing
    )
    if (
        backend in ("auto", "native")
        and soft_targets == "mixture"
        and not inplace
        and not torch.compiler.is_compiling()
        and (value := fast_loss(logits, supervision, row_weight, formula, reduction)) is not None
    ):
        return value
    check_inputs(logits, supervision, row_weight)
    if inplace and logits.requires_grad and not torch.compiler.is_compiling():
        check_no_leaf(logits)
    beside = *supervision.tensors, row_weight
    executor = choose(backend, formula, logits, *beside, soft_targets=soft_targets)
    if torch.compiler.is_compiling():
        value = compiled_loss(executor, logits, supervision, row_weight, formula, reduction)
        if value is not None:
            return value
    return evaluate(executor, logits, Problem(formula, supervision, row_weight, reduction, inplace))


def above_threshold(logits: Tensor, threshold_logit: int = 0) -> Tensor:
    """Returns how far the logits of labels lie above that of a threshold class, which a model learns for each row.

    A label is predicted where this is above `criterion.decision_threshold()`: 0 for bce, zlpr and atl.

    Args:
        logits: (..., L + 1).
        threshold_logit: which of them is the threshold class.

    Returns:
        (..., L), float32 for 16-bit logits. The gradient of the threshold class is less the sum of the others.

    >>> above_threshold(torch.tensor([[1.0, 3.0, -2.0]]))
    tensor([[ 2., -3.]])

    Source: the threshold class of ATLOP, Zhou et al. 2021, arXiv 2010.11304.
    """
    if not isinstance(logits, Tensor) or logits.ndim == 0 or logits.shape[-1] < 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"threshold_logit needs logits of (..., labels + 1), that of the threshold too; got {shape}")
    count = logits.shape[-1]
    if not -count <= threshold_logit < count:
        raise ValueError(f"threshold_logit must be one of the {count} logits of a row, got {threshold_logit}")
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    place = threshold_logit % count
    return of_labels(wide, place) - wide[..., place : place + 1]


def of_labels(tensor: Tensor, threshold_logit: int) -> Tensor:
    """Returns a (..., L + 1) tensor without the threshold class, (..., L)."""
    place = threshold_logit % tensor.shape[-1]
    return torch.cat([tensor[..., :place], tensor[..., place + 1 :]], -1) if place else tensor[..., 1:]
