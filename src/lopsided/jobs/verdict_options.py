"""Reads what `lopsided verdict` is asked for, before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lopsided.data.storage import UserError
from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.config import known_metric

SCALES = ("logits", "probabilities")
_SEED = re.compile(r"(.+?)[-_.]seed[-_]?(\d+)")

Files = dict[str, dict[int, Path]]  # system -> seed -> file


def check_wanted(metric: str, scale: str | None, validated: bool) -> None:
    """Raises UserError for a metric that no comparison has, or that lacks scores of validation rows, and for a scale
    that scores have not.
    """
    try:
        known_metric(metric, METRICS)
    except ValueError as error:
        raise UserError(str(error)) from None
    if METRICS[metric].is_tuned and not validated:
        raise UserError(f"{metric} is decided by a tuned threshold: give scores of validation rows too")
    if scale not in (None, *SCALES):
        raise UserError(f"scale: expected {' or '.join(SCALES)}, got {scale!r}")


def named_files(texts: Sequence[str]) -> Files:
    """Returns the files of each system by seed. NAME=FILE,FILE names a system; else the file does: NAME-seedN.npz.

    >>> found = named_files(["asl=a.npz,b.npz", "out/bce-seed7.csv", "svm.npy"])
    >>> {name: {seed: str(file) for seed, file in by_seed.items()} for name, by_seed in found.items()}
    {'asl': {0: 'a.npz', 1: 'b.npz'}, 'bce': {7: 'out/bce-seed7.csv'}, 'svm': {0: 'svm.npy'}}
    """
    found: Files = {}
    for text in texts:
        name, equals, files = text.rpartition("=")
        if equals:
            if not name:
                raise UserError(f"{text}: write NAME={files}, or the file alone")
            by_seed = dict(enumerate(map(Path, files.split(","))))
        else:
            match = _SEED.fullmatch(Path(text).stem)
            name, seed = (match[1], int(match[2])) if match else (Path(text).stem, 0)
            by_seed = {seed: Path(text)}
        for seed in by_seed.keys() & found.get(name, {}).keys():
            one, other = found[name][seed], by_seed[seed]
            raise UserError(f"{one} and {other} are both seed {seed} of {name}: write {name}={one},{other}")
        found.setdefault(name, {}).update(by_seed)
    return found


def paired_files(tests: Sequence[str], valids: Sequence[str], has_valid_truth: bool) -> tuple[Files, Files]:
    """Returns `named_files` of test rows and of validation rows.

    Raises UserError where validation rows have no labels, or lack a system or a seed.
    """
    test_files, valid_files = named_files(tests), named_files(valids)
    if bool(valids) != has_valid_truth or (valids and {*valid_files} != {*test_files}):
        raise UserError("validation rows need both: their labels, --valid-truth, and scores of each system, --valid")
    first = next(iter(test_files.values()), {})
    for files in (test_files, valid_files):
        for name, by_seed in files.items():
            if {*by_seed} != {*first}:
                raise UserError(
                    f"{name} has the seeds {_listed(by_seed)}, but {next(iter(test_files))} {_listed(first)}: "
                    "differences are paired by seed"
                )
    return test_files, valid_files


def check_systems(systems: Collection[str], reference: str | None) -> None:
    """Raises UserError for fewer than two systems, and for a reference that is none of them."""
    if len(systems) < 2:
        raise UserError(f"a verdict needs at least two systems, got {', '.join(systems) or 'none'}")
    if reference is not None and reference not in systems:
        raise UserError(f"the reference {reference!r} is not among {', '.join(systems)}")


def _listed(by_seed: Mapping[int, Path]) -> str:
    return ", ".join(map(str, sorted(by_seed)))
