"""Starts processes that work on a comparison side by side, each on one core."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from lopsided.jobs.compare_config import CompareConfig
from lopsided.jobs.rows import Prepared
from lopsided.models.recipe import Recipe

_SMALL = 2_000_000  # parameters of a body whose steps are too short for several cores


def how_many(config: CompareConfig, prepared: Prepared, recipe: Recipe, trainings: int) -> int:
    """Returns how many trainings run side by side: `config.jobs`, or as many as torch has threads for a small model.

    trainings: how many there are.
    """
    jobs = config.jobs
    if jobs is None:
        body = prepared.encoder.make_body()
        weights = sum(each.numel() for each in body.parameters()) if isinstance(body, nn.Module) else 0
        is_small = weights <= _SMALL and not recipe.solved and config.model is None
        jobs = torch.get_num_threads() if is_small and not torch.cuda.is_available() else 1
    return min(jobs, trainings)


@contextmanager
def side_by_side(jobs: int, work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Lets other processes do `work` too, so that there are `jobs` with this one; then each has one thread."""
    if jobs == 1:
        yield
        return
    context, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    helpers = [context.Process(target=_help, args=(work, *arguments), daemon=True) for _ in range(jobs - 1)]
    torch.set_num_threads(1)
    for helper in helpers:
        helper.start()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for helper in helpers:
            helper.terminate()  # whatever it does, its files are complete or not there
            helper.join()


def _help(work: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    with suppress(KeyboardInterrupt, Exception):  # the first process meets the same error, and tells
        work(*arguments)
