"""Begins a run, or takes up one that was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from lopsided.data.excerpts import printable
from lopsided.data.storage import STANDARD_OUTPUT, UserError, remove_leftovers
from lopsided.jobs.config import BUILT_IN, C, Config, checked
from lopsided.jobs.folder import RUNS, ConfigFolder, is_run_folder
from lopsided.jobs.progress import Progress
from lopsided.jobs.rows import Prepared, load, measurable, prepare, unsolved
from lopsided.jobs.settings import is_settings_file, read_settings
from lopsided.models.registry import trust
from lopsided.training.processes import on_first

F = TypeVar("F", bound=ConfigFolder[Any])


def trusted(asked: dict[str, Any]) -> dict[str, Any]:
    """Lets code of the user's own run that stands on the command line; what stands in a file is not trusted.

    Returns the settings as they are.
    """
    if "model" in asked:
        with suppress(ValueError):  # that the configuration tells
            trust(asked["model"])
    return asked


def begin(kind: type[F], data: str, out: Path | None, asked: dict[str, Any], progress: Progress) -> tuple[F, Prepared]:
    """Returns the folder of an unfinished run, or a new one, not written before its rows are encoded; and those."""
    if is_settings_file(Path(data)):
        asked = read_settings(Path(data), kind) | asked
        data = asked.pop("data")
    if data != BUILT_IN and is_run_folder(Path(data)):
        given = [*asked] if out is None else ["out", *asked]
        if given:
            options = ", ".join("--" + name.replace("_", "-") for name in given)
            raise UserError(f"{data} is a run folder, which fixes all settings; leave out {options}")
        folder = kind.open(Path(data))
        remove_leftovers(folder.path)
        return folder, _prepared(folder.config, progress)[1]
    if out == STANDARD_OUTPUT:
        raise UserError("--out: a run is a folder of files, and - is standard output; name a folder")
    config = checked(kind.config_kind, asked | {"data": data})
    try:
        config, prepared = _prepared(config, progress)
    except UserError as error:
        or_run = "; nor is it a run folder, which has a config.json" * Path(data).is_dir()
        raise UserError(f"{error}{or_run}") from None
    return on_first(lambda: kind.create(out or _new_folder(config), config)), prepared


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
    """Tells on Ctrl-C with which command to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with: {command}") from None
