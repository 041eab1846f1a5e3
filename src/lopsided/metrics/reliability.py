"""How often labels come true that are called probable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from scipy.special import ndtri
from torch import Tensor

from lopsided.metrics.calibration_error import equal_width
from lopsided.metrics.truth import as_targets, as_tensor, truth_matrices


@dataclass(frozen=True)
class Reliability:
    """The points of a reliability diagram, a bin each; (bins,) float64, NaN but for `count` in empty bins."""

    count: Tensor  # entries in the bin
    predicted: Tensor  # their mean probability
    observed: Tensor  # the share of them that are true
    low: Tensor  # Wilson's 95 % interval of that share
    high: Tensor

    @property
    def calibration_error(self) -> float:
        """Returns the expected calibration error: mean of |predicted - observed| over the entries."""
        gap = (self.predicted - self.observed).abs().nan_to_num(0.0)
        return float((self.count * gap).sum() / self.count.sum())


def reliability(
    probabilities: Any, targets: Any, bins: int = 15, *, mask: Any = None, ignore_index: int | None = None
) -> Reliability:
    """Sorts probabilities into bins of equal width, and compares each bin's mean with the share that came true.

    Args:
        probabilities: any shape, float in [0, 1]; a tensor, numpy array or list.
        targets: the same shape, 0 and 1, dense, or sparse where the shape is (rows, labels).
        mask, ignore_index: they mark unknown labels, as NaN does, which are left out.

    Bins are closed above, the first on both sides, as `equal_width` has it. Intervals: Wilson, JASA 1927, as if entries
    were independent; the labels of a row are not, so they are somewhat too narrow. Raises ValueError for probabilities
    outside [0, 1].

    >>> points = reliability(torch.tensor([0.2, 0.2, 0.9]), torch.tensor([0, 1, 1]), bins=2)
    >>> points.count, points.observed
    (tensor([2., 1.], dtype=torch.float64), tensor([0.5000, 1.0000], dtype=torch.float64))
    """
    p, targets = as_tensor(probabilities).cpu(), as_targets(targets)
    true, known = truth_matrices(targets, p.shape, mask, ignore_index)
    chosen = torch.ones_like(true) if known is None else known
    p, true = p[chosen].double(), true[chosen].double()
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]: calibrate the scores first")
    place = equal_width(p, bins)
    empty = torch.zeros(bins, dtype=torch.float64)
    count = empty.index_add(0, place, torch.ones_like(p))
    observed = empty.index_add(0, place, true) / count
    low, high = wilson(observed, count)
    return Reliability(count, empty.index_add(0, place, p) / count, observed, low, high)


def wilson(share: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Computes Wilson's 95 % interval of a share among `count` independent draws; NaN for none."""
    z = float(ndtri(0.975))
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)).sqrt()
    return (centre - half).clamp_min(0), (centre + half).clamp_max(1)
