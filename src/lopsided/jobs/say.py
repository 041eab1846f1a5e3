"""Says a line on the terminal, without the many things of rich that `jobs.console` needs."""

from __future__ import annotations

import typer

from lopsided.data.excerpts import visible


def say(line: str, err: bool = False) -> None:
    """Prints a line, of which a terminal obeys nothing; on standard error if asked."""
    typer.echo(visible(line), err=err)
