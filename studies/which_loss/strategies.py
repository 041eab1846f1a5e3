"""Ranks ZLPR, binary relevance, label powerset and losses that rank in the metrics of published comparisons."""

from __future__ import annotations

from collections.abc import Callable

from measured import Measured
from tables import grid

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


def strategies(study: Measured) -> str:
    """Returns mean ranks of published strategies in every metric, over the sets that have all."""
    columns = {title: study.ranks([*STRATEGIES], metric) for metric, title in PUBLISHED.items()}
    known = {title: ranks for title, ranks in columns.items() if ranks is not None}
    if not known:
        return "**Not measured yet.**"
    body = []
    for loss, title in STRATEGIES.items():
        cells = [ranks.mean_ranks[ranks.losses.index(loss)] for ranks in known.values()]
        best = [ranks.mean_ranks[0] for ranks in known.values()]
        marked = [f"**{share(one, 2)}**" if one == top else share(one, 2) for one, top in zip(cells, best, strict=True)]
        body.append([title, *marked])
    tests = [[f"p of {what}", *(share(value(ranks)) for ranks in known.values())] for what, value in TESTS.items()]
    first = next(iter(known.values()))
    told = (
        f"Mean ranks over {first.data_sets} sets, 1 is best; {share(first.critical_difference, 2)} apart would differ."
    )
    return f"{grid(['', *known], [*body, *tests])}\n\n{told}"


TESTS: dict[str, Callable[..., float]] = {
    "Iman and Davenport": lambda ranks: ranks.iman_davenport_p,
    "permutations": lambda ranks: ranks.permutation_p,
}
