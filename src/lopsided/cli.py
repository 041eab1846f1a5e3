"""The command `lopsided`."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from lopsided.config import BUILT_IN, CompareConfig, make_config
from lopsided.errors import UserError

if TYPE_CHECKING:
    from lopsided.run_folder import RunFolder

app = typer.Typer(
    help="Train multi-label classifiers whose positives are rare.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at data.", no_args_is_help=True)
app.add_typer(data_app, name="data")

_DEFAULTS = {name: field.default for name, field in CompareConfig.model_fields.items()}


def _option(*names: str, text: str, default: str | None = None) -> Any:
    """An option that is None when not given, so that a run folder can tell what was asked anew."""
    shown = str(_DEFAULTS[names[0].removeprefix("--").replace("-", "_")]) if default is None else default
    return typer.Option(*names, help=text, show_default=shown)


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
    losses: Annotated[
        str | None, _option("--losses", text="Losses, separated by commas.", default="bce,focal,asl,apl,zlpr")
    ] = None,
    baseline: Annotated[str | None, _option("--baseline", text="The loss compared against.", default="bce")] = None,
    metric: Annotated[str | None, _option("--metric", text="The metric of the verdict.")] = None,
    seeds: Annotated[int | None, _option("--seeds", text="Trainings of each loss.")] = None,
    epochs: Annotated[int | None, _option("--epochs", text="Epochs of each training.", default="by data")] = None,
    batch_size: Annotated[int | None, _option("--batch-size", text="Rows per step.", default="by data")] = None,
    learning_rate: Annotated[float | None, _option("--learning-rate", text="Step size.", default="by data")] = None,
    valid: Annotated[Path | None, _option("--valid", text="File of validation rows.", default="split off")] = None,
    test: Annotated[Path | None, _option("--test", text="File of test rows.", default="split off")] = None,
    text_column: Annotated[str | None, _option("--text-column", text="Name of the text field.")] = None,
    label_column: Annotated[str | None, _option("--label-column", text="Name of the label field.")] = None,
    separator: Annotated[str | None, _option("--separator", text="Between the labels of a CSV cell.")] = None,
    images: Annotated[int | None, _option("--images", text=f"Training images of {BUILT_IN}.")] = None,
    missing: Annotated[float | None, _option("--missing", text="Share of training positives to hide.")] = None,
    data_seed: Annotated[int | None, _option("--data-seed", text="Seed of splits and of made data.")] = None,
) -> None:
    """Tell which loss trains the best classifier on the data, and whether the difference is real."""
    from lopsided.run_folder import RunFolder, is_run_folder

    settings: dict[str, Any] = {
        "losses": None if losses is None else split_losses(losses),
        "baseline": baseline,
        "metric": metric,
        "seeds": seeds,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "valid": _path(valid),
        "test": _path(test),
        "text_column": text_column,
        "label_column": label_column,
        "separator": separator,
        "images": images,
        "missing": missing,
        "data_seed": data_seed,
    }
    if data is not None and is_run_folder(Path(data)):
        given = [name for name, value in (settings | {"out": out}).items() if value is not None]
        if given:
            options = ", ".join("--" + name.replace("_", "-") for name in given)
            raise UserError(f"{data} is a run folder, which fixes all settings; leave out {options}")
        folder = RunFolder.open(Path(data))
    else:
        config = make_config(data=data, **settings)
        folder = RunFolder.create(out or _new_folder(config), config)
    _run(folder)


def split_losses(text: str) -> tuple[str, ...]:
    """Split at commas outside parentheses.

    >>> split_losses("bce, asl(gamma_neg=2, clip=0)")
    ('bce', 'asl(gamma_neg=2, clip=0)')
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return tuple(part.strip() for part in parts if part.strip())


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _new_folder(config: CompareConfig) -> Path:
    return Path("runs") / f"{Path(config.data).stem}-{datetime.now():%Y%m%d-%H%M%S}"


def _run(folder: RunFolder) -> None:
    from lopsided.compare import compare as run_comparison
    from lopsided.progress import Progress
    from lopsided.report import write_report
    from lopsided.tables import print_results

    console = Console()
    typer.echo(f"run folder: {folder.path}")
    try:
        with Progress(console) as progress:
            run_comparison(folder, progress)
        report = write_report(folder.path)
    except KeyboardInterrupt:
        typer.echo(f"stopped; go on with: lopsided compare {shlex.quote(str(folder.path))}", err=True)
        raise typer.Exit(130) from None
    print_results(folder.read_results(), console)
    typer.echo(f"\nreport: {report}")


@data_app.command()
def preview(
    name: Annotated[str, typer.Argument(help=f"'{BUILT_IN}'.")],
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("preview.png"),
    data_seed: Annotated[int, typer.Option(help="Seed of the made data.", min=0)] = 0,
) -> None:
    """Save a picture of samples with their labels."""
    if name != BUILT_IN:
        raise UserError(f"{name}: only {BUILT_IN} consists of images, so only it has a picture")
    from lopsided.data.digits_grid import digits_grid
    from lopsided.data.preview import save_preview

    save_preview(digits_grid(train=12, valid=0, test=0, seed=data_seed).train, out)
    typer.echo(f"picture: {out}")
