"""`lopsided inspect`: what a run's files tell about its training, and its suspects, on a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lopsided.adaptive import ProbabilityTracker
from lopsided.data.xmc import SparseRows
from lopsided.diagnostics import DiagnosticsTracker
from lopsided.errors import UserError
from lopsided.fit import FitFolder, read
from lopsided.functional import multilabel_loss
from lopsided.models.sparse_features import SparseClassifier
from lopsided.progress import bars
from lopsided.run_folder import RunFolder, read_histories
from lopsided.suspects import Inspection

_SHOWN = 20  # suspects
_SAMPLED, _LOGITS = 512, 2**24  # training rows that a model is looked at with, and the most logits that they may have

Values = dict[str, float]
QUANTITIES: dict[str, Callable[[Values], float]] = {
    "p+ - p-": lambda v: v["p_positive"] - v["p_negative"],
    "gradient: pos.": lambda v: v["gradient_positive"],
    "hard negatives": lambda v: v["gradient_hard"],
    "easy negatives": lambda v: 1 - v["gradient_positive"] - v["gradient_hard"],
    "effective gamma": lambda v: v["effective_gamma"],
    "logit of pos.": lambda v: v["logit_positive"],
    "logit of neg.": lambda v: v["logit_negative"],
    "dead labels": lambda v: v["dead_labels"],
}
_CAPTION = (
    "p+, p-: mean probability given to the right answer. Gradient: shares of its absolute sum on the logits; hard is "
    "p > .5. Effective gamma: a negative's gradient ~ p^(1 + gamma). Dead labels: never decided on validation."
)


def print_diagnostics(folder: RunFolder | FitFolder, console: Console) -> None:
    """Of a comparison, every loss at the first and the last epoch; of a fitted model, as it is now.

    The training of `lopsided fit` never holds the logits: some training rows are shown to the model of its checkpoint.
    """
    if isinstance(folder, RunFolder):
        title, columns = "first → last epoch, mean over seeds", _of_losses(folder)
    else:
        title, columns = _of_model(folder, console)
    table = Table("", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for loss in columns:
        table.add_column(escape(loss), justify="right")
    for name, quantity in QUANTITIES.items():
        table.add_row(name, *("→".join(map(_number, map(quantity, values))) for values in columns.values()))
    console.print(f"\n[bold]{escape(folder.config.name)}[/bold]: {title}", highlight=False)
    console.print(table)
    console.print(f"[dim]{_CAPTION}[/dim]", highlight=False)


def _of_losses(folder: RunFolder) -> dict[str, list[Values]]:
    """The means of metrics.csv over the seeds, for every loss that it has: of its first and its last epoch."""
    path = folder.path / "metrics.csv"
    if not path.exists():
        raise UserError(f"{folder.path}: no training is finished yet; go on with: lopsided compare {folder.path}")
    return {loss: [_mean(seeds, 0), _mean(seeds, -1)] for loss, seeds in read_histories(path).items()}


def _mean(seeds: dict[int, dict[str, list[float]]], epoch: int) -> Values:
    """Of each column over the seeds that did not diverge."""
    histories = list(seeds.values())
    columns = {name: torch.tensor([history[name][epoch] for history in histories]) for name in histories[0]}
    return {name: float(values.double().nanmean()) for name, values in columns.items()}


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    if value == round(value):
        return f"{value:.0f}"
    shown = f"{round(value, 2) + 0.0:.2f}"  # + 0.0 turns -0.0 into 0.0
    return shown.replace("0.", ".", 1) if shown.lstrip("-").startswith("0") else shown


def _of_model(folder: FitFolder, console: Console) -> tuple[str, dict[str, list[Values]]]:
    checkpoint, _ = folder.trained()
    model = checkpoint.model
    sizes = model.num_features, len(model.label_counts)
    with bars(console) as live:
        rows = read(folder.config.files()["data"], live, folder.config.normalize, sizes)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    some = order[: max(1, min(_SAMPLED, _LOGITS // rows.num_labels))]
    title = f"after epoch {len(checkpoint.history)}, on {len(some)} training rows"
    return title, {folder.config.loss: [_measured(model, rows.take(some))]}


def _measured(model: SparseClassifier, rows: SparseRows) -> Values:
    model.eval()
    batch, targets = rows.batch(torch.arange(len(rows)))
    with torch.no_grad():
        logits = model.head.logits(model(batch))
    multilabel_loss(logits.requires_grad_(), targets, model.head.loss, reduction="batchmean").backward()
    probabilities, gradients = ProbabilityTracker(), DiagnosticsTracker()
    probabilities.update(logits.detach(), targets)
    gradients.update(logits.detach(), logits.grad, targets)
    sides = {"p_positive": probabilities.positive, "p_negative": probabilities.negative}
    return asdict(gradients.result()) | sides | {"dead_labels": math.nan}


def print_suspects(inspection: Inspection, console: Console) -> None:
    """The first of them, hostile labels and texts as they are, and where the rest stands."""
    found = inspection.suspects
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("row", justify="right")
    table.add_column("suspected label", max_width=30, overflow="ellipsis", no_wrap=True)
    table.add_column("probability", justify="right")
    discards = math.isfinite(inspection.discarded_above)
    if discards:
        table.add_column("discarded")
    if any(inspection.texts):
        table.add_column("text", overflow="ellipsis", no_wrap=True)
    for place in range(min(_SHOWN, len(found))):
        cells: list[Text | str] = [
            str(int(found.row[place]) + 1),
            Text(inspection.labels[place]),
            f"{found.probability[place]:.3f}",
        ]
        cells += ["yes" if found.discarded[place] else "no"] * discards
        cells += [Text(inspection.texts[place])] * any(inspection.texts)
        table.add_row(*cells)
    console.print(f"\nnegatives that look like forgotten positives, by {escape(inspection.loss)}", highlight=False)
    console.print(table)
    if discards:
        number = int(found.discarded.sum())
        console.print(
            f"[dim]{number} of {len(found)} suspects lie above logit {inspection.discarded_above:.2f}, where the loss "
            "begins to discard negatives as mislabelled.[/dim]",
            highlight=False,
        )
    console.print(f"\nsuspects: {inspection.written}", highlight=False, markup=False, soft_wrap=True)
