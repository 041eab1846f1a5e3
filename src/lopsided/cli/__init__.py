"""Defines the command `lopsided`.

What does the work is imported where it is called: help and errors of usage need neither torch nor the seconds that it
takes to import.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from lopsided import __version__
from lopsided.cli.check import check
from lopsided.cli.data import data_app
from lopsided.data import BUILT_IN
from lopsided.data.storage import STANDARD_OUTPUT, UserError, check_there
from lopsided.jobs.command_options import Configured, Group, with_options
from lopsided.jobs.run_header import command_of, graph, output, picture
from lopsided.jobs.say import say

Set = Annotated[
    list[str] | None, typer.Option("--set", help="A setting by its name in a file, NAME=VALUE; may be repeated.")
]
Out = Annotated[Path | None, typer.Option(help="Run folder.", show_default="runs/DATA-TIME")]

app = typer.Typer(cls=Group, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(data_app, name="data")


def _show_version(asked: bool) -> None:
    if asked:
        say(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Train multi-label classifiers whose positives are rare."""


@app.command(cls=Configured)
@with_options("lopsided.jobs.compare_config:CompareConfig")
def compare(
    data: Annotated[
        str | None,
        typer.Argument(
            help=f"Rows with labels: texts, tables, sparse rows, images (see docs/data.md), or '{BUILT_IN}', which is "
            "built in; a TOML file or the config.json of a run; or the folder of an unfinished run to go on with.",
            show_default=BUILT_IN,
        ),
    ] = None,
    out: Out = None,
    changes: Set = None,
    **asked: Any,
) -> None:
    """Tell which loss trains the best classifier on the data, and whether the difference is real."""
    from lopsided.jobs.compare_config import CompareConfig
    from lopsided.jobs.settings import assigned, settled

    settings = settled(CompareConfig, data or BUILT_IN, out, assigned(changes or [], CompareConfig, asked))

    from lopsided.jobs.begin import begin, going_on, trust_named
    from lopsided.jobs.compare import compare as train_and_compare
    from lopsided.jobs.console import Console
    from lopsided.jobs.folder import ComparisonFolder
    from lopsided.jobs.progress import Progress
    from lopsided.report.html import write_report
    from lopsided.report.terminal import print_results
    from lopsided.training.processes import count

    if count() > 1:
        raise UserError("a comparison trains in one process; several are for lopsided fit")
    trust_named(asked.get("model"))
    console = Console()
    with Progress(console) as progress:
        folder, prepared = begin(ComparisonFolder, settings, out, progress)
        with going_on(folder.continued):
            say(f"run folder: {folder.path}")
            train_and_compare(folder, prepared, progress)
    page = write_report(folder.path)
    print_results(folder.read_results(), console, folder.path)
    say(f"\nreport: {page}")


@app.command(cls=Configured)
@with_options("lopsided.jobs.config:FitConfig")
def fit(
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Training rows: texts, tables, sparse rows, images (see docs/data.md); a TOML file or the config.json "
            "of a run, with all settings; or the folder of an unfinished run to go on with.",
            show_default="those of --like",
        ),
    ] = None,
    out: Out = None,
    like: Annotated[
        Path | None, typer.Option(help="Comparison whose recommended loss, or --loss, to train on all its rows.")
    ] = None,
    changes: Set = None,
    **asked: Any,
) -> None:
    """Train a classifier for any number of labels."""
    from lopsided.jobs.config import FitConfig
    from lopsided.jobs.settings import assigned, settings_like, settled

    model, asked = asked.get("model"), assigned(changes or [], FitConfig, asked)
    if like is not None:
        asked = settings_like(like, asked.pop("loss", None), "valid" in asked) | asked
        data = data or Path(asked["data"])
    if data is None:
        raise UserError("no training rows: lopsided fit FILE, or --like COMPARISON for those of a comparison")
    asked.pop("data", None)
    settings = settled(FitConfig, str(data), out, asked)

    from lopsided.jobs.begin import begin, going_on, trust_named
    from lopsided.jobs.console import Console
    from lopsided.jobs.fit import fit as train_model
    from lopsided.jobs.fit import recipe_of
    from lopsided.jobs.folder import RunFolder
    from lopsided.jobs.progress import Progress
    from lopsided.training.processes import is_first

    trust_named(model)
    with Progress(Console(quiet=not is_first()), each_epoch=True) as progress:
        folder, prepared = begin(RunFolder, settings, out, progress)
        progress.say(f"run folder: {folder.path}")
        with going_on(folder.continued):
            if folder.is_trained:
                progress.say("trained before, with these settings: nothing is trained again (another --out would be)")
            epochs = recipe_of(folder.config, prepared).epochs
            progress.plan(epochs)
            progress.begin(folder.config.loss, epochs)
            record = train_model(folder, prepared, progress)
    if record.diverged:
        raise UserError(f"training diverged in epoch {record.epochs}; start anew with a lower --learning-rate")
    if not is_first():
        return
    if folder.config.has_test:
        evaluate(run=folder.path)
    else:
        say(f"evaluate with: lopsided evaluate {shlex.quote(str(folder.path))} FILE")


