"""Writes what the pages of examples show of the study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from measured import BASE, Measured, marked
from sets import KINDS
from study import FAMILIES
from tables import ROOT, grid

from lopsided.jobs.numbers import share

PUBLISHED = {  # metrics of published comparisons
    "hamming_loss": "Hamming loss",
    "subset_accuracy": "subset acc.",
    "sample_f1": "sample-F1",
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "one_error": "one-error",
    "coverage": "coverage",
    "ranking_loss": "ranking loss",
    "lrap": "LRAP",
    "map": "mAP",
}
STRATEGIES = {  # of a published comparison
    "zlpr": "ZLPR",
    "bce": "BR: bce",
    "powerset": "LP: powerset",
    "lsep": "LSEP",
    "bp_mll": "BP-MLL",
    "two_way": "two-way",
    "softmax": "softmax",
}


def strategies(study: Measured, losses: Sequence[str] = tuple(STRATEGIES)) -> str:
    """Returns mean ranks of published strategies in every metric, over the sets that have all."""
    columns = {title: study.ranks(losses, metric) for metric, title in PUBLISHED.items()}
    known = {title: ranks for title, ranks in columns.items() if ranks is not None}
    if not known:
        return "**Not measured yet.**"
    body = []
    for loss in losses:
        means = [ranks.mean_ranks[ranks.losses.index(loss)] for ranks in known.values()]
        best = [ranks.mean_ranks[0] for ranks in known.values()]
        cells = [f"**{share(one, 2)}**" if one == top else share(one, 2) for one, top in zip(means, best, strict=True)]
        body.append([STRATEGIES[loss], *cells])
    tests = [[f"p of {what}", *(share(value(ranks)) for ranks in known.values())] for what, value in TESTS.items()]
    first = next(iter(known.values()))
    says = (
        f"Mean ranks over {first.data_sets} sets, 1 is best; {share(first.critical_difference, 2)} apart would differ."
    )
    return f"{grid(['', *known], [*body, *tests])}\n\n{says}"


TESTS: dict[str, Callable[..., float]] = {
    "Iman and Davenport": lambda ranks: ranks.iman_davenport_p,
    "permutations": lambda ranks: ranks.permutation_p,
}


TEXTS = [name for name, kind in KINDS.items() if kind in ("n-grams", "texts, frozen encoder")]
ASKED = {"map": "mAP", "micro_f1": "micro-F1, one threshold", "macro_f1_labels": "macro-F1, one a label"}


def on_texts(study: Measured, losses: Sequence[str]) -> str:
    """Returns, for the sets of texts that have all losses, the value of bce and how far the others are from it."""
    some = [name for name in TEXTS if all(study.values(name, loss, "map") for loss in losses)]
    body = []
    for metric, title in ASKED.items():
        found = {name: study.differences(name, (BASE, *losses), metric) for name in some}
        body.append([title, BASE, *(share(study.mean(name, BASE, metric)) for name in some)])
        for loss in losses:
            body.append(["", loss, *(marked(*found[name][loss]) for name in some)])
    return grid(["", "loss", *some], body) if some else "**Not measured yet.**"


def of_examples(study: Measured, main: Sequence[str]) -> dict[Path, dict[str, str]]:
    """Returns the tables of each page, by the names of their markers. main: the losses that every example has."""
    balanced = [loss for loss in ("focal", *FAMILIES["balanced"]) if loss != "ldam"]  # of Huang et al.
    return {
        ROOT / "examples/zlpr_comparison/README.md": {
            "strategies": strategies(study),
            "strategies but LP": strategies(study, [loss for loss in STRATEGIES if loss != "powerset"]),
        },
        ROOT / "examples/text_classification/README.md": {
            "texts": on_texts(study, main),
            "balanced texts": on_texts(study, balanced),
        },
    }
