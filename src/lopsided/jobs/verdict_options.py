"""Reads what `lopsided verdict` is asked for, before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lopsided.data.storage import UserError
from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.config import known_metric

SCALES = ("logits", "probabilities")
_SEED = re.compile(r"(.+?)[-_.]seed[-_]?(\d+)")

Files = dict[str, dict[int, Path]]  # system -> seed -> file


def check_wanted(metric: str, scale: str | None) -> None:
    """Raises UserError for a metric that no comparison has, and for a scale that scores have not."""
    try:
        known_metric(metric, METRICS)
    except ValueError as error:
        raise UserError(str(error)) from None
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
