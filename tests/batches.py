"""Batches for the tests of executors, and every way of saying something about their labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lopsided import SparseTargets
from lopsided.compute.executor import RowResult
from lopsided.losses import Formula
from lopsided.targets import Supervision


def batch(rows: int, labels: int, density: float = 0.2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * 10_000 + labels)
    z = 5 * torch.randn(rows, labels, generator=generator, dtype=torch.float64)
    return z, (torch.rand(rows, labels, generator=generator) < density).double()


def said(z: Tensor, y: Tensor) -> list[Supervision]:
    """Every way of saying something about labels."""
    generator = torch.Generator().manual_seed(1)
    soft = torch.rand(z.shape, generator=generator, dtype=torch.float64)
    mask = torch.rand(z.shape, generator=generator) < 0.7
    full, weight, pos_weight = (torch.rand(shape, generator=generator) for shape in (z.shape, z.shape[1:], z.shape[1:]))
    weight[::3] = 0
    indices = SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in y])
    entries = torch.tensor([[0, 0.5], [z.shape[1] - 1, 1], [0, 0], [0, 0.3]], dtype=torch.float64).repeat(len(z), 1)
    strided = SparseTargets(torch.arange(len(z) + 1) * 4, entries[:, 0].long().expand(2, -1).T[:, 0], entries[:, 1])
    stored = SparseTargets.from_csr((soft * (soft > 0.5)).to_sparse_csr())
    return [
        *(Supervision(y.to(dtype)) for dtype in (torch.bool, torch.uint8, torch.int64, torch.float32, torch.bfloat16)),
        Supervision(y, mask=mask),
        Supervision(soft.masked_fill(~mask, torch.nan)),
        Supervision(y.masked_fill(~mask, -1), ignore_index=-1),
        Supervision(y.long().masked_fill(~mask, -100), ignore_index=-100),
        Supervision(y.byte().masked_fill(~mask, 255), ignore_index=255),
        Supervision(soft, weight=full, pos_weight=pos_weight, label_smoothing=0.1),
        Supervision(soft, mask=mask, weight=weight),
        Supervision(y[:, :1].expand_as(y)),
        Supervision(y.T.contiguous().T, mask=mask.T.contiguous().T),
        Supervision.of(indices),
        Supervision.of(indices, mask=mask, weight=full, label_smoothing=0.2),
        Supervision.of(stored, pos_weight=pos_weight),
        Supervision.of(strided, mask=mask),  # in no order, some labels twice, parts that are not contiguous
        Supervision.of(strided, label_smoothing=1e-46),
    ]


def check_nan_is_seen_unless_masked(
    rows: Callable[[Formula, Tensor, Supervision], RowResult], formula: Formula, z: Tensor, y: Tensor
) -> None:
    """Of 4 rows, of which the second has a NaN at its fourth label."""
    value, grad = rows(formula, z, Supervision(y))[:2]
    assert grad is not None
    assert value.isnan().tolist() == [False, True, False, False]
    assert grad[1, 3].isnan()
    masked, grad = rows(formula, z, Supervision(y, mask=~z.isnan()))[:2]
    assert grad is not None
    assert masked.isfinite().all()
    assert grad.isfinite().all()
    assert grad[1, 3] == 0
