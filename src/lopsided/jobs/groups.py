"""Divides labels into rare, middling and frequent ones, and measures each group: that is where losses differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.evidence import Evidence
from lopsided.jobs.schema import LabelGroup
from lopsided.jobs.score import Scored, evaluate_labels
from lopsided.metrics.lists import Array

NAMES = ("rare", "middling", "frequent")


def label_groups(evidence: Evidence) -> list[LabelGroup]:
    """Returns the groups that have labels, from rare to frequent; none where training positives tell nothing apart."""
    if "train" not in evidence.positives:
        return []
    trained, tested = (evidence.positives[part].numpy() for part in ("train", "test"))
    models = {**evidence.scored, **{name: each.scored for name, each in evidence.baselines.items()}}
    edges = np.array(evidence.bins or thirds(trained[tested > 0]))
    group_of = np.searchsorted(edges, trained, side="right")
    groups = []
    for number, name in enumerate(NAMES):
        labels = group_of == number
        if labels.any():
            measured = {model: _measured(group, labels) for model, group in models.items()}
            low, high = int(trained[labels].min()), int(trained[labels].max())
            counts = {"labels": int(labels.sum()), "tested": int((tested[labels] > 0).sum())}
            groups.append(LabelGroup(name=name, low=low, high=high, **counts, metrics=measured))
    return groups if len(groups) > 1 else []


def thirds(counts: Array) -> tuple[int, int]:
    """Returns the counts at which the second and the last third of the labels begin; labels of one count stay together.

    >>> thirds(np.array([1, 2, 2, 8, 9, 9, 40, 50, 60]))
    (8, 40)
    """
    if not len(counts):
        return 0, 0
    rising = np.sort(counts)
    middling, frequent = (rising[min(math.ceil(part * len(rising) / 3), len(rising) - 1)] for part in (1, 2))
    return int(middling), int(frequent)


def _measured(scored: Sequence[Scored], labels: Array) -> dict[str, float | None]:
    """Returns the mean over seeds of every metric."""
    return {name: float(np.mean([evaluate_labels(name, one, labels) for one in scored])) for name in METRICS}
