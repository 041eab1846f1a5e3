"""Says which of several processes this one is, as `torchrun` and `accelerate launch` start them.

All of them train; the first one alone measures, writes and prints.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

T = TypeVar("T")


def count() -> int:
    """Returns how many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def accelerator() -> Accelerator:
    """Returns what joins the processes; without being told, Accelerate joins none on CPUs."""
    return Accelerator(cpu=True) if count() > 1 and not torch.cuda.is_available() else Accelerator()


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
