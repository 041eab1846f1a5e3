"""Defines the commands `lopsided data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lopsided.data import BUILT_IN
from lopsided.data.storage import STANDARD_OUTPUT, UserError, check_there
from lopsided.jobs.command_options import Configured, Group, with_options
from lopsided.jobs.run_header import output
from lopsided.jobs.say import say

data_app = typer.Typer(cls=Group, help="Look at data, or make some.")


@data_app.command(cls=Configured)
@with_options("lopsided.data.options:ReadOptions")
def check(
    data: Annotated[Path, typer.Argument(help="A file, or a folder, of labelled rows; see docs/data.md.")],
    test: Annotated[Path | None, typer.Option(help="Test rows, which are compared with them.")] = None,
    **asked: Any,
) -> None:
    """Tell how files are understood, what stands in them, and what may spoil a training or a verdict."""
    from lopsided.data.options import ReadOptions
    from lopsided.jobs.config import checked

    check_there(data, test)
    options = checked(ReadOptions, asked)
    from lopsided.jobs.check_data import check_data
    from lopsided.jobs.console import Console
    from lopsided.jobs.progress import bars
    from lopsided.report.data_check import print_data_check

    console = Console()
    with bars(console) as live:
        checked_data = check_data(data, test, options, live)
    print_data_check(checked_data, console)


@data_app.command()
def preview(
    name: Annotated[str, typer.Argument(help=f"'{BUILT_IN}'.")],
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("preview.png"),
    data_seed: Annotated[int, typer.Option(help="Seed of the made data.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Save a picture of samples with their labels."""
    if name != BUILT_IN:
        raise UserError(f"{name}: only {BUILT_IN} consists of images, so only it has a picture")
    from lopsided.data.digits_grid import digits_grid
    from lopsided.data.preview import save_preview

    save_preview(digits_grid(train=12, valid=0, test=0, seed=data_seed).train, output(out))
    say(f"picture: {out}", err=out == STANDARD_OUTPUT)


@data_app.command("make-xmc")
def make_xmc_files(
    labels: Annotated[int, typer.Option(help="Number of labels.", min=2, max=2**31 - 1)],
    out: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="xmc-LABELS")] = None,
    rows: Annotated[int, typer.Option(help="Training rows.", min=1)] = 100_000,
    test_rows: Annotated[int, typer.Option(help="Test rows.", min=1)] = 10_000,
    features: Annotated[
        int | None, typer.Option(help="Number of features.", min=10, max=2**31 - 1, show_default="labels / 8")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the made data.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Make sparse rows of any size with a long tail of labels: train.txt and test.txt."""
    from lopsided.data.make_xmc import XmcMaker, make_xmc
    from lopsided.jobs.console import Console
    from lopsided.jobs.progress import bars

    folder = out or Path(f"xmc-{labels}")
    maker = XmcMaker(labels, features or max(1000, labels // 8), seed)
    with bars(Console()) as live:
        task = live.add_task("making rows", total=rows + test_rows + 2)  # and one header for each file
        make_xmc(folder, maker, rows, test_rows, lambda count: live.advance(task, count))
    say(f"made: {folder / 'train.txt'} and {folder / 'test.txt'}")
