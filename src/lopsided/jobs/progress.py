"""Shows progress to a person who waits: a live bar on a terminal, lines of text elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from lopsided.jobs.console import Console as SafeConsole
from lopsided.jobs.numbers import loss_value, share
from lopsided.training.history import Epoch


def bars(console: Console) -> Bars:
    """Returns live bars that vanish when done; without a terminal they show nothing. Use as a context manager."""
    return Bars(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


@contextmanager
def busy(task: str, console: Console | None = None) -> Iterator[None]:
    """Shows on a terminal that something is under way of which nobody knows how far it is."""
    with bars(console or SafeConsole()) as live:
        live.add_task(task, total=None)
        yield


def say(bars: Bars, line: str) -> None:
    """Prints a line above the bars."""
    bars.console.print(line, highlight=False, markup=False, soft_wrap=True)


class Progress:
    """Shows a bar over all epochs of all runs, then one over the bootstrap; use as a context manager."""

    def __init__(self, console: Console, each_epoch: bool = False) -> None:
        """each_epoch: whether a line is printed for every epoch."""
        self.bars = bars(console)
        self._each_epoch = each_epoch
        self._task = TaskID(0)
        self._run = ""
        self._left = 0

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def say(self, line: str) -> None:
        """Prints a line above the bars."""
        say(self.bars, line)

    def preparing(self) -> None:
        self._task = self.bars.add_task("preparing the rows", total=None)

    def plan(self, epochs: int) -> None:
        """Begins the bar over all trainings; its unit is an epoch."""
        self.bars.remove_task(self._task)
        self._task = self.bars.add_task("training", total=epochs)

    def begin(self, run: str, epochs: int) -> None:
        """Names the training that begins, and how many epochs of the plan are its own."""
        self._run, self._left = run, epochs
        self.bars.update(self._task, description=self._run)

    def step(self) -> None:
        """Keeps the bars alive in long epochs."""
        self.bars.update(self._task)

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        title, value = epoch.ranking
        valid = "" if math.isnan(value) else f": {title} {share(value)}"
        self._left -= 1
        self.bars.update(self._task, advance=1, description=f"{self._run}{valid}")
        (task,) = (each for each in self.bars.tasks if each.id == self._task)
        if task.total is not None and task.completed > task.total:  # a search takes more trials than were planned
            self.bars.update(self._task, total=task.completed)
        if self._each_epoch:
            shown = valid.replace(":", ", validation")
            step = f"epoch {epoch.epoch} of {epochs}"
            if not math.isnan(epoch.l2):
                step = f"penalty {epoch.epoch} of at most {epochs}, l2 {epoch.l2:.3g}"
            self.say(f"{step}: loss {loss_value(epoch.train_loss)}{shown}, {epoch.seconds:.1f} s")

    def end(self, outcome: str = "") -> None:
        """Passes over the epochs of the plan that were not needed."""
        self.bars.update(self._task, advance=max(0, self._left))
        if outcome:
            self.say(f"{self._run}: {outcome}")

    def resampling(self, total: int) -> None:
        self._task = self.bars.add_task("bootstrap of the test rows", total=total)

    def resampled(self) -> None:
        self.bars.advance(self._task)