@app.command(cls=Configured)
@with_options("lopsided.data.options:ReadOptions")
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a finished `lopsided fit`.")],
    data: Annotated[Path | None, typer.Argument(help="Rows to evaluate on.", show_default="those of --test")] = None,
    propensity_a: Annotated[float, typer.Option(help="A of the propensities.", min=0)] = 0.55,
    propensity_b: Annotated[float, typer.Option(help="B of the propensities.", min=0)] = 1.5,
    **asked: Any,
) -> None:
    """Tell how well a trained model ranks and decides: P@k, nDCG@k, propensity-scored P@k, F1 and more.

    Rows are read as in training, or as said.
    """
    command_of(run)
    check_there(data)
    from lopsided.jobs.console import Console
    from lopsided.jobs.evaluate import Propensity, evaluate_run
    from lopsided.jobs.folder import RunFolder
    from lopsided.jobs.progress import bars
    from lopsided.report.evaluation import print_evaluation

    console = Console()
    with bars(console) as live:
        folder = RunFolder.open(run)
        evaluation, written = evaluate_run(folder, data, Propensity(a=propensity_a, b=propensity_b), live, asked)
    print_evaluation(evaluation, written, console)


@app.command("inspect")
def inspect_run(
    run: Annotated[Path, typer.Argument(help="The folder of a `lopsided compare` or `lopsided fit`.")],
    data: Annotated[
        Path | None, typer.Argument(help="Labelled rows to look at with --missing.", show_default="those of the run")
    ] = None,
    missing: Annotated[bool, typer.Option("--missing", help="Rank the labels that rows seem to lack.")] = False,
    loss: Annotated[str | None, typer.Option(help="The loss to train with.", show_default="one of the run")] = None,
    top: Annotated[int | None, typer.Option(help="How many to write.", min=1, show_default="100")] = None,
    folds: Annotated[
        int | None, typer.Option(help="Parts, each scored by a model of the others.", min=2, show_default="5")
    ] = None,
) -> None:
    """Tell what the gradient of a run worked on; or, with --missing, which positive labels seem to be forgotten."""
    command_of(run)
    if not missing and any(option is not None for option in (data, loss, top, folds)):
        raise UserError("DATA, --loss, --top and --folds are for --missing")
    check_there(data)
    from lopsided.jobs.console import Console
    from lopsided.jobs.folder import open_folder
    from lopsided.report.inspection import print_diagnostics, print_suspects

    folder, console = open_folder(run), Console()
    if not missing:
        print_diagnostics(folder, console)
        return
    from lopsided.jobs.begin import going_on
    from lopsided.jobs.inspect_missing import inspect_missing
    from lopsided.jobs.progress import bars

    with going_on("the same command"), bars(console) as live:
        inspection = inspect_missing(folder, data, loss, folds or 5, top or 100, live)
    print_suspects(inspection, console)


@app.command(cls=Configured)
@with_options("lopsided.data.options:ReadOptions")
def predict(
    run: Annotated[Path, typer.Argument(help="The folder of a finished `lopsided fit`.")],
    data: Annotated[Path, typer.Argument(help="Rows to predict the labels of, which need none; - for standard input.")],
    out: Annotated[
        Path, typer.Option(help="File to write: .jsonl, .csv or .parquet; -, JSON lines on standard output.")
    ] = STANDARD_OUTPUT,
    keep: Annotated[
        str,
        typer.Option(
            help="Columns of the rows to write beside the predictions, such as id,title.", show_default="none"
        ),
    ] = "",
    **asked: Any,
) -> None:
    """Write the labels that a trained model predicts, and probabilities; rows are read as in training, or as said."""
    from lopsided.jobs.prediction_files import check_ending

    command_of(run)
    check_there(data)
    check_ending(out)
    from lopsided.jobs.console import Console
    from lopsided.jobs.predict import write_predictions
    from lopsided.jobs.progress import bars

    with bars(Console(stderr=True)) as live:
        rows, rule = write_predictions(run, data, out, live, asked, [*map(str.strip, filter(None, keep.split(",")))])
    is_stream = out == STANDARD_OUTPUT
    say(f"predictions of {rows} rows: {'standard output' if is_stream else out} (rule: {rule})", err=is_stream)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write; what encodes the rows is written beside it.")],
    rows: Annotated[
        Path | None, typer.Option(help="Some rows to trace the graph with.", show_default="the training file")
    ] = None,
) -> None:
    """Write a trained model as an ONNX graph, with its probabilities and its rule inside."""
    command_of(run)
    check_there(rows)
    graph(out)
    from lopsided.jobs.export import export as write_graph

    for path in write_graph(run, out, rows):
        say(f"written: {path}")


