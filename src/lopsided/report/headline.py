"""States the verdict in one sentence."""

from __future__ import annotations

from lopsided.jobs.schema import Results
from lopsided.jobs.score import METRICS
from lopsided.metrics.friedman import Ranks
from lopsided.metrics.significance import LEVEL

_NAMED = 4  # where there are more losses, only the first are named
_AHEAD, _BEHIND = ("better", "ahead so far"), ("worse", "behind so far")


def headline(results: Results) -> str:
    """Says who wins, or that no difference was shown and how large a missed one may be; without the full stop."""
    baseline, title = results.baseline, METRICS[results.metric].title
    by_kind: dict[str, list[str]] = {}
    for loss, comparison in results.comparisons.items():
        by_kind.setdefault(comparison.verdict, []).append(loss)
    if any(kind in by_kind for kind in _AHEAD):
        return "; ".join(_lead(results, by_kind[kind], kind) for kind in _AHEAD if kind in by_kind)
    undecided = [results.comparisons[loss] for loss in by_kind.get("no difference shown", [])]
    detectable = [comparison.detectable for comparison in undecided if comparison.detectable is not None]
    missed = f"below {max(detectable):.3f} may have been missed" if detectable else ""
    behind = [f"{_some(by_kind[kind])} {_do(by_kind[kind], 'is', 'are')} {kind}" for kind in _BEHIND if kind in by_kind]
    if behind:
        gains = f", where a gain {missed}" if missed else ""
        return f"No loss is shown to beat {baseline} in {title}{gains}; {'; '.join(behind)}"
    if undecided:
        return f"No difference to {baseline} was shown in {title}" + (f"; one {missed}" if missed else "")
    return f"Nothing can be said in {title}: no loss can be compared with {baseline}"


def _lead(results: Results, losses: list[str], kind: str) -> str:
    """Says who wins and by how much: asl and zlpr beat bce in mAP, by 0.036 and 0.034."""
    gains = {loss: abs(results.comparisons[loss].mean or 0.0) for loss in losses}
    order = sorted(losses, key=lambda loss: -gains[loss])
    sizes = [f"{gains[loss]:.3f}" for loss in order]
    by = listed(sizes) if len(sizes) < 3 else f"{sizes[-1]} to {sizes[0]}"
    title = METRICS[results.metric].title
    if kind == "better":
        return f"{_some(order)} {_do(order, 'beats', 'beat')} {results.baseline} in {title}, by {by}"
    return f"{_some(order)} {_do(order, 'is', 'are')} ahead of {results.baseline} in {title} so far, by {by}"


def ranks_headline(ranks: Ranks, metric: str) -> str:
    """Says which losses rank best over several data sets."""
    title, best = METRICS[metric].title, ranks.losses[0]
    over = f"over {ranks.data_sets} data sets"
    if not ranks.permutation_p < LEVEL:
        apart = f"; mean ranks {ranks.critical_difference:.2f} apart would differ"
        return f"No difference between the losses was shown in {title} {over}{apart}"
    equals = next((group for group in ranks.groups if best in group), (best,))
    beaten = [loss for loss in ranks.losses if loss not in equals]
    if not beaten:
        return f"The losses differ in {title} {over}, but none is shown to be behind {best}, which ranks best"
    return f"{best} ranks best in {title} {over}, and is shown to be ahead of {_some(beaten)}"


def listed(texts: list[str]) -> str:
    """Lists the names as a sentence does: asl, apl and zlpr."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _some(losses: list[str]) -> str:
    """Returns the first of many names, in their order."""
    return listed(losses if len(losses) <= _NAMED else [*losses[: _NAMED - 1], f"{len(losses) - _NAMED + 1} others"])


def _do(losses: list[str], one: str, several: str) -> str:
    return one if len(losses) == 1 else several
