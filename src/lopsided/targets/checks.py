"""Every check of tensors and its message: what came, what was expected, what to do."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lopsided.losses.checks import stacklevel_of_user

if TYPE_CHECKING:
    from lopsided.targets import Supervision


_PLAIN = (Tensor, torch.nn.Parameter)
TARGET_DTYPES = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
TARGET_DTYPES |= {torch.float16, torch.bfloat16, torch.float32, torch.float64}

_transforms, _tracing = torch._C._functorch.peek_interpreter_stack, torch._C._get_tracing_state
_modes = torch._C._len_torch_dispatch_stack
_PROXY = torch._C._TorchDispatchModeKey.PROXY
_ENOUGH, _FEW = 256, 4096  # logits that tell scores from probabilities; those looked at before all are
_warned_of_probabilities = False
_of_a_model = ContextVar("logits are of a model", default=False)


def check_inputs(
    logits: Tensor, supervision: Supervision, row_weight: Tensor | None = None, weight_name: str = "weight"
) -> None:
    """Checks types, shapes, dtypes and devices; values are left to `check_values`, or to the native executor."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {_kind(logits)}: pass a tensor of the model's raw scores")
    _check_beside("logits", logits, logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits must have shape (..., labels) with labels > 0, got {tuple(logits.shape)}")
    if supervision.crow is None:
        _check_dense(supervision.values, logits)
    else:
        _check_sparse(supervision, logits)
    if supervision.mask is not None:
        _check_mask_or_weight("mask", supervision.mask, logits)
    if supervision.weight is not None:
        _check_mask_or_weight(weight_name, supervision.weight, logits)
    if supervision.pos_weight is not None:
        _check_mask_or_weight("pos_weight", supervision.pos_weight, logits)
    if row_weight is not None:
        _check_mask_or_weight("row_weight", row_weight, logits)


def check_values(
    logits: Tensor, supervision: Supervision, row_weight: Tensor | None = None, weight_name: str = "weight"
) -> Supervision:
    """Checks ranges, on the CPU only, where looking waits for nothing; marks the supervision if all is known."""
    if not has_values(logits):
        return supervision
    given = {weight_name: supervision.weight, "pos_weight": supervision.pos_weight, "row_weight": row_weight}
    for name, weight in given.items():
        if weight is not None and weight.numel() and not (weight.min() >= 0 and weight.max() < math.inf):
            raise ValueError(
                f"{name} must be finite and not negative, got values from {weight.min():g} to {weight.max():g}"
            )
    if supervision.crow is not None:
        _check_structure(supervision, logits.shape[-1])
    if supervision.values is None:
        return supervision._replace(all_known=True)
    if supervision.crow is not None:
        _check_range(supervision.values, None, None)
        return supervision._replace(all_known=not supervision.values.isnan().any())
    ignored = supervision.ignore_index
    ordinary = ignored is None or not 0 <= ignored <= 1
    return supervision._replace(all_known=_check_range(supervision.values, supervision.mask, ignored) and ordinary)


def has_values(tensor: Tensor) -> bool:
    """Tells whether its values may be looked at without waiting for a device or breaking a graph."""
    return tensor.is_cpu and not torch.compiler.is_compiling() and not is_traced(tensor)


def is_traced(*tensors: Tensor | None, observers: bool = True) -> bool:
    """Returns whether only operations of torch may be used on these tensors, and their memory must not be read.

    True for subclasses of Tensor, for tensors whose memory holds them negated, and wherever `is_recorded`. Without
    `observers`, dispatch modes do not count that calculate as without them, such as one that counts operations.
    """
    if is_recorded() if observers else torch._C._get_dispatch_mode(_PROXY) is not None or _is_transformed():
        return True
    for tensor in tensors:  # noqa: SIM110 - a generator takes twice as long
        if tensor is not None and (type(tensor) not in _PLAIN or tensor.is_neg()):
            return True
    return False


def is_recorded() -> bool:
    """Returns whether torch records or transforms operations now, other than by reverse-mode autograd.

    True within `vmap`, `torch.func.grad`, `torch.jit.trace`, forward-mode differentiation and dispatch modes, such as
    that of fake tensors.
    """
    return _modes() > 0 or _is_transformed()


def _is_transformed() -> bool:
    return _transforms() is not None or _tracing() is not None or forward_ad._current_level >= 0


def has_memory(tensor: Tensor) -> bool:
    """Returns whether the storage of a strided tensor holds all its elements: it may have been freed or shrunk."""
    size = tensor.numel()
    if size and not tensor.is_contiguous():
        size = sum((length - 1) * step for length, step in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return size == 0 or tensor.untyped_storage().nbytes() >= (tensor.storage_offset() + size) * tensor.itemsize


def check_no_leaf(logits: Tensor) -> None:
    """Leaves are what users and optimizers go on with; a view has the memory of its base."""
    for tensor in (logits, logits._base):
        if tensor is not None and tensor.is_leaf and tensor.requires_grad:
            raise ValueError("inplace=True would overwrite logits that are a leaf of the graph: pass inplace=False")


def _kind(given: Any) -> str:
    return str(given.dtype) if isinstance(given, Tensor) else f"{type(given).__name__}: {str(given)[:40]}"


def _check_dense(targets: Tensor | None, logits: Tensor) -> None:
    assert targets is not None
    if targets.layout != torch.strided:
        raise TypeError(f"sparse targets must be torch.sparse_csr, got {targets.layout}: call targets.to_sparse_csr()")
    if targets.dtype not in TARGET_DTYPES:
        raise TypeError(f"targets must be bool, integer or float in [0, 1], got {targets.dtype}: call targets.float()")
    if targets.shape != logits.shape:
        one_class = targets.ndim == 1 and logits.ndim == 2 and len(targets) == len(logits)
        raise ValueError(
            f"targets have shape {tuple(targets.shape)} but logits {tuple(logits.shape)}: pass one number in "
            "[0, 1] for every label of every row, or class indices as "
            f"lopsided.SparseTargets.from_indices({'targets[:, None]' if one_class else '...'})"
        )
    _check_beside("targets", targets, logits)


def _check_sparse(supervision: Supervision, logits: Tensor) -> None:
    rows = math.prod(logits.shape[:-1])
    crow, col, values = supervision.crow, supervision.col, supervision.values
    assert crow is not None
    assert col is not None
    for name, tensor in (("crow", crow), ("col", col)):
        if tensor.is_floating_point() or tensor.dtype == torch.bool or tensor.ndim != 1:
            raise TypeError(f"{name} must be one dimension of integers, got {tensor.dtype} {tuple(tensor.shape)}")
        _check_beside(name, tensor, logits)
    if len(crow) != rows + 1:
        raise ValueError(f"targets have {len(crow) - 1} rows but logits {tuple(logits.shape)} have {rows}")
    if supervision.num_labels not in (None, logits.shape[-1]):
        raise ValueError(f"targets have {supervision.num_labels} labels but logits {tuple(logits.shape)}")
    if values is not None:
        if values.shape != col.shape:
            raise ValueError(f"values must have the shape of col {tuple(col.shape)}, got {tuple(values.shape)}")
        _check_beside("values", values, logits)


def _check_beside(name: str, tensor: Tensor, logits: Tensor) -> None:
    if not torch.compiler.is_compiling():
        _check_kind(name, tensor, logits)
    if tensor is logits:
        return
    if tensor.dtype.is_complex:
        raise TypeError(f"{name} must be real, got {tensor.dtype}: pass {name}.real")
    if tensor.device != logits.device:
        raise ValueError(f"{name} are on {tensor.device} but logits on {logits.device}: move one of them")
    if tensor.requires_grad or (forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None):
        order = ", or the logits first if they were swapped" if name == "targets" and not logits.requires_grad else ""
        raise ValueError(f"{name} require grad, but no gradient flows to them: pass {name}.detach(){order}")


def _check_kind(name: str, tensor: Tensor, logits: Tensor) -> None:
    """Refuses tensors without memory of their own, unless torch can calculate with them and the logits together."""
    kind = type(tensor)
    if kind in _PLAIN and tensor.layout == torch.strided and (is_recorded() or has_memory(tensor)):
        return
    wraps = kind.__torch_dispatch__ is not Tensor.__torch_dispatch__
    if wraps and (kind is not type(logits) or kind.__name__ == "MaskedTensor"):
        raise TypeError(
            f"{name} are a {kind.__name__} and logits a {type(logits).__name__}: pass plain tensors, such as "
            "x.to_local() of a DTensor, or x.get_data() of a MaskedTensor with mask=x.get_mask()"
        )
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be dense, got {tensor.layout}: call to_dense()")
    if kind in _PLAIN:
        raise RuntimeError(f"{name} have no memory: their storage was freed or made smaller after they were made")


def check_tensor(name: str, given: Any) -> None:
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} must be a tensor, got {_kind(given)}: pass torch.as_tensor(...)")


def _check_mask_or_weight(name: str, tensor: Tensor, logits: Tensor) -> None:
    check_tensor(name, tensor)
    shape = logits.shape
    if name == "mask":
        if tensor.dtype != torch.bool or tensor.shape != shape:
            raise ValueError(
                f"mask must be bool with the shape of the logits {tuple(shape)}, True where the label is "
                f"known; got {tensor.dtype} {tuple(tensor.shape)}"
            )
    else:
        allowed = {"pos_weight": (shape[-1:],), "row_weight": (shape[:-1],)}.get(name, (shape, shape[-1:]))
        if tensor.shape not in allowed:
            expected = " or ".join(str(tuple(each)) for each in dict.fromkeys(allowed))
            of_rows = ": one number a row is row_weight=" if tensor.shape == shape[:-1] != () else ""
            raise ValueError(f"{name} must have shape {expected}, got {tuple(tensor.shape)}{of_rows}")
    _check_beside(name, tensor, logits)


def _check_range(targets: Tensor, mask: Tensor | None, ignore_index: int | None) -> bool:
    """Returns whether all targets lie in [0, 1], known or not; raises ValueError if a known one does not."""
    if targets.dtype == torch.bool or targets.numel() == 0:
        return True
    low, high = _bounds(targets)
    if low >= 0 and high <= 1:
        return True
    wrong = (targets < 0) | (targets > 1)  # False for NaN
    if ignore_index is not None:
        wrong &= targets != ignore_index
    if mask is not None:
        wrong &= mask
    if wrong.any():
        low, high = _bounds(targets[wrong])
        what = f"values from {low:g} to {high:g}" if low < high else f"the value {low:g}"
        no_zero = low == high == -1 and not (targets == 0).any()
        negative = "if -1 means that a label is not there, pass targets > 0; " if no_zero else ""
        raise ValueError(
            f"targets must lie in [0, 1], got {what}: {negative}mark unknown labels with NaN, mask= or ignore_index=, "
            "and pass class indices as lopsided.SparseTargets.from_indices(...)"
        )
    return False


def _bounds(tensor: Tensor) -> tuple[float, float]:
    low, high = tensor.aminmax()
    return low.item(), high.item()


def _check_structure(supervision: Supervision, num_labels: int) -> None:
    crow, col = supervision.crow, supervision.col
    assert crow is not None
    assert col is not None
    if crow[0] != 0 or crow[-1] != len(col) or (crow.diff() < 0).any():
        raise ValueError(
            f"crow must rise from 0 to the number of entries, {len(col)}; got {crow[0]:g} to {crow[-1]:g}"
            f"{', falling in between' if (crow.diff() < 0).any() else ''}"
        )
    if len(col):
        low, high = _bounds(col)
        if low < 0 or high >= num_labels:
            raise ValueError(
                f"label indices must lie in [0, {num_labels}), got values from {low} to {high}: "
                "pass the padding of index lists as pad="
            )


def warn_of_probabilities(logits: Tensor) -> None:
    """Warns, once, if the logits of a batch look like the output of a sigmoid."""
    global _warned_of_probabilities
    if _warned_of_probabilities or _of_a_model.get() or logits.numel() < _ENOUGH:
        return
    flat = logits.detach().flatten()
    for part in (flat[:_FEW], flat):
        low, high = _bounds(part)
        if not 0 <= low < 0.1 < 0.5 < high <= 1:  # closer together, they may be the scores of an untrained head
            return
    _warned_of_probabilities = True
    warnings.warn(
        f"all {logits.numel()} logits lie in [0, 1], as probabilities do: pass the raw scores, without a sigmoid",
        stacklevel=stacklevel_of_user(),
    )


@contextmanager
def logits_of_a_model() -> Iterator[None]:
    """Says of all logits that losses are given meanwhile: a model made them, and wherever they lie, they are logits.

    Those of a young head, and of one that few features move, may well lie in [0, 1].
    """
    before = _of_a_model.set(True)
    try:
        yield
    finally:
        _of_a_model.reset(before)
