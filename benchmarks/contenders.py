"""What is timed: the cases, and for each the functions of the logits that compute a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import published
import torch
from tables import LOSSES, NON_INTEGER
from torch import Tensor, nn

import lopsided
from lopsided import SparseTargets

Function = Callable[[Tensor], Tensor]

PUBLISHED: dict[str, Callable[..., Tensor]] = {
    "focal": published.focal,
    "asl": published.asymmetric,
    "apl": published.asymmetric_polynomial,
    "zlpr": published.zlpr,
    NON_INTEGER: partial(published.asymmetric, gamma_neg=3.7, gamma_pos=1.3),
}


@dataclass(frozen=True)
class Case:
    rows: int
    labels: int
    dtype: torch.dtype
    targets: str  # "float", "uint8" or "sparse"

    def __str__(self) -> str:
        return f"{self.rows}x{self.labels} {str(self.dtype).removeprefix('torch.')} {self.targets}"

    def make(self) -> tuple[Tensor, Tensor]:
        """Logits N(-3, 2^2), and targets with 3 positives in 100 labels, at most about 20 a row."""
        generator = torch.Generator().manual_seed(0)
        z = (2 * torch.randn(self.rows, self.labels, generator=generator) - 3).to(self.dtype)
        y = torch.rand(self.rows, self.labels, generator=generator) < min(0.03, 20 / self.labels)
        return z, y.to(self.dtype)


CASES = [
    Case(rows, labels, dtype, targets)
    for rows, labels in ((256, 80), (128, 10_000), (64, 131_072))
    for dtype, targets in ((torch.float32, "float"), (torch.bfloat16, "uint8"), (torch.float32, "sparse"))
]


def contenders(case: Case, compiled: bool) -> Iterator[tuple[str, str, Function]]:
    """(name, loss, function of the logits), all of them sums over the batch. Others than ours take float targets."""
    torch.compiler.reset()  # or dynamo would give up on a function after so many shapes, and run it as it is
    y = case.make()[1]
    said: Tensor | SparseTargets = y
    if case.targets == "uint8":
        said = y.to(torch.uint8)
    elif case.targets == "sparse":
        said = SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in y])
    yield "torch bce", "bce", partial(nn.functional.binary_cross_entropy_with_logits, target=y, reduction="sum")
    if case.targets != "float":
        for loss in LOSSES:
            yield f"{loss} native", loss, _ours(loss, "native", said)
        return
    soft_margin = partial(nn.functional.multilabel_soft_margin_loss, target=y, reduction="sum")
    yield "torch soft margin", "bce", lambda z: case.labels * soft_margin(z)
    yield from _kornia(y)
    for loss in LOSSES:
        for backend in ("native", "streamed", "eager"):
            yield f"{loss} {backend}", loss, _ours(loss, backend, said)
        if loss in PUBLISHED:
            yield f"{loss} published", loss, partial(PUBLISHED[loss], y=y)
            if compiled:
                function = torch.compile(partial(PUBLISHED[loss], y=y), dynamic=False)
                yield f"{loss} published, compiled", loss, function


def _ours(loss: str, backend: str, targets: Tensor | SparseTargets) -> Function:
    module = lopsided.MultiLabelLoss(loss, reduction="sum", backend=backend)
    return lambda z: module(z, targets)


def _kornia(y: Tensor) -> Iterator[tuple[str, str, Function]]:
    try:
        from kornia.losses import binary_focal_loss_with_logits  # type: ignore[import-not-found]
    except ImportError:
        return
    yield "focal kornia", "focal", lambda z: binary_focal_loss_with_logits(z, y, alpha=None, gamma=2.0, reduction="sum")
