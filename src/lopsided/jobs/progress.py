"""Shows progress to a person who waits: a live bar on a terminal, lines of text elsewhere."""

from __future__ import annotations

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

from lopsided.training.loop import Epoch


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


class Progress:
    """Shows a bar over all epochs of all runs, then one over the bootstrap; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = bars(console)
        self._task = TaskID(0)
        self._run = ""
        self._epochs = 0

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def preparing(self) -> None:
        self._task = self._bars.add_task("preparing the rows", total=None)

    def plan(self, runs: int, epochs: int) -> None:
        self._epochs = epochs
        self._bars.remove_task(self._task)
        self._task = self._bars.add_task("training", total=runs * epochs)

    def begin(self, run: str) -> None:
        self._run = run
        self._bars.update(self._task, description=self._run)

    def epoch(self, epoch: Epoch) -> None:
        self._bars.update(self._task, advance=1, description=f"{self._run}: mAP {epoch.valid_map:.3f}")

    def end(self, outcome: str) -> None:
        self._say(f"{self._run}: {outcome}")

    def skip(self, outcome: str) -> None:
        self._bars.update(self._task, advance=self._epochs)
        self.end(f"{outcome}, trained before")

    def resampling(self, total: int) -> None:
        self._task = self._bars.add_task("bootstrap of the test rows", total=total)

    def resampled(self) -> None:
        self._bars.advance(self._task)
