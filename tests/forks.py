"""Processes that begin at once: a server imports what takes long, and forks.

It has not imported lopsided, of which some tests run changed copies: this module and those that begin such a process
must not import it either, since the server imports them too.
"""

import multiprocessing
from collections.abc import Callable
from typing import Any

from torch.multiprocessing.spawn import start_processes

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
CONTEXT: Any = multiprocessing.get_context(METHOD)
if METHOD == "forkserver":
    libraries = "torch.distributed.fsdp", "torch._dynamo", "scipy.stats", "sklearn.metrics", "rich.progress", "pydantic"
    CONTEXT.set_forkserver_preload([*libraries, "typer", "pytest", "hypothesis"])


def in_processes(number: int, function: Callable[..., None], *arguments: Any) -> None:
    """Calls `function(rank, *arguments)`, all of which must be pickled, in so many processes; raises as it did."""
    start_processes(function, arguments, nprocs=number, start_method=METHOD)
