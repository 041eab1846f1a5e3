"""Writes README.md of a run folder: what the model is, what it was trained on, how well it did, how it is used."""

from __future__ import annotations

import math

from lopsided import __version__
from lopsided.data.inputs import Texts
from lopsided.decision.choose import Decision
from lopsided.jobs.folder import RunFolder
from lopsided.jobs.numbers import share
from lopsided.jobs.schema import TrainingRecord
from lopsided.models.model import Model
from lopsided.training.history import Epoch

_SHOWN = 30  # labels
_REFITTED = ", chosen on the validation rows; then the model was solved once more, on these rows as well"


def model_card(folder: RunFolder, model: Model, decision: Decision, record: TrainingRecord) -> str:
    """Returns Markdown."""
    config, best = folder.config, folder.read_history()[record.best_epoch - 1]
    counts, calibrator = model.label_counts, decision.calibrator
    probabilities = "no probabilities" if calibrator is None else f"probabilities by {type(calibrator).__name__}"
    order = counts.argsort(descending=True, stable=True)[:_SHOWN].tolist()
    lines = [
        f"# {_escaped(config.name)}, {model.method}",
        "",
        "A multi-label classifier, trained by [lopsided](https://pypi.org/project/lopsided) " + __version__ + ".",
        "",
        f"- **Model**: `{model.encoder.name}`, loss `{record.method}`, seed {record.seed}",
        f"- **Training rows**: {model.rows} of `{_escaped(config.name)}`, {model.labels_per_row:.3g} labels a row",
        f"- **Labels**: {model.num_labels}, of which {int((counts < 10).sum())} have fewer than 10 training rows",
        f"- **Training**: {record.epochs} epochs in {record.seconds:.0f} s; the weights are those of epoch "
        f"{record.best_epoch}",
        *([f"- **Penalty**: l2 {best.l2:g}{_REFITTED * record.refitted}"] if not math.isnan(best.l2) else []),
        f"- **Validation rows** ({_escaped(config.valid or str(config.share('valid')))}): {_measured(best)}",
        f"- **Rule**: {decision.name}; {probabilities}",
        "",
        "Numbers of other rows stand in `results*.json`, which `lopsided evaluate` writes.",
        "",
        "```python",
        "import lopsided",
        "",
        'model = lopsided.load("path/of/this/folder")',
        'model.predict(["a text"])' if model.encoder.inputs is Texts else "model.predict(rows)",
        "```",
        "",
        "| label | training rows |",
        "|---|---|",
        *(f"| {_escaped(model.label_names[label])} | {counts[label]:g} |" for label in order),
    ]
    more = model.num_labels - len(order)
    return "\n".join([*lines, *([f"\nand {more} more labels"] * (more > 0))]) + "\n"


def _measured(epoch: Epoch) -> str:
    values = {"mAP": epoch.valid_map, "P@1": epoch.valid_p_at_1}
    shown = [f"{name} {share(value)}" for name, value in values.items() if not math.isnan(value)]
    return ", ".join(shown) or "none"


def _escaped(text: str) -> str:
    """Returns text in one line that Markdown shows as it is."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return "".join("\\" + sign if sign in r"\`*_{}[]<>#|" else sign for sign in line)
