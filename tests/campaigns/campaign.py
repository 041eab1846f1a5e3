"""What all campaigns share: numbered trials, each of which is made by its number and a seed alone."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol


class Campaign(Protocol):
    """Tries what must not go wrong. Trials are independent, so that any number of them may be run, or one again."""

    name: str
    kinds: tuple[str, ...]  # of trials, taken in turn, some more often: the lines of the table

    def run(self, numbers: range, seed: int, where: Path) -> Iterator[tuple[int, str | None]]:
        """Yields the number of each trial, and its fault; files are written in an empty folder."""
        ...


def randomness(seed: int, number: int) -> Random:
    return Random(f"{seed} {number}")


@contextmanager
def copied(intact: Path, copy: Path) -> Iterator[None]:
    """Copies a folder for one trial."""
    shutil.copytree(intact, copy, symlinks=True)
    try:
        yield
    finally:
        shutil.rmtree(copy)


def kind_of(campaign: Campaign, number: int) -> str:
    return campaign.kinds[number % len(campaign.kinds)]


@dataclass
class Tally:
    """Counts trials and faults by kind, and keeps the faults; it is stored, so that a campaign goes on."""

    seed: int
    trials: Counter[str] = field(default_factory=Counter)
    faults: dict[int, str] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return sum(self.trials.values())

    def add(self, campaign: Campaign, number: int, fault: str | None) -> None:
        self.trials[kind_of(campaign, number)] += 1
        if fault is not None:
            self.faults[number] = fault

    def table(self, campaign: Campaign) -> str:
        """What the docs quote."""
        failed = Counter(kind_of(campaign, number) for number in self.faults)
        lines = [f"| {kind} | {self.trials[kind]:,} | {failed[kind]} |" for kind in dict.fromkeys(campaign.kinds)]
        total = f"| all | {self.done:,} | {len(self.faults)} |"
        return "\n".join([f"| {campaign.name} | trials | faults |", "|---|---:|---:|", *lines, total])

    def store(self, path: Path) -> None:
        content = {"seed": self.seed, "trials": self.trials, "faults": self.faults}
        path.with_suffix(".new").write_text(json.dumps(content, indent=1))
        path.with_suffix(".new").replace(path)

    @classmethod
    def stored(cls, path: Path, seed: int) -> "Tally":
        """What an earlier call of the same seed has done."""
        if not path.exists():
            return cls(seed)
        content = json.loads(path.read_text())
        assert content["seed"] == seed, f"{path} holds another seed, {content['seed']}"
        faults = {int(number): fault for number, fault in content["faults"].items()}
        return cls(seed, Counter(content["trials"]), faults)
