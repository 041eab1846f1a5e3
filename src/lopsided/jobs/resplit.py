"""Prepares the rows of each seed of a comparison: the same for all, or with `--resplit` split anew."""

from __future__ import annotations

from rich.progress import Progress as Bars

from lopsided.jobs.compare_config import CompareConfig
from lopsided.jobs.rows import Prepared, load, prepare


class RowsBySeed:
    """Holds the rows of the first seed, and those of the one that was asked for last."""

    def __init__(self, config: CompareConfig, first: Prepared, bars: Bars) -> None:
        self.config, self.first, self.bars = config, first, bars
        self._last = 0, first

    def of(self, seed: int) -> Prepared:
        """Returns the rows that a run of that seed, in a folder of its own, would read and split by itself."""
        if seed == 0 or not self.config.resplit:
            return self.first
        if self._last[0] != seed:
            config = self.config.of_run(self.config.losses[0], seed, {})
            self._last = seed, prepare(config, load(config, self.bars))
        return self._last[1]