@app.command()
def serve(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.", min=0, max=65535)] = 8000,
) -> None:
    """Answer requests: POST rows to /predict, get labels and probabilities; /health and /schema tell the rest."""
    command_of(run)
    from lopsided.jobs.predict import Predictor
    from lopsided.jobs.serve import run_server

    run_server(Predictor.open(run), host, port)


@app.command()
def verdict(
    scores: Annotated[
        list[str],
        typer.Argument(
            help="A row of scores for each test row, a column for each label: .npz, .npy, .parquet, .csv, .tsv. "
            "NAME=FILE,FILE names a system and its seeds; without NAME= a file's own name does, such as NAME-seed0.npz."
        ),
    ],
    truth: Annotated[Path, typer.Option(help="The labels of the test rows, in the same form.")],
    valid: Annotated[list[str] | None, typer.Option(help="Scores of validation rows, named as SCORES; again.")] = None,
    valid_truth: Annotated[Path | None, typer.Option(help="Their labels, to tune thresholds on.")] = None,
    train_truth: Annotated[Path | None, typer.Option(help="Those of training rows, to tell rare labels.")] = None,
    metric: Annotated[str, typer.Option(help="The metric of the verdict.")] = "map",
    reference: Annotated[str | None, typer.Option(help="Compared against.", show_default="bce, or the first")] = None,
    scale: Annotated[str | None, typer.Option(help="logits or probabilities.", show_default="logits")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="runs/verdict-TIME")] = None,
) -> None:
    """Tell which of several models is better, by the scores that any tool wrote."""
    from lopsided.jobs.verdict_options import check_systems, check_wanted, paired_files

    check_wanted(metric, scale, bool(valid))
    files = paired_files(scores, valid or [], valid_truth is not None)
    check_systems(files[0], reference)
    scored = (file for named in files for by_seed in named.values() for file in by_seed.values())
    check_there(truth, valid_truth, train_truth, *scored)
    from datetime import datetime

    from lopsided.jobs.console import Console
    from lopsided.jobs.folder import RUNS
    from lopsided.jobs.score_sets import evidence_of_files
    from lopsided.report.outcome import Outcome
    from lopsided.report.terminal import print_results

    truths = {"test": truth, "valid": valid_truth, "train": train_truth}
    outcome = Outcome.of(evidence_of_files(scores, valid or [], truths, metric, reference, scale), console := Console())
    page = outcome.write(out or RUNS / f"verdict-{datetime.now():%Y%m%d-%H%M%S}")
    print_results(outcome.results, console)
    say(f"\nreport: {page}")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished `lopsided compare`, each of other data.")],
    out: Annotated[
        Path | None, typer.Option(help="The page to write.", show_default="report.html, of one run in its folder")
    ] = None,
) -> None:
    """Write the report of a run again, or one page over runs of several data sets: mean ranks of the losses."""
    for folder in runs:
        command_of(folder)
    from lopsided.report.html import write_report
    from lopsided.report.merged import read_finished, write_merged_report

    if len(runs) > 1:
        page = write_merged_report(runs, output(out or Path("report.html")))
    else:
        (run,) = read_finished(runs)
        page = write_report(run.folder.path, out and output(out))
    say(f"report: {page}", err=page == STANDARD_OUTPUT)


@app.command()
def losses(
    spec: Annotated[
        str | None,
        typer.Argument(help="A loss such as asl or 'asl(gamma_neg=2)'; all if left out.", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="The picture of SPEC to write: .png, .svg or .pdf; .html, a page that draws any loss."),
    ] = None,
) -> None:
    """List the losses, or say what one of them does, and draw it."""
    page = plot is not None and plot.suffix == ".html"
    if spec is None and plot is not None and not page:
        raise UserError("--plot needs a loss, such as: lopsided losses asl --plot asl.png")
    plot = plot and (output(plot) if page else picture(plot))
    from lopsided.losses import Balanced, Formula, any_loss

    try:
        loss = None if spec is None else any_loss(spec)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from None
    if plot is not None and not page and isinstance(loss, Balanced):
        raise UserError(f"{loss} depends on label counts, which a page has sliders for: --plot losses.html")
    from lopsided.jobs.console import Console
    from lopsided.report.losses import print_loss, print_losses

    if loss is None:
        print_losses(Console())
    else:
        print_loss(loss, Console())
    if plot is None:
        return
    if page:
        from lopsided.report.loss_page import write_loss_page

        write_loss_page(plot, loss)
    elif isinstance(loss, Formula):
        from lopsided.report.loss_plot import save_loss_plot

        save_loss_plot(loss, plot)
    say(f"picture: {plot}")


app.command()(check)


@app.command()
def doctor() -> None:
    """Say which executor is active here, why, and how to change it."""
    from rich.markup import escape
    from rich.table import Column, Table

    from lopsided.jobs.console import Console
    from lopsided.jobs.doctor import findings

    table = Table("", Column(overflow="fold"), show_header=False, box=None, pad_edge=False)  # paths are long
    for subject, finding in findings().items():
        table.add_row(f"[bold]{subject}[/bold]", escape(finding))
    Console().print(table)
