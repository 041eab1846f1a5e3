"""Reads the settings of a run from the command line or a file, or takes them over from a comparison.

What is wrong with them is told before torch is imported, which takes seconds.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lopsided.data import BUILT_IN
from lopsided.data.storage import STANDARD_OUTPUT, UserError, check_there
from lopsided.jobs.config import C, Config, as_share, checked
from lopsided.jobs.run_header import command_of, is_run_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MOST = 10**6  # bytes
_BESIDE = ("labels_file", "targets_file", "filter_file", "image_folder")
_FILES = ("data", "valid", "test", *_BESIDE)


def settled(kind: type[C], data: str, out: Path | None, asked: dict[str, Any]) -> C | Path:
    """Returns the settings of a new run, or the folder of an unfinished one, whose settings are fixed.

    data: the name of the data, a file of settings, or such a folder. Raises UserError for bad settings, and for files
    that are not there.
    """
    if is_settings_file(Path(data)):
        asked = read_settings(Path(data), kind) | asked
        data = asked.pop("data")
    if data != BUILT_IN and is_run_folder(Path(data)):
        given = [*asked] if out is None else ["out", *asked]
        if given:
            options = ", ".join("--" + name.replace("_", "-") for name in given)
            another = f"lopsided {command_of(Path(data))} {Path(data) / 'config.json'} {options.replace(',', '')}"
            raise UserError(
                f"{data} is a run folder, which fixes all settings; leave out {options}, or begin a new run with its "
                f"settings but these: {another} ..."
            )
        command_of(Path(data))
        return Path(data)
    if out == STANDARD_OUTPUT:
        raise UserError("--out: a run is a folder of files, and - is standard output; name a folder")
    config = checked(kind, asked | {"data": data})
    check_there(*config.files().values(), *(getattr(config, name) for name in _BESIDE))
    return config


def is_settings_file(path: Path) -> bool:
    """Tells whether a file holds settings: a TOML file, or the config.json of a run."""
    return path.suffix == ".toml" or (path.name == "config.json" and path.is_file())


def read_settings(path: Path, kind: type[Config]) -> dict[str, Any]:
    """Returns the settings of a TOML file, or of the config.json of a run, which trains the same again.

    A TOML file has a line for each option, by its name; a heading such as [training] only groups them; paths are
    relative to the folder of the file:

        data = "train.jsonl"
        loss = "asl(gamma_neg=2)"

        [training]
        epochs = 3

    Raises UserError for a file that cannot be read, an unknown name, and for data that changed since the run began.
    """
    if path.suffix != ".toml":
        from lopsided.jobs.folder import folder_of

        return dict(folder_of(kind).open(path.parent).config.model_dump())
    try:
        if (size := path.stat().st_size) > _MOST:
            raise UserError(f"{path}: {size} bytes, and settings have {_MOST} at most; is it the right file?")
        stored = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    settings: dict[str, Any] = {}
    for name, value in _lines_of(stored):
        if name in settings:
            raise UserError(f"{path}: the setting {name!r} stands twice")
        settings[name] = value
    _check_names(path, settings, kind)
    if "data" not in settings:
        raise UserError(f"{path}: no setting 'data', the file of the training rows")
    for name in settings.keys() & {*_FILES}:
        value = settings[name] = str(settings[name])
        if value != BUILT_IN and as_share(value) is None:
            settings[name] = str(path.parent / value)
    return settings


def _lines_of(stored: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the settings of a TOML file, under whatever heading."""
    for name, value in stored.items():
        if isinstance(value, dict):
            yield from _lines_of(value)
        else:
            yield name.replace("-", "_"), value


def assigned(lines: Sequence[str], kind: type[Config], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of lines such as "epochs=3", or "training.epochs=3": what is before a dot only groups them.

    asked: options, which join them. Raises UserError for a line that is none, for an unknown name, and for one that
    is given twice.
    """
    settings = dict(asked)
    for line in lines:
        name, equals, value = line.partition("=")
        if not equals:
            raise UserError(f"--set {line}: write NAME=VALUE, such as --set epochs=3")
        name = name.strip().rpartition(".")[2].replace("-", "_")
        if name in settings:
            raise UserError(f"--set {line}: {name} is given twice")
        settings[name] = value.strip()
    _check_names("--set", settings, kind)
    return settings


def _check_names(source: Path | str, settings: dict[str, Any], kind: type[Config]) -> None:
    for name in settings.keys() - kind.model_fields.keys():
        near = difflib.get_close_matches(name, kind.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(kind.model_fields)}"
        raise UserError(f"{source}: unknown setting {name!r}: {hint}")


def settings_like(compared: Path, loss: str | None, holds_out: bool) -> dict[str, Any]:
    """Returns the settings that train a loss of a finished comparison, by its folder, on all rows of its training file.

    loss: one of the comparison; None for the one that its answer names. holds_out: whether validation rows
    will be split off after all.

    The loss, its own settings and the rate are those that the comparison chose and trained; no positives are hidden.
    Where the comparison split its validation rows off the training file, they are trained on as well: training lasts
    for the mean of the best epochs, or a model is solved with the penalty that the comparison names, and the rule with
    its thresholds is that of the comparison's model of seed 0, or of the split that chose that penalty.
    Where validation rows are a file, or are held out, they choose the epoch and the rule as always.
    """
    command_of(compared)
    from lopsided.jobs.folder import ComparisonFolder
    from lopsided.jobs.verdict import recommended

    folder = ComparisonFolder.open(compared)
    results, config = folder.read_results(), folder.config
    loss = loss or recommended(results)
    if loss not in config.losses:
        raise UserError(f"--loss: {loss} is not in {folder.path}, which compares {', '.join(config.losses)}")
    run = folder.open_run(loss, 0)
    if run.read_training().diverged:
        raise UserError(f"{folder.path}: training with {loss} diverged; choose another --loss")
    validated = holds_out or "valid" in config.files() or config.data == BUILT_IN
    entry, recipe = results.losses[loss], results.recipe
    assert recipe is not None
    changes: dict[str, Any] = {"missing": 0.0, "epochs": recipe.epochs}
    if not recipe.solved:
        changes["batch_size"] = recipe.batch_size
    if not validated:
        changes |= {"valid": "0", "patience": None, "decide": str(run.path.absolute())}
        if results.is_solved:  # not the place on the ladder of penalties, which begins elsewhere for more rows
            of_seeds = (folder.open_run(loss, seed) for seed in range(results.seeds))
            decided = next(each for each in of_seeds if each.chosen_penalty() == entry.l2)
            changes |= {"l2": entry.l2, "epochs": None, "decide": str(decided.path.absolute())}
        else:
            changes["epochs"] = max(1, round(sum(entry.best_epochs) / len(entry.best_epochs)))
    if config.data != BUILT_IN and "test" not in config.files():
        changes["test"] = "0"
    return run.config.model_dump() | changes
