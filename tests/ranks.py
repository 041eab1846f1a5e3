"""Runs a function in several processes that gloo joins."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from tests.forks import in_processes


def on_ranks(ranks: int, folder: Path, test: Callable[..., None], *arguments: Any) -> None:
    """Calls `test(*arguments)`, all of which must be pickled, in each of so many new processes; raises as it did."""
    (folder / "store").unlink(missing_ok=True)
    in_processes(ranks, _rank, ranks, folder / "store", test, arguments)


def _rank(rank: int, ranks: int, store: Path, test: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    test(*arguments)
    leave()


def leave() -> None:
    """Ends the threads of gloo: a process that ends with them is aborted now and then."""
    dist.destroy_process_group()
    gc.collect()  # models hold the group in a circle of references
