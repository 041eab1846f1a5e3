"""How far probabilities are from frequencies: expected calibration error and Brier score.

With the rows of a label in bins by their probability p, where b holds n(b) of N rows:

    ECE = sum over b of  n(b) / N  *  | mean of y in b - mean of p in b |

Bins of equal width are (m / M, (m + 1) / M], with 0 in the first. Adaptive bins lie between the M-quantiles of p, as
numpy interpolates them, and are closed above too, so that equal probabilities stay together.

Source: Guo et al., On calibration of modern neural networks, ICML 2017, equation 3, with the probability of the label
in place of that of the predicted class; Nixon et al., Measuring calibration in deep learning, 2019, for adaptive bins
and for the mean over labels. Both kinds of bins are those of scikit-learn's `calibration_curve`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lopsided.metrics.batch import Batch
from lopsided.metrics.counts import known_counts
from lopsided.metrics.lists import Array, ratio


def probabilities(scores: Array, scale: str) -> Array:
    """Returns the probabilities of scores on that scale, float64."""
    exact = torch.from_numpy(scores).double()
    return (exact.sigmoid() if scale == "logits" else exact).numpy()


def equal_width(p: Tensor, bins: int) -> Tensor:
    """Returns the number of the bin of each probability, int64."""
    return torch.bucketize(p, torch.from_numpy(np.linspace(0, 1, bins + 1)[1:-1]))


def calibration_sums(batch: Batch, scale: str, bins: int) -> dict[str, Array]:
    """ "bins": (3, L, bins) rows, sum of p, positives. "brier": (L,) sum of (y - p)^2. What is not stored has p = 0."""
    p = probabilities(batch.scores, scale)
    place = equal_width(torch.from_numpy(p), bins).numpy()
    if batch.places is None:
        place += np.arange(batch.labels) * bins
        squares, true, true_label = np.square(p).sum(0), batch.true, batch.true % batch.labels
    else:
        label, at = batch.places % batch.labels, batch.stored_true()
        place += label * bins
        squares = np.bincount(label, weights=np.square(p), minlength=batch.labels)
        true, true_label = np.flatnonzero(at), label[at]
    place, p, size = place.reshape(-1), p.reshape(-1), batch.labels * bins
    shape = batch.labels, bins
    count = np.bincount(place, minlength=size).reshape(shape).astype(np.float64)
    mass = np.bincount(place, weights=p, minlength=size).reshape(shape)
    positive = np.bincount(place[true], minlength=size).reshape(shape)
    total = np.bincount(batch.true % batch.labels, minlength=batch.labels)
    count[:, 0] += known_counts(batch.truth) - count.sum(1)
    positive[:, 0] += total - positive.sum(1)
    brier = squares - 2 * np.bincount(true_label, weights=p[true], minlength=batch.labels) + total
    return {"bins": np.stack([count, mass, positive]).astype(np.float64), "brier": brier}


def expected_error(bins: Array) -> Array:
    """Computes the (...) calibration error from the (3, ..., bins) sums; NaN without rows."""
    rows, mass, positive = bins
    return ratio(np.abs(positive - mass).sum(-1), rows.sum(-1))


def adaptive_error(falling: Array, positive: Array, bins: int) -> float:
    """Computes the error of a label. falling: (N,) probabilities, sorted; positive: of the positives, sorted too."""
    if not len(falling):
        return np.nan
    rising = falling[::-1]
    share, below = np.modf(np.linspace(0, len(rising) - 1, bins + 1)[1:-1])
    left = rising[below.astype(np.int64)]
    edges = left + share * (rising[np.ceil(below + share).astype(np.int64)] - left)
    ends = np.concatenate([rising.searchsorted(edges, "right"), [len(rising)]])
    true = np.concatenate([positive[::-1].searchsorted(edges, "right"), [len(positive)]])
    mass = np.concatenate([[0.0], rising.cumsum()])[ends]
    gaps = np.diff(true, prepend=0) - np.diff(mass, prepend=0.0)
    return float(np.abs(gaps).sum() / len(rising))
