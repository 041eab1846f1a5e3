"""Simulated test scores of several losses and seeds, and the mAP of all of them on many bootstrap samples at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class World:
    """Where scores differ: in standard deviations of the noise that all losses and seeds share on a row and label."""

    rows: float = 0.0  # what a loss makes of a row, whatever the seed: another test set, another winner
    seeds: float = 0.0  # how well a seed separates positives from negatives, whatever the row
    both: float = 0.0  # what a seed of a loss makes of a row


WORLDS = {  # by what makes most of the luck
    "rows": World(rows=0.7, seeds=0.01, both=0.1),
    "seeds": World(rows=0.1, seeds=0.12, both=0.1),
    "rows x seeds": World(both=0.8),
    "all": World(rows=0.5, seeds=0.08, both=0.5),
}


def experiments(
    world: World, losses: int, seeds: int, trials: int, effect: float = 0.0, rows: int = 150, resamples: int = 60
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each trial the mAP (losses, seeds) and, resampled, (resamples, losses, seeds); the last loss is better."""
    generator = torch.Generator().manual_seed(0)
    labels = 4

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    for _ in range(trials):
        truth = torch.rand(labels, rows, generator=generator) < 0.25
        separation = 1.0 + world.seeds * normal(losses, seeds, 1, 1)
        separation[-1] += effect
        scores = separation * truth + normal(labels, rows)
        scores = (
            scores + world.rows * normal(losses, 1, labels, rows) + world.both * normal(losses, seeds, labels, rows)
        )
        drawn = torch.randint(rows, (resamples, rows), generator=generator)
        counts = torch.zeros(resamples, rows).scatter_add_(1, drawn, torch.ones(resamples, rows))
        found = mean_average_precisions(scores, truth, torch.cat([torch.ones(1, rows), counts]))
        yield found[0], found[1:]


def mean_average_precisions(scores: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """(samples, ...) mAP of scores (..., labels, rows) without ties, for truth (labels, rows) and how often each sample
    has each row, (samples, rows)."""
    order = scores.argsort(-1, descending=True)
    count = counts[:, order]
    hit = count * truth.expand_as(scores).gather(-1, order)
    precision = hit.cumsum(-1) / count.cumsum(-1).clamp_min(1)
    return ((hit * precision).sum(-1) / hit.sum(-1)).nanmean(-1)


def splits_of_rows(losses: int, splits: int, trials: int, rows: int = 250, width: int = 12) -> Iterator[Tensor]:
    """For each trial the mAP (losses, splits) of ridge regressions on 60 % of the same rows, on other 20 %.

    Each "loss" sees columns of its own, drawn alike for all: over fresh rows none is better than another, though on the
    rows of a trial one may well be. Splits share these rows, as those of `--resplit` do.
    """
    generator = torch.Generator().manual_seed(splits)
    labels = 4
    for _ in range(trials):
        features = torch.randn(losses, rows, width, generator=generator)
        shared = torch.randn(width, labels, generator=generator)
        signal = (features @ shared).sum(0) * (1.5 / (losses * width) ** 0.5)
        truth = (signal + torch.randn(rows, labels, generator=generator) > 1).float()
        values = torch.empty(losses, splits)
        for split in range(splits):
            order = torch.randperm(rows, generator=generator)
            train, test = order[: rows * 3 // 5], order[rows * 4 // 5 :]
            x, y = features[:, train], truth[train] - truth[train].mean(0)
            weights = torch.linalg.solve(x.mT @ x + 10 * torch.eye(width), x.mT @ y)
            scores = (features[:, test] @ weights).mT.contiguous()
            values[:, split] = mean_average_precisions(scores, truth[test].T, torch.ones(1, len(test)))[0]
        yield values
