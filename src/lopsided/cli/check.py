"""Defines the command `lopsided check`."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from lopsided.data.storage import UserError
from lopsided.jobs.run_header import picture
from lopsided.jobs.say import say


def check(
    loss: Annotated[
        str,
        typer.Argument(
            help="file.py:MyLoss or package.module:my_loss: a function of (logits, targets), or a class that is built "
            "with its defaults, or with settings: 'file.py:MyLoss(gamma=2)'. It is your own code, and is run.",
            show_default=False,
        ),
    ],
    plot: Annotated[Path | None, typer.Option(help="The picture to write: .png, .svg or .pdf.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Tell whether a loss that you wrote does what it should, and which published one it is; exit code 1 after a fault.

    This command runs the file that it is given, and no other.
    """
    from lopsided.jobs.own_callable import named_callable

    plot = plot and picture(plot)
    name, own = named_callable(loss)
    from lopsided.jobs.console import Console
    from lopsided.testing import check_callable

    try:
        with redirect_stdout(sys.stderr):  # what the loss prints
            examination = check_callable(own, name)
    except ValueError as error:
        raise UserError(f"{loss}: {error}") from None
    except SystemExit as error:  # which would end this command as if nothing were wrong
        raise UserError(f"{loss}: it ends the program when it is called, by sys.exit({error.code})") from None
    if as_json:
        say(json.dumps(examination.as_dict(), allow_nan=False))
    else:
        from lopsided.report.callable_check import print_examination

        print_examination(examination, Console())
    if plot is not None:
        from lopsided.report.callable_check import save_examination_plot

        save_examination_plot(examination, plot)
        say(f"picture: {plot}", err=as_json)
    if examination.faults:
        raise typer.Exit(1)
