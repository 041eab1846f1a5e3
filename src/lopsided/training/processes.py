"""Says which of several processes this one is, as `torchrun` and `accelerate launch` start them.

All of them train; the first one alone measures, writes and prints.
"""

from __future__ import annotations

import atexit
import gc
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

T = TypeVar("T")
_SOON = timedelta(seconds=5)


def count() -> int:
    """Returns how many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def is_lost(error: Exception) -> bool:
    """Tells whether an error of torch says that another process is gone."""
    return isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)


def is_first_to_end() -> bool:
    """Tells whether no other process has asked this before, so that this one says for all why they end.

    The process that met an error asks before it ends, those that it leaves behind as soon as they notice.
    """
    if count() == 1:
        return True
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # that not every build of torch has

    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        socket.create_connection((host, port), _SOON.total_seconds()).close()  # or torch prints how it fails, twice
        store = TCPStore(host, port, is_master=False, timeout=_SOON)
        return store.add(f"lopsided ends {os.environ.get('TORCHELASTIC_RESTART_COUNT')}", 1) == 1
    # there is no store yet, or its process is gone, which nobody told
    except (KeyError, ValueError, OSError, RuntimeError):
        return is_first() or torch.distributed.is_initialized()


def accelerator() -> Accelerator:
    """Returns what joins the processes; without being told, Accelerate joins none on CPUs."""
    atexit.register(_leave)
    return Accelerator(cpu=True) if count() > 1 and not torch.cuda.is_available() else Accelerator()


def _leave() -> None:
    """Ends the threads of gloo: with torch 2.13, some three in twenty processes that end with them are aborted."""
    if count() > 1 and torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()
        gc.collect()  # what was trained in parallel holds the group in a circle of references


def on_first(make: Callable[[], T]) -> T:
    """Calls a function in the first process, while the others wait; returns in all what it returned there.

    The result must be one that can be pickled. An error of the first process is raised in all.
    """
    if count() == 1:
        return make()
    accelerator()
    outcome: list[T | Exception] = [cast(T, None)]
    if is_first():
        try:
            outcome = [make()]
        except Exception as error:
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]
