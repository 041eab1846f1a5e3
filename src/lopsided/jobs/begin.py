"""Begins a run, or takes up one that was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from lopsided.data.excerpts import printable
from lopsided.data.storage import UserError, remove_leftovers
from lopsided.jobs.config import C, Config, fingerprinted
from lopsided.jobs.folder import RUNS, ConfigFolder
from lopsided.jobs.progress import Progress
from lopsided.jobs.rows import Prepared, load, measurable, prepare, unsolved
from lopsided.models.registry import trust
from lopsided.training import processes

F = TypeVar("F", bound=ConfigFolder[Any])


def trust_named(model: str | None) -> None:
    """Lets code of the user's own run that the command line names; what a file names is not trusted."""
    if model is not None:
        with suppress(ValueError):  # that the configuration tells
            trust(model)


def begin(kind: type[F], asked: Config | Path, out: Path | None, progress: Progress) -> tuple[F, Prepared]:
    """Returns the folder of an unfinished run, or a new one, not written before its rows are encoded; and those.

    asked: the settings of a new run, or the folder of an unfinished one.
    """
    if isinstance(asked, Path):
        folder = kind.open(asked)
        with fingerprinted(folder.config) as digests:
            folder.refuse_other(digests)
            remove_leftovers(folder.path)
            return folder, _prepared(folder.config, progress)[1]
    try:
        with fingerprinted(asked) as digests:
            config, prepared = _prepared(asked, progress)
    except UserError as error:
        or_run = "; nor is it a run folder, which has a config.json" * Path(asked.data).is_dir()
        raise UserError(f"{error}{or_run}") from None
    return processes.on_first(lambda: kind.create(out or _new_folder(config), config, digests)), prepared


def _prepared(config: C, progress: Progress) -> tuple[C, Prepared]:
    """Returns the settings, with a metric that can be measured, and the encoded rows."""
    splits = load(config, progress.bars)
    for note in splits.notes:
        progress.say(printable(note))
    asked, config = config, measurable(config, splits)
    if config != asked:
        progress.say("too many labels to hold the scores of all: the verdict is of P@1, not of mAP")
    progress.preparing()
    prepared, train = prepare(config, splits), splits.train
    config.check(prepared.encoder.name, prepared.encoder.recipe(len(train), train.num_labels))
    too_large = unsolved(config, prepared)
    if too_large is not None:
        progress.say(too_large)
    return config, prepared


def _new_folder(config: Config) -> Path:
    return RUNS / f"{Path(config.name).stem}-{datetime.now():%Y%m%d-%H%M%S}"


@contextmanager
def going_on(command: str) -> Iterator[None]:
    """Tells with which command to go on, on Ctrl-C and where another of the processes that train died."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with: {command}") from None
    except RuntimeError as error:
        if not processes.is_lost(error):
            raise
        raise UserError(
            f"another of the {processes.count()} processes that train died; go on with: {command}"
        ) from None
