"""The lines that tell how a training goes on."""

import io

import pytest
from rich.console import Console

from lopsided.jobs.fit import outcome
from lopsided.jobs.progress import Progress, busy
from lopsided.jobs.schema import TrainingRecord
from lopsided.training.history import Epoch


@pytest.mark.parametrize(
    ("epoch", "line"),
    [
        (Epoch(2, 0.5, 1.5, valid_map=0.25), "epoch 2 of 24: loss .5, validation mAP .250, 1.5 s"),
        (Epoch(2, 0.5, 1.5, l2=16.0), "penalty 2 of at most 24, l2 16: loss .5, 1.5 s"),
    ],
)
def test_a_solved_model_has_penalties_instead_of_epochs(epoch: Epoch, line: str) -> None:
    console = Console(file=io.StringIO(), width=80)
    with Progress(console, each_epoch=True) as progress:
        progress.preparing()
        progress.epoch(epoch, 24)
    assert console.file.getvalue().strip() == line  # type: ignore[attr-defined]


def test_the_bar_is_never_more_than_full() -> None:
    with Progress(Console(file=io.StringIO())) as progress:
        progress.preparing()
        progress.plan(3)
        for _ in range(4):
            progress.begin("a trial that was not planned", 1)
            progress.epoch(Epoch(1, 0.5, 1.5), 1)
        (task,) = progress.bars.tasks
        assert (task.completed, task.total) == (4, 4)


@pytest.mark.parametrize(("best", "diverged", "said"), [(1, False, "validation mAP .500"), (0, True, "diverged")])
def test_the_end_of_a_training_tells_of_the_model_that_it_kept(best: int, diverged: bool, said: str) -> None:
    history = [Epoch(1, 0.5, 1.5, valid_map=0.5), Epoch(2, 0.4, 1.5, valid_map=0.25)]
    record = TrainingRecord(method="bce", seed=0, rows=9, epochs=2, best_epoch=best, seconds=3.0, diverged=diverged)
    assert outcome(history, record) == said


@pytest.mark.parametrize("terminal", [True, False])
def test_what_has_no_measure_is_shown_on_a_terminal(terminal: bool) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal)
    with busy("exporting", console):
        pass
    assert ("exporting" in console.file.getvalue()) is terminal  # type: ignore[attr-defined]
