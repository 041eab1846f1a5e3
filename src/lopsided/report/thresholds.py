"""Sets what thresholds bring beside what a loss brings: both from the same table of results."""

from __future__ import annotations

from lopsided.jobs.numbers import share, signed
from lopsided.jobs.schema import Results

THRESHOLDS = {"own": "_own", "one tuned": "", "one a label": "_labels"}  # title -> end of a metric's name
_TITLES = {"macro_f1": "macro-F1", "micro_f1": "micro-F1"}


def has_thresholds(results: Results) -> bool:
    """Tells whether thresholds were tuned, on validation rows."""
    return any(entry.metrics["macro_f1"].mean is not None for entry in results.losses.values())


def threshold_rows(results: Results) -> list[tuple[str, list[str]]]:
    """Returns (title, cells) of the reference, and of the loss that is best with each kind of thresholds."""
    rows = []
    for name, title in _TITLES.items():
        metrics = [name + end for end in THRESHOLDS.values()]
        own = [share(results.losses[results.reference].metrics[metric].mean) for metric in metrics]
        rows += [(f"{title}, {results.reference}", own), (f"{title}, best loss", [_best(results, m) for m in metrics])]
    return rows


def _best(results: Results, metric: str) -> str:
    best = results.best_loss(metric)
    return "-" if best is None else f"{share(results.losses[best].metrics[metric].mean)} {best}"


def what_brings_what(results: Results) -> list[str]:
    """Says for micro- and macro-F1 what tuned thresholds add to the reference, and the best loss to that."""
    sentences: list[str] = []
    if not has_thresholds(results):
        return sentences
    for name, title in _TITLES.items():
        metrics = [name + end for end in THRESHOLDS.values()]
        reference = {metric: results.losses[results.reference].metrics[metric].mean for metric in metrics}
        best = {metric: loss for metric in metrics if (loss := results.best_loss(metric)) is not None}
        own, known = reference[metrics[0]], {metric: value for metric, value in reference.items() if value is not None}
        if own is None or not best:
            continue
        decided = max(known, key=lambda metric: known[metric])
        value = results.losses[best[decided]].metrics[decided].mean
        kind = next(kind for kind, end in THRESHOLDS.items() if name + end == decided)
        thresholds = f"thresholds ({kind}) bring {results.reference} {signed(known[decided] - own)} {title}"
        if decided == metrics[0]:
            thresholds = f"tuned thresholds bring {results.reference} no {title}"
        gain = (value or 0.0) - known[decided]
        adds = f"the best loss, {best[decided]}, adds {signed(gain)}" if gain > 0 else "no other loss adds to that"
        sentences.append(f"{thresholds}; {adds}")
    return sentences
