"""Sets what thresholds bring beside what a loss brings: both from the same table of results."""

from __future__ import annotations

from collections.abc import Mapping

from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.numbers import share, signed
from lopsided.jobs.schema import Results

THRESHOLDS = {"own": "_own", "one tuned": "", "one a label": "_labels"}  # title -> end of a metric's name
_LEAST = 0.0005  # a gain that three digits show
_TITLES = {"macro_f1": "macro-F1", "micro_f1": "micro-F1"}


def has_thresholds(results: Results) -> bool:
    """Tells whether thresholds were tuned."""
    return any(entry.metrics["macro_f1"].mean is not None for entry in results.losses.values())


def explained(results: Results) -> str:
    """Explains the decisions behind the metrics of a table; those that it has."""
    known = results.known_metrics()
    rules = {
        "own": "the threshold that the loss implies",
        "tuned": "the one with the best micro-F1, also for subset accuracy and Hamming loss",
        "by label": "one for each, tuned for F1",
    }
    asked = {METRICS[name].at for name in known if _TITLES.keys() & {METRICS[name].name}}
    said = "; ".join(f"{name}: {rule}" for name, rule in rules.items() if name in asked)
    sentences = [f"{said[:1].upper()}{said[1:]}."] if said else []
    if any(METRICS[name].name == "macro_f1" for name in known):
        sentences.append("Macro-F1 is the mean of the F1 of labels (Opitz & Burst, arXiv 1911.03347).")
    return " ".join(sentences)


def threshold_rows(results: Results, names: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Returns (title, cells) of the reference, and of the loss that is best with each kind of thresholds.

    names: of the losses.
    """
    rows = []
    for name, title in _TITLES.items():
        metrics = [name + end for end in THRESHOLDS.values()]
        own = [share(results.losses[results.reference].metrics[metric].mean) for metric in metrics]
        best = [_best(results, metric, names) for metric in metrics]
        rows += [(f"{title}, {names[results.reference]}", own), (f"{title}, best loss", best)]
    return rows


def _best(results: Results, metric: str, names: Mapping[str, str]) -> str:
    best = results.best_loss(metric)
    return "-" if best is None else f"{share(results.losses[best].metrics[metric].mean)} {names[best]}"


def what_brings_what(results: Results) -> list[str]:
    """Says for macro- and micro-F1 what tuned thresholds add to the reference, and the best loss to that."""
    if not has_thresholds(results):
        return []
    return [sentence for name in _TITLES if (sentence := _brought(results, name)) is not None]


def _brought(results: Results, name: str) -> str | None:
    title, reference = _TITLES[name], results.reference
    metrics = {kind: name + end for kind, end in THRESHOLDS.items()}
    values = {kind: results.losses[reference].metrics[metric].mean for kind, metric in metrics.items()}
    known = {kind: value for kind, value in values.items() if value is not None}
    if "own" not in known:
        return None
    kind = max(known, key=lambda kind: known[kind])
    best = results.best_loss(metrics[kind]) or reference
    gain, more = known[kind] - known["own"], (results.losses[best].metrics[metrics[kind]].mean or 0.0) - known[kind]
    adds = f"the best loss, {best}, adds {signed(more)}" if more >= _LEAST else "no other loss adds to that"
    if gain >= _LEAST:
        return f"Thresholds ({kind}) bring {reference} {signed(gain)} {title}; {adds}"
    if more < _LEAST:
        return f"Neither tuned thresholds nor another loss bring {reference} any {title}"
    return f"Tuned thresholds bring {reference} no {title}; {adds}"
