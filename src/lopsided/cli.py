"""The command `lopsided`."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lopsided._version import __version__
from lopsided.compare import compare as run_comparison
from lopsided.compare import load
from lopsided.config import BUILT_IN, CompareConfig, make_config
from lopsided.data import Splits
from lopsided.data.digits_grid import digits_grid
from lopsided.data.preview import save_preview
from lopsided.doctor import findings
from lopsided.errors import UserError
from lopsided.losses import parse
from lopsided.progress import Progress
from lopsided.report import write_report
from lopsided.report.loss_plot import FORMATS, save_loss_plot
from lopsided.run_folder import RunFolder, is_run_folder
from lopsided.tables import print_loss, print_losses, print_results

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at data.", no_args_is_help=True)
app.add_typer(data_app, name="data")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Train multi-label classifiers whose positives are rare."""


def _option(text: str, default: str) -> Any:
    """An option that is None when not given, so that a run folder can tell what was asked anew."""
    return typer.Option(help=text, show_default=default)


@app.command()
def compare(
    data: Annotated[
        str | None,
        typer.Argument(
            help=f"'{BUILT_IN}' (images, built in), a .jsonl, .csv or .tsv file of texts and labels, "
            "or the folder of an unfinished run to go on with.",
            show_default=BUILT_IN,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.", show_default="runs/DATA-TIME")] = None,
    losses: Annotated[str | None, _option("Losses, separated by commas.", "bce,focal,asl,apl,zlpr")] = None,
    baseline: Annotated[str | None, _option("The loss compared against.", "bce")] = None,
    metric: Annotated[str | None, _option("The metric of the verdict.", "map")] = None,
    seeds: Annotated[int | None, _option("Trainings of each loss.", "3")] = None,
    epochs: Annotated[int | None, _option("Epochs of each training.", "by data")] = None,
    batch_size: Annotated[int | None, _option("Rows per step.", "by data")] = None,
    learning_rate: Annotated[float | None, _option("Step size.", "by data")] = None,
    valid: Annotated[str | None, _option("File of validation rows.", "split off")] = None,
    test: Annotated[str | None, _option("File of test rows.", "split off")] = None,
    text_column: Annotated[str | None, _option("Name of the text field.", "text")] = None,
    label_column: Annotated[str | None, _option("Name of the label field.", "labels")] = None,
    separator: Annotated[str | None, _option("Between the labels of a CSV cell.", ",")] = None,
    images: Annotated[int | None, _option(f"Training images of {BUILT_IN}.", "6000")] = None,
    missing: Annotated[float | None, _option("Share of the training positives to hide.", "0")] = None,
    data_seed: Annotated[int | None, _option("Seed of splits and of made data.", "0")] = None,
) -> None:
    """Tell which loss trains the best classifier on the data, and whether the difference is real."""
    asked = {name: value for name, value in locals().items() if value is not None}
    console = Console()
    folder, splits = (
        _resume(asked, console) if data != BUILT_IN and is_run_folder(Path(data or "")) else _begin(asked, console)
    )
    _run(folder, splits, console)


def _resume(asked: dict[str, Any], console: Console) -> tuple[RunFolder, Splits]:
    path = asked.pop("data")
    if asked:
        options = ", ".join("--" + name.replace("_", "-") for name in asked)
        raise UserError(f"{path} is a run folder, which fixes all settings; leave out {options}")
    folder = RunFolder.open(Path(path))
    with console.status("reading the data"):
        return folder, load(folder.config)


def _begin(asked: dict[str, Any], console: Console) -> tuple[RunFolder, Splits]:
    out = asked.pop("out", None)
    config = make_config(asked)
    with console.status("reading the data"):
        splits = load(config)  # before anything is written
    return RunFolder.create(out or _new_folder(config), config), splits


def _new_folder(config: CompareConfig) -> Path:
    return Path("runs") / f"{Path(config.name).stem}-{datetime.now():%Y%m%d-%H%M%S}"


def _run(folder: RunFolder, splits: Splits, console: Console) -> None:
    try:
        typer.echo(f"run folder: {folder.path}")
        with Progress(console) as progress:
            run_comparison(folder, splits, progress)
        report = write_report(folder.path)
    except KeyboardInterrupt:
        typer.echo(f"stopped; go on with: lopsided compare {shlex.quote(str(folder.path))}", err=True)
        raise typer.Exit(130) from None
    print_results(folder.read_results(), console)
    typer.echo(f"\nreport: {report}")


@app.command()
def losses(
    spec: Annotated[
        str | None,
        typer.Argument(help="A loss such as asl or 'asl(gamma_neg=2)'; all if left out.", show_default=False),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="The picture of SPEC to write: .png, .svg or .pdf.")] = None,
) -> None:
    """List the losses, or say what one of them does, and draw it."""
    if spec is None:
        if plot is not None:
            raise UserError("--plot needs a loss, such as: lopsided losses asl --plot asl.png")
        print_losses(Console())
        return
    try:
        loss = parse(spec)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from None
    print_loss(loss, Console())
    if plot is not None:
        if plot.suffix[1:] not in FORMATS:
            raise UserError(f"{plot}: a plot must end in {', '.join('.' + name for name in FORMATS)}")
        save_loss_plot(loss, plot)
        typer.echo(f"picture: {plot}")


@app.command()
def doctor() -> None:
    """Say which executor is active here, why, and how to change it."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for subject, finding in findings().items():
        table.add_row(f"[bold]{subject}[/bold]", escape(finding))
    Console().print(table)


@data_app.command()
def preview(
    name: Annotated[str, typer.Argument(help=f"'{BUILT_IN}'.")],
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("preview.png"),
    data_seed: Annotated[int, typer.Option(help="Seed of the made data.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Save a picture of samples with their labels."""
    if name != BUILT_IN:
        raise UserError(f"{name}: only {BUILT_IN} consists of images, so only it has a picture")
    save_preview(digits_grid(train=12, valid=0, test=0, seed=data_seed).train, out)
    typer.echo(f"picture: {out}")
