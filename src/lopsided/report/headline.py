"""States the answer: what to use, how sure that is, and what to do next, each thing once."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from lopsided.jobs.compare_config import in_seconds
from lopsided.jobs.evidence import LINEAR
from lopsided.jobs.numbers import between, p_value, share
from lopsided.jobs.schema import Comparison, Results
from lopsided.jobs.score import METRICS
from lopsided.jobs.verdict import AHEAD, BEHIND, BELOW, BETTER, NOTHING, UNTESTED, WORSE, leading, recommended
from lopsided.metrics.friedman import Ranks
from lopsided.metrics.significance import LEVEL

_NAMED = 4  # where there are more losses, only the first are named
_BY_LABEL, _ONE, _OWN = "one threshold a label", "one tuned threshold", "its own threshold"


def headline(results: Results) -> str:
    """Says in one sentence which loss to use and what it brings; without the full stop."""
    found = _by_verdict(results.comparisons)
    reference, title = results.reference, METRICS[results.metric].title
    if BETTER in found:
        chosen = recommended(results)
        return f"Use {_as_trained(results, chosen)} and {rule(results, chosen)}: {_worth(results, chosen)}"
    if AHEAD in found:
        best = leading(results, found[AHEAD])
        lead = f"{best} by {share(abs(results.comparisons[best].mean or 0.0))}"
        names = f"{_some(found[AHEAD])} {_are(found[AHEAD])}"
        return f"Train longer before you choose: {names} ahead of {reference} in {title} so far, {lead}"
    if set(found) <= {UNTESTED}:
        return f"Nothing can be said in {title}: no loss can be compared with {reference}"
    if BELOW in found:
        said = f"{_some(found[BELOW])} {_are(found[BELOW])} ahead of it, but below a baseline"
        return f"Keep {_as_trained(results, reference)} for now: {said}"
    value = share(results.losses[reference].metrics[results.metric].mean)
    return f"Keep {_as_trained(results, reference)}: no loss is shown to beat it in {title}, {value}"


def answer(results: Results) -> str:
    """Says the headline, and before it what makes the choice of a loss matter less; whole sentences."""
    return " ".join(f"{sentence}." for sentence in (*_warnings(results), headline(results)))


def _warnings(results: Results) -> Iterator[str]:
    """Yields what stands above any verdict: that the data decide little, or that the model is what lacks."""
    tested = results.tested
    if tested.few > tested.with_positives / 2:
        yield f"Few labels can be tested: {tested.few} of {tested.with_positives} have fewer than five test positives"
    if results.to_linear and not any(_is_above(gap.mean, gap.p_holm, results) for gap in results.to_linear.values()):
        value = share(results.baselines[LINEAR].metrics[results.metric])
        yield (
            f"The model is the problem, not the loss: none is shown to beat the linear baseline, "
            f"{METRICS[results.metric].title} {value}"
        )


def _is_above(gain: float | None, p: float | None, results: Results) -> bool:
    sign = 1 if METRICS[results.metric].higher_is_better else -1
    return gain is not None and sign * gain > 0 and _is_below(p)


def rule(results: Results, loss: str) -> str:
    """Returns the thresholds that give the loss the higher macro-F1; its own where none were tuned."""
    metrics = results.losses[loss].metrics
    by_label, one = (metrics[name].mean for name in ("macro_f1_labels", "macro_f1"))
    if by_label is None or one is None:
        return _OWN
    return _ONE if one > by_label else _BY_LABEL


def command(results: Results, folder: Path | None) -> str | None:
    """Returns the command that does what the headline says: train the loss to use, or train all of them longer.

    None where the models were trained elsewhere.
    """
    if folder is None or results.recipe is None:
        return None
    found = _by_verdict(results.comparisons)
    if AHEAD in found and BETTER not in found:
        longer = f"--epochs {3 * results.recipe.epochs}"
        if results.budget is not None:
            longer = f"--budget {3 * in_seconds(results.budget):g}s"
        return f"lopsided compare {shlex.quote(str(folder / 'config.json'))} {longer}"
    loss = recommended(results)
    decided = " --valid 0.1 --decide global" if rule(results, loss) == _ONE else ""
    return f"lopsided fit --like {shlex.quote(str(folder))} --loss {shlex.quote(loss)}{decided}"


def findings(results: Results) -> list[str]:
    """Returns the verdicts in words, a sentence for all losses that have the same, and what each asks for."""
    reference, title = results.reference, METRICS[results.metric].title
    by_verdict = _by_verdict(results.comparisons)
    relations = {
        BETTER: "better than {} in {}",
        WORSE: "worse than {} in {}: leave it",
        AHEAD: "ahead of {} in {} so far, but {} is unfinished: train longer",
        BEHIND: "behind {} in {} so far, but unfinished: train longer",
        BELOW: "ahead of {} in {}, but below a baseline: improve the model first",
    }
    sentences = []
    for word, losses in by_verdict.items():
        if word == BETTER and losses == [recommended(results)]:
            continue  # the headline says it
        if word in relations:
            sentences.append(f"{_some(losses)} {_are(losses)} " + relations[word].format(reference, title, reference))
        elif word == NOTHING:
            sentences.append(
                f"{_some(losses)}: no difference to {reference} was shown in {title}{_missed(results, losses)}"
            )
        else:
            sentences.append(f"{_some(losses)} cannot be compared with {reference} in {title}")
    return [*sentences, *_depends_on_the_list(results)]


def _missed(results: Results, losses: list[str]) -> str:
    """Says how large a difference would have been found; nothing where hardly any label can be tested."""
    sizes = [results.comparisons[loss].detectable for loss in losses]
    known = [size for size in sizes if size is not None]
    if not known or max(known) < 0.0005:
        return ""
    least, most = share(min(known)), share(max(known))
    about = f"above {most}" if least == most else f"above {least} to {most}, depending on the loss,"
    return f"; one {about} would be found with 80 % power"


def _depends_on_the_list(results: Results) -> Iterator[str]:
    """Yields where a difference would be shown had fewer losses been compared, and Holm's correction takes it away."""
    changed = [
        loss
        for loss, c in results.comparisons.items()
        if _is_below(c.p_alone) and _is_below(c.p_value) and not _is_below(c.p_holm)
    ]
    if changed:
        found = [results.comparisons[loss] for loss in changed]
        alone, here = (listed([p_value(getattr(c, p)) for c in found]) for p in ("p_alone", "p_holm"))
        yield (
            f"The verdict on {listed(changed)} depends on the list of losses: beside {results.reference} alone the "
            f"same models show a difference (p {alone}), among {len(results.losses)} losses none (p {here})"
        )


