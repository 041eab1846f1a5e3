"""Holds a verdict on models that were trained elsewhere, prints it, and writes its files."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from shutil import get_terminal_size

from lopsided.data.storage import UserError, write_text
from lopsided.jobs.console import Console
from lopsided.jobs.details import details
from lopsided.jobs.evidence import Evidence
from lopsided.jobs.progress import Progress
from lopsided.jobs.results import summarize
from lopsided.jobs.schema import Details, Results, write_file
from lopsided.report.headline import answer
from lopsided.report.html import page
from lopsided.report.terminal import print_results

_FILES = ("details.json", "results.json", "report.html")
_WIDTH = 100  # at most, and where there is no terminal


@dataclass(frozen=True)
class Outcome:
    """Holds a verdict: `print(outcome)` shows its tables, `outcome.write(folder)` writes them with a report.

    results: what results.json holds: `outcome.results.comparisons["asl"].verdict` is "better", say.
    details: what the report shows besides.
    """

    results: Results
    details: Details

    @classmethod
    def of(cls, evidence: Evidence, console: Console) -> Outcome:
        """Computes a verdict, under a bar where the console is a terminal."""
        with Progress(console) as progress:
            results = summarize(evidence, progress)
        return cls(results, details(evidence, results))

    @property
    def headline(self) -> str:
        """Says in a sentence or two which to use, and what it brings."""
        return answer(self.results)

    def __str__(self) -> str:
        text = io.StringIO()
        columns = get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
        print_results(self.results, Console(file=text, width=min(_WIDTH, columns)))
        return text.getvalue().strip("\n")

    def write(self, folder: str | Path) -> Path:
        """Writes results.json, details.json and report.html, and returns the path of the last.

        Raises UserError for a folder that holds anything else.
        """
        folder = Path(folder)
        strange = [path.name for path in folder.iterdir() if path.name not in _FILES] if folder.is_dir() else []
        if strange:
            raise UserError(f"{folder}: holds {min(strange)}, which is no file of a verdict; choose another folder")
        write_file(folder / "details.json", self.details)
        write_file(folder / "results.json", self.results)
        write_text(folder / "report.html", page(self.results, self.details))
        return folder / "report.html"
