"""Average precision and AUROC from histograms of the scores, with a bound of their error.

Scores in the same bin count as equal. Bins have the same width on the scale of logits, from -16 to 16, the outer ones
open: so they are fine where probabilities are near 0 or 1.
"""

from __future__ import annotations

import numpy as np
import torch

from lopsided.metrics.batch import Batch
from lopsided.metrics.counts import known_counts
from lopsided.metrics.lists import Array, ratio

_RANGE = 16.0


def histogram(batch: Batch, scale: str, bins: int) -> Array:
    """Returns (2, L, bins) rows and positives by rising score; what is not stored is in the first bin."""
    scores = torch.from_numpy(batch.scores).double()
    logits = (scores.logit() if scale == "probabilities" else scores).numpy()
    bin_ = np.floor((logits.clip(-_RANGE, _RANGE) + _RANGE) * (bins / (2 * _RANGE))).astype(np.int64)
    bin_ = bin_.clip(max=bins - 1)
    label = np.arange(batch.labels) if batch.places is None else batch.places % batch.labels
    place = (bin_ + label * bins).reshape(-1)
    true = batch.true if batch.places is None else np.flatnonzero(batch.stored_true())
    shape, size = (batch.labels, bins), batch.labels * bins
    counts = np.stack([np.bincount(each, minlength=size).reshape(shape) for each in (place, place[true])]).astype(float)
    total = np.bincount(batch.true % batch.labels, minlength=batch.labels)
    counts[:, :, 0] += np.stack([known_counts(batch.truth), total]) - counts.sum(2)
    return counts


def binned_values(counts: Array) -> tuple[Array, Array, Array, Array]:
    """Maps (2, S, bins) to (S,) AP, the most by which exact AP can differ, AUROC and the same; NaN as `ListRanks`.

    Whatever the order inside a bin, the j-th of its p positives, with T positives and F negatives above the bin and n
    negatives in it, has at least the precision (T + j) / (T + j + F + n), and at most (T + p) / (T + p + F), which
    it has where the positives are equal and come first.
    """
    rows, positive = counts[:, :, ::-1]
    negative = rows - positive
    hits, misses = positive.cumsum(1), negative.cumsum(1)
    before, total = hits - positive, hits[:, -1]
    precise, highest = ratio(hits, hits + misses), ratio(hits, hits + misses - negative)
    value, high = (ratio(np.where(positive > 0, positive * each, 0).sum(1), total) for each in (precise, highest))
    steps = torch.digamma(torch.from_numpy(np.stack([hits + misses + 1, before + misses + 1]))).numpy()
    low = ratio((positive - misses * (steps[0] - steps[1])).sum(1), total)
    pairs = total * misses[:, -1]
    ties = ratio((positive * negative).sum(1) / 2, pairs)
    auroc = ratio((positive * (misses[:, -1:] - misses)).sum(1), pairs) + ties
    return value, np.maximum(high - value, value - low), auroc, ties