def _is_below(p: float | None) -> bool:
    return p is not None and p < LEVEL


def groups_in_words(results: Results) -> str:
    """Says which labels are rare, middling and frequent."""
    said = [
        f"{group.name}: {group.low} to {group.high} training positives, {group.labels} labels"
        + (f", {group.tested} of them with test positives" if group.tested < group.labels else "")
        for group in results.groups
    ]
    return "; ".join(said).capitalize() + "."


def _worth(results: Results, loss: str) -> str:
    """Says how good the loss is, and how far above the reference and the linear baseline; then the other metrics."""
    name, c = results.metric, results.comparisons[loss]
    direction = "above" if METRICS[name].higher_is_better else "below"
    parts = [
        f"{METRICS[name].title} {share(results.losses[loss].metrics[name].mean)}",
        f"{share(abs(c.mean or 0.0))} {direction} {results.reference} ({between(c)})",
    ]
    if gap := results.to_linear.get(loss):
        parts.append(f"{share(abs(gap.mean or 0.0))} {direction} the linear baseline")
    others: dict[str, list[str]] = {}
    for other, compared in results.other_comparisons.items():
        others.setdefault(compared[loss].verdict, []).append(METRICS[other].title)
    said = [f"{listed(titles)} {_in_words(word, titles)}" for word, titles in others.items() if word != UNTESTED]
    return "; ".join([", ".join(parts), *said])


def _in_words(word: str, titles: list[str]) -> str:
    several = len(titles) > 1
    if word == NOTHING:
        return "show no difference" if several else "shows no difference"
    return f"{'are' if several else 'is'} {word}"


def _as_trained(results: Results, loss: str) -> str:
    """Names a loss with its tuned settings and its rate."""
    entry = results.losses[loss]
    if results.is_solved:
        return loss if entry.l2 is None else f"{loss} with penalty {entry.l2:.3g}"
    rate = (entry.tuned_settings or {}).get("learning_rate", results.recipe.learning_rate if results.recipe else None)
    settings = loss if not entry.tuned_settings or len(entry.tuned_settings) == 1 else entry.settings
    return settings if rate is None else f"{settings} with learning rate {rate:g}"


def _by_verdict(comparisons: Mapping[str, Comparison]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for loss, comparison in comparisons.items():
        found.setdefault(comparison.verdict, []).append(loss)
    return found


def ranks_headline(ranks: Ranks, metric: str) -> str:
    """Says which losses rank best over several data sets."""
    title, best = METRICS[metric].title, ranks.losses[0]
    over = f"over {ranks.data_sets} data sets"
    if not ranks.permutation_p < LEVEL:
        apart = f"; mean ranks {share(ranks.critical_difference, 2)} apart would differ"
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


def _are(losses: list[str]) -> str:
    return "is" if len(losses) == 1 else "are"
